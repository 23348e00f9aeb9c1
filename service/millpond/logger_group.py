"""The processes of all loggers: started from the configuration, and what they say as events.

Here, as in the core, `logger` is the index of a process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import structlog

from millpond.config.model import Config
from millpond.containment import become_subreaper, logger_environment, run_mark
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    LoggerSpawned,
)
from millpond.core.wire import Frame, Kind
from millpond.guard import Guard
from millpond.logger_process import LoggerProcess
from millpond.segment import Segment

log = structlog.get_logger(__name__)


class LoggerGroup:
    """One process at most for each that the configuration asks for.

    Args:
        config: The configuration.
        loop: The event loop.
        segment: The shared memory.
        setups: The first frame of each process.
        dispatch: Takes events.
    """

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        segment: Segment,
        setups: Sequence[bytes],
        dispatch: Callable[[Event], None],
    ) -> None:
        self._members = config.processes
        self._loop = loop
        self._segment = segment
        self._setups = setups
        self._dispatch = dispatch
        self._processes: dict[int, LoggerProcess] = {}
        # With our number: a guard that is late must not take those of the next daemon for ours.
        self._run_mark = f"{run_mark(config.output_dir)}/{os.getpid()}"
        become_subreaper()  # What a logger leaves behind comes to us, to be ended.
        self._guard = Guard(self._run_mark)
        self._spawned = 0  # Processes that were started.

    def spawn(self, logger: int) -> None:
        """Start the process of a logger; what it says and how it ends become events."""
        segment, member = self._segment, self._members[logger]
        self._spawned += 1
        mark = f"{member.name}:{self._spawned}"
        marks = {"MILLPOND_RUN": self._run_mark, "MILLPOND_LOGGER": mark}
        try:
            process = LoggerProcess(
                member.name,
                self._loop,
                inherited=[
                    segment.fd_read_only,
                    segment.control_fd_read_only,
                    segment.acks_fds[logger],
                ],
                setup=self._setups[logger],
                env=logger_environment(marks, member.logger.env),
                mark=mark,
                on_frame=lambda frame: self._said(logger, frame),
                on_doorbell=lambda: self._dispatch(DoorbellRang(logger)),
                on_exit=lambda cause, output: self._exited(logger, cause, output),
            )
        except OSError as error:
            self._dispatch(LoggerFailed(logger, f"cannot be started: {error}"))
            self._dispatch(LoggerExited(logger, f"not started ({error.strerror})"))
            return
        self._processes[logger] = process
        log.info("logger started", logger=member.name, pid=process.pid)
        self._dispatch(LoggerSpawned(logger, process.pid))

    def send(self, logger: int, results: Sequence[Result]) -> None:
        """Send results to a logger, in order."""
        self._processes[logger].send(b"".join([result.frame for result in results]))

    def close_one(self, logger: int) -> None:
        """Let one finish what it has, and end."""
        self._processes[logger].close_jobs()

    def kill(self, logger: int, why: str, *, dump: bool) -> None:
        """End one at once, or after it has written its stacks."""
        log.warning("killing logger", logger=self._members[logger].name, why=why)
        self._processes[logger].kill(dump=dump)

    def close(self) -> None:
        """Leave none behind."""
        for process in self._processes.values():
            process.kill()
        if not self._processes:  # Else the guard sees to what they leave.
            self._guard.close()

    def report_ready(self, logger: int) -> None:
        """Say that one takes jobs."""
        name = self._members[logger].name
        log.info("logger ready", logger=name, pid=self._processes[logger].pid)

    def _said(self, logger: int, frame: Frame) -> None:
        name = self._members[logger].name
        text = frame.body.decode(errors="replace")
        if frame.kind == Kind.READY:
            self._dispatch(LoggerReady(logger))
        elif frame.kind == Kind.FAILED:
            log.error("logger cannot be made", logger=name, problem=text)
            self._dispatch(LoggerFailed(logger, text, frame.sequence))
        elif frame.kind == Kind.RAISED:
            slot, generation, number = frame.slot, frame.generation, frame.sequence
            self._dispatch(LoggerRaised(logger, slot, generation, text, number))
        else:
            log.error("ending logger", logger=name, problem=f"frame of {frame.kind}")
            self._processes[logger].kill()

    def _exited(self, logger: int, cause: str, output: str) -> None:
        del self._processes[logger]
        self._dispatch(LoggerExited(logger, cause, output))
