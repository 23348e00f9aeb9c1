"""Real daemons and renderers for the system tests.  Ends only the processes that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from millpond.health_client import fetch_status

WATCHDOG_S = 60.0  # No condition of these tests takes that long on a busy machine.
PLUGINS = Path(__file__).parent / "plugins"
SMALL = {
    "rgb": {"shape": [3, 16, 16], "dtype": "float32"},
    "loss": {"shape": [], "dtype": "float32"},
    "is_correct": {"shape": [], "dtype": "bool"},
}


def wait_until(condition: Callable[[], Any], what: str, *, within_s: float = WATCHDOG_S) -> Any:
    """Wait for a condition and give its value; fail at the watchdog."""
    end_s = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end_s, f"not within {within_s} s: {what}"
        time.sleep(0.005)


class Daemon:
    """A real daemon in a process of its own."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *arguments: str,
        stderr: int | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.folder = folder
        self.run = folder / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "config.yaml"
        config = {"name": "test", "output_dir": str(self.run), **config}
        # JSON is YAML, and has no anchors.
        self.config.write_text(json.dumps(config, indent=1))
        self.log_path = folder / "daemon.log"
        self._log = self.log_path.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "millpond", "run", str(self.config), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log if stderr is None else stderr,
            cwd=cwd or folder,
        )
        self.psutil = psutil.Process(self.process.pid)

    @property
    def socket(self) -> Path:
        return self.run / "millpond.sock"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        return fetch_status(self.run / "health.sock")

    def try_status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            return self.status()
        assert self.process.poll() is None, self.log
        return {}

    def wait_serving(self) -> dict[str, Any]:
        return wait_until(self.try_status, f"the daemon serves; its log:\n{self.log}")

    def wait_state(self, state: str) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            now = self.try_status()
            return now if now.get("state") == state else {}

        return wait_until(reached, f"state {state}; log:\n{self.log}")

    def wait_settled(self) -> dict[str, Any]:
        """Wait until every result has its outcome."""

        def settled() -> dict[str, Any]:
            now = self.status()
            rows = now["loggers"].values()
            waits = sum(row["queued"] + row["in_window"] + row["spilled"] for row in rows)
            return {} if waits else now

        return wait_until(settled, "every result has its outcome")

    def wait_renderers(self, count: int) -> dict[str, Any]:
        def seen() -> dict[str, Any]:
            now = self.status()
            return now if len(now["renderers"]) == count else {}

        return wait_until(seen, f"{count} renderers")

    def logger_pid(self, name: str) -> int:
        """The pid of a logger that is running, waiting for it."""

        def running() -> int:
            row = self.status()["loggers"][name]
            return row["pid"] if row["state"] == "running" else 0

        return wait_until(running, f"logger {name} runs; log:\n{self.log}")

    def other_logger_pid(self, name: str, pid: int) -> int:
        """The pid of a logger that is running again, in another process than that one."""

        def other() -> int:
            now = self.logger_pid(name)
            return 0 if now == pid else now

        return wait_until(other, f"logger {name} runs again")

    def signal_logger(self, name: str, number: int) -> int:
        """Send a signal to a logger of ours, by pidfd, and give its pid."""
        return self.signal_child(self.logger_pid(name), number)

    def signal_child(self, pid: int, number: int) -> int:
        """Send a signal to a process that this daemon started, by pidfd."""
        # It may have ended between the status and this: what is signalled is never another.
        gone = contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess)
        with gone, contextlib.closing(_PidFd(pid)) as handle:
            assert psutil.Process(pid).ppid() == self.process.pid
            signal.pidfd_send_signal(handle.fd, number)
        return pid

    def stop(self, *, code: int | None = 0) -> str:
        """End it in order, check its exit code, and give its log."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait_exit(code=code)

    def wait_exit(self, *, code: int | None = 0) -> str:
        got = self.process.wait(WATCHDOG_S)
        self._log.close()
        assert code is None or got == code, f"exit code {got}, log:\n{self.log}"
        return self.log

    def end(self) -> None:
        """End it however it is: after a test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            children = self.psutil.children(recursive=True)
            self.process.kill()
            self.process.wait(WATCHDOG_S)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._log.close()


class _PidFd:
    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self.fd)


def plugin(kind: str, name: str = "", **policy: Any) -> dict[str, Any]:
    """A logger of `plugins/` for the configuration."""
    return {"module": str(PLUGINS / f"{kind}.py"), "name": name or kind, **policy}


def read_ids(path: Path) -> list[str]:
    """What a recording logger of `plugins/` has kept."""
    return path.read_text().split() if path.exists() else []


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def spawn_script(source: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python source in a process of its own, with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Give a process, and leave none behind."""
    with process:
        try:
            yield process
        finally:
            process.kill()
