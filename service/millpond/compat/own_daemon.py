"""A daemon of one's own: started for one run, ended with it.

It ends when its renderer has left and every result has its outcome.  Should the process that
started it die before, it is told to end, and has all the time that the loggers need.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from millpond.compat.delivery import ResultsMissing, wait_delivered
from millpond.compat.slot_pond import SlotPond
from millpond.core.layout import Channel, channels_to_json
from millpond.errors import DaemonUnreachable
from millpond.run_folder import AlreadyRunning, RunFolder, spill_folders

START_S: Final = 60.0
CONNECT_S: Final = 1.0
DRAIN_S: Final = 3600  # The most that the configuration takes.
# The sections of an experiment that loggers get; 3DB's others are about 3DB itself.
SECTIONS: Final = ("inference", "evaluation", "render_args", "policy", "controls")
SOCKET_PATH_BYTES_MAX: Final = 107
TAIL_BYTES: Final = 2000
EXIT_LOST: Final = 1


@dataclass(frozen=True)
class Plan:
    """What to start.

    Attributes:
        output_dir: Where the loggers write; the configuration and the log of the daemon too.
        loggers: Entries of ``logger_modules``.
        experiment: The experiment file as a mapping.
        slots: Results in memory at once.
    """

    output_dir: Path
    loggers: Sequence[Any]
    experiment: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 256

    def config(self, channels: Sequence[Channel], sockets: Path | None) -> dict[str, Any]:
        """The configuration as a mapping of plain values."""
        service: dict[str, Any] = {"drain_s": DRAIN_S}
        if sockets is not None:
            service |= {
                "socket": str(sockets / "millpond.sock"),
                "health_socket": str(sockets / "health.sock"),
            }
        sections = {
            name: plain(self.experiment[name])
            for name in SECTIONS
            if self.experiment.get(name) is not None
        }
        declared = {
            name: {"shape": shape, "dtype": dtype}
            for name, (shape, dtype) in channels_to_json(channels).items()
        }
        return {
            "output_dir": str(self.output_dir),
            "buffer": {"slots": self.slots, "channels": declared},
            "logging": {"logger_modules": plain(self.loggers)},
            "service": service,
            **sections,
        }


class OwnDaemon:
    """A daemon that this process started.

    Args:
        plan: What to start.
        channels: What will be written.

    Raises:
        DaemonUnreachable: Another one runs in the folder, in which nothing was changed.
        OSError: The run folder cannot be written.
    """

    def __init__(self, plan: Plan, channels: Sequence[Channel]) -> None:
        import yaml  # noqa: PLC0415  The renderer's side does without; who starts a daemon has it.

        folder = plan.output_dir
        try:
            RunFolder(folder).close()
        except AlreadyRunning as running:  # Perhaps it drains: its log and configuration stay.
            raise DaemonUnreachable(f"the daemon could not be started: {running}") from None
        self._folder = folder
        self._sockets = None
        if len(os.fsencode(folder / "millpond.sock")) > SOCKET_PATH_BYTES_MAX:
            self._sockets = Path(tempfile.mkdtemp(prefix="millpond-"))
        place = self._sockets or folder
        self.socket = place / "millpond.sock"
        self._health_socket = place / "health.sock"
        self._config = folder / "millpond.yaml"
        self._config.write_text(
            yaml.safe_dump(plan.config(channels, self._sockets), sort_keys=False)
        )
        self._log_path = folder / "millpond.log"
        command = [sys.executable, "-P", "-m", __name__, str(self._config), str(os.getpid())]
        if self._sockets is not None:
            command.append(str(self._sockets))
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()  # Before it are the words of earlier ones.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process; the daemon follows its end.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def connect(self, channels: Mapping[str, Any]) -> SlotPond:
        """Wait until it serves, and connect to it.

        Raises:
            DaemonUnreachable: It ended, or did not serve within `START_S`; with its last words.
        """
        deadline_s = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(DaemonUnreachable):
                pond = SlotPond(self.socket, channels, connect_s=CONNECT_S)
                if pond.daemon_pid == self.pid:
                    return pond
                pond.close()  # Another one was quicker; ours ends because of that.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(CONNECT_S)
        self.kill()
        raise DaemonUnreachable(f"the daemon could not be started: {self.last_words()}")

    def wait(self, patience_s: float) -> None:
        """Wait until every logger has what was published, and the daemon has ended.

        Raises:
            ResultsMissing: The daemon has ended, and some loggers do not have everything.
            DaemonUnreachable: Nothing was recorded for `patience_s`, or the daemon failed.
        """
        wait_delivered(self._health_socket, patience_s, has_ended=self._has_ended)
        code = self._process.wait()
        self._remove_sockets()
        if waiting := spill_folders(self._folder / "spill"):
            raise ResultsMissing(
                f"results wait on the disk for {', '.join(sorted(path.name for path in waiting))}; "
                f"deliver them with: millpond replay {self._config}\n{self.last_words()}"
            )
        if code == EXIT_LOST:
            raise ResultsMissing(f"not every logger has every result: {self.last_words()}")
        if code:
            raise DaemonUnreachable(f"the daemon ended with {code}: {self.last_words()}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._remove_sockets()

    def last_words(self) -> str:
        """The end of its log, and where that is."""
        try:
            with self._log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - TAIL_BYTES))
                text = log.read().decode(errors="replace").strip()
        except OSError as error:
            text = str(error)
        return f"{text or 'it said nothing'}\n(see {self._log_path})"

    def _has_ended(self, within_s: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.returncode is not None

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


def plain(value: Any) -> Any:
    """The same value of types that YAML and JSON hold; what they do not is told in words."""
    if isinstance(value, Mapping):
        return {
            str(key) if isinstance(key, tuple) else key: plain(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def end_with(pid: int) -> None:
    """Have this process told to end (SIGTERM) when its parent has ended.

    Args:
        pid: The parent's.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0 or os.getppid() != pid:
        sys.exit("the process that started this daemon has ended")

    def watch() -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(config: str, pid: str, *sockets: str) -> None:
    """Run the daemon of a process: ``python -m millpond.compat.own_daemon CONFIG PID [FOLDER]``.

    The folder is that of the sockets, made for them: whoever made it may not be there any more to
    remove it.
    """
    from millpond.__main__ import main as run  # noqa: PLC0415

    try:
        end_with(int(pid))
        sys.argv = ["millpond", "run", config, "--exit-when-done"]
        run()
    finally:
        for folder in sockets:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
