"""The folder of a run: one daemon at a time, and the list of what was lost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from millpond.core.deliveries import Result
from millpond.errors import MillpondError

LOCK_NAME: Final = "millpond.lock"
DEAD_NAME: Final = "dead.jsonl"


class AlreadyRunning(MillpondError):
    """Another daemon has this folder or socket."""


class RunFolder:
    """Holds the lock of the folder for the life of the daemon.

    The lock is the kernel's: it is free the moment its holder is dead, however it died.

    Args:
        folder: The output folder; made when it is not there.

    Raises:
        AlreadyRunning: Another daemon has it; the message names its pid.
        OSError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock_fd = os.open(folder / LOCK_NAME, flags, 0o644)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._lock_fd, 32).decode(errors="replace").strip()
            os.close(self._lock_fd)
            raise AlreadyRunning(
                f"a daemon (pid {pid or 'unknown'}) is running in {folder}; "
                f"see: millpond status {folder}"
            ) from None
        os.ftruncate(self._lock_fd, 0)
        os.write(self._lock_fd, f"{os.getpid()}\n".encode())
        self._dead_fd: int | None = None

    def list_dead(self, logger: str, results: Iterable[Result], reason: str, problem: str) -> None:
        """Append a line for each result that a logger will never get.

        Raises:
            OSError: They cannot be written; none of them is in the list.
        """
        if self._dead_fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._dead_fd = os.open(self.folder / DEAD_NAME, flags, 0o644)
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        lines = b"".join(
            orjson.dumps(
                {
                    "id": result.id,
                    "logger": logger,
                    "reason": reason,
                    "problem": problem,
                    "renderer": result.renderer,
                    "sequence": result.sequence,
                    "at": at,
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for result in results
        )
        size_bytes = os.fstat(self._dead_fd).st_size
        view = memoryview(lines)
        try:
            while view:  # The last bytes of a disk take a part of them.
                view = view[os.write(self._dead_fd, view) :]
        except OSError:
            os.ftruncate(self._dead_fd, size_bytes)
            raise

    def close(self) -> None:
        """Give the folder back."""
        if self._dead_fd is not None:
            os.close(self._dead_fd)
        os.close(self._lock_fd)


def refuse_live_socket(path: Path) -> None:
    """See that nobody serves a socket that is about to be replaced.

    Raises:
        AlreadyRunning: Somebody is there, or it is no socket.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise AlreadyRunning(f"{path} exists and is no socket: move it away, or set service.socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # Its backlog is full, it is not ours, or of another type: somebody is there.
    raise AlreadyRunning(f"another program serves {path}; stop it, or set service.socket")
