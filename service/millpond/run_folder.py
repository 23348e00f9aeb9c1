"""The folder of a run: one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from millpond.errors import MillpondError

LOCK_NAME: Final = "millpond.lock"
LEDGER_NAME: Final = "ledger"


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

    def close(self) -> None:
        """Give the folder back."""
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


def spill_folders(spill: Path) -> list[Path]:
    """The folders of loggers for which something waits.

    Args:
        spill: Where the spills of a run are; it may be missing.
    """
    try:
        return [folder for folder in spill.iterdir() if any(folder.glob("*.seg"))]
    except OSError:
        return []


def has_files(run: Path) -> bool:
    """Whether loggers have written in a run folder.

    Raises:
        OSError: It cannot be read.
    """
    ours = {LOCK_NAME, LEDGER_NAME}
    return any(path.name not in ours and not path.is_socket() for path in run.iterdir())
