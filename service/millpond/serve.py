"""Running the daemon from start to end: lock, memory, loggers, sockets, signals, summary."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

import structlog
import uvloop

from millpond.config.model import Config
from millpond.containment import end_strays, run_mark
from millpond.daemon import Daemon
from millpond.module_search import FoundModule
from millpond.run_folder import RunFolder, refuse_live_socket

EXIT_OK: Final = 0
EXIT_LOST: Final = 1
PROGRESS_S: Final = 0.5
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = structlog.get_logger(__name__)


def serve(
    config: Config,
    modules: Sequence[FoundModule],
    *,
    exit_when_done: bool = False,
    is_replay: bool = False,
) -> int:
    """Run until told to stop, and return the exit code.

    It is 1 when a result was lost; and when the daemon ended by itself, because all was done, but
    for what waits on the disk for a logger that could not be kept running.

    Args:
        config: What the operator wants.
        modules: Where each logger was found, in the order of the configuration.
        exit_when_done: Stop when every renderer has left and every result has its outcome.
        is_replay: Take no renderer; deliver what waits on the disk, and stop.

    Raises:
        AlreadyRunning: Another daemon has the run folder or a socket.
        MillpondError: The machine does not have what is needed.
    """
    # Inherited dispositions would change what our children's ends mean to us.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *STOP_SIGNALS})
    raise_descriptor_limit()
    with contextlib.closing(RunFolder(config.output_dir)):
        for path in (config.socket_path, config.health_socket_path):
            path.parent.mkdir(parents=True, exist_ok=True)
            refuse_live_socket(path)
        # Of a daemon that was killed: its loggers may still write what was in their pipes.
        if killed := end_strays(run_mark(config.output_dir)):
            log.warning("processes of an earlier daemon were left, and killed", count=killed)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            daemon = _run(config, modules, exit_when_done=exit_when_done, is_replay=is_replay)
            status, was_stopped = runner.run(daemon)
    with contextlib.suppress(OSError):  # The exit code tells it too.
        sys.stdout.write(summary(status, was_stopped=was_stopped, is_replay=is_replay))
        sys.stdout.flush()
    rows = status["loggers"].values()
    is_lost = any(row["dead"] or row["ended_badly"] for row in rows)
    is_left = not was_stopped and any(row["spilled"] for row in rows)
    is_lost_before = is_replay and status["disk"]["lost_before"]
    return EXIT_LOST if is_lost or is_left or is_lost_before else EXIT_OK


async def _run(
    config: Config, modules: Sequence[FoundModule], *, exit_when_done: bool, is_replay: bool
) -> tuple[dict[str, Any], bool]:
    """Run a daemon; its last status, and whether an operator stopped it."""
    loop = asyncio.get_running_loop()
    daemon = Daemon(config, modules, loop, exit_when_done=exit_when_done, is_replay=is_replay)
    loop.set_exception_handler(lambda _, context: fail_loudly(daemon, context))
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # As with nohup.
            loop.add_signal_handler(number, daemon.stop)
    try:
        daemon.start()
        # Imported while the loggers start: it takes a third of a second.
        from millpond.health import HealthServer  # noqa: PLC0415

        health = HealthServer(config.health_socket_path, daemon.status)
        await health.start()
        log.info(
            "serving",
            name=config.name,
            socket=str(config.socket_path),
            health=str(config.health_socket_path),
        )
        try:
            await _wait_finished(daemon)
        finally:
            await health.close()
        return daemon.finish(), daemon.was_stopped
    finally:
        daemon.close()
        # From here to the exit nothing is left that a signal could cut short, but the summary.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def fail_loudly(daemon: Daemon, context: dict[str, Any]) -> None:
    """Take what no callback caught: a bug of ours, which ends the daemon."""
    problem = context.get("exception")
    if isinstance(problem, BaseException):
        daemon.fail(problem)
    else:
        log.error("event loop", problem=context.get("message"))


async def _wait_finished(daemon: Daemon) -> None:
    if not sys.stderr.isatty():
        await daemon.finished
        return
    from millpond.progress import ProgressLine  # noqa: PLC0415

    with ProgressLine() as line:
        while not daemon.finished.done():
            await asyncio.wait([daemon.finished], timeout=PROGRESS_S)
            line.update(daemon.status())
    await daemon.finished


def summary(status: dict[str, Any], *, was_stopped: bool = False, is_replay: bool = False) -> str:
    """What became of every result, a line for each logger.

    Args:
        status: The last status of the daemon.
        was_stopped: An operator stopped it, so that results may wait for the next start.
        is_replay: It took no renderer.
    """
    loggers = status["loggers"]
    if is_replay and not any(row["published"] for row in loggers.values()):
        rows = ["nothing waits on the disk"]
    else:
        rows = _rows(loggers, status["output_dir"], was_stopped=was_stopped)
    if before := status["disk"]["lost_before"]:
        rows.append(
            f"{before} results of earlier starts are lost: see {status['output_dir']}/dead.jsonl"
        )
    unlisted = status["disk"]["unlisted"]
    if unlisted:
        rows.append(f"{unlisted} of the lost ones could not be listed: see the log")
    if sum(row["dead"] for row in loggers.values()) > unlisted:
        rows.append(f"the lost ones are listed in {status['output_dir']}/dead.jsonl")
    return "".join(f"{row}\n" for row in rows or ["no renderer came; nothing was published"])


def _rows(loggers: dict[str, Any], output_dir: str, *, was_stopped: bool) -> list[str]:
    """The numbers of each logger, and what is to be done about it."""
    rows = [
        f"{name}: {row['published']} published = {row['delivered']} delivered"
        f" + {row['dead']} dead + {row['spilled']} on the disk"
        + (f" + {row['filtered']} filtered" if row["filtered"] else "")
        + (f" + {left} left" if (left := row["queued"] + row["in_window"]) else "")
        for name, row in loggers.items()
    ]
    rows += [
        f"{name} ended badly: its last words may be missing, see the log"
        for name, row in loggers.items()
        if row["ended_badly"]
    ]
    left = {name: row for name, row in loggers.items() if row["spilled"]}
    if left and was_stopped:
        rows.append("what is on the disk goes to its logger when this configuration is run again")
    elif left:
        rows += [
            f"{name} did not get {row['spilled']} of them: {row['last_error'] or 'see the log'}; "
            f"mend it, then: millpond replay {output_dir}"
            for name, row in left.items()
        ]
    return rows


def raise_descriptor_limit() -> None:
    """Use as many descriptors as we may: a logger needs eight, a renderer one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
