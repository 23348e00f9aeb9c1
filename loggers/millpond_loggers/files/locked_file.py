"""Opening a file that one process at a time may have."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from typing import Final

from millpond_loggers.files.names import open_beneath

log = logging.getLogger(__name__)

# An earlier process of this logger, whose daemon was killed, may still be writing its last rows.
LOCK_S: Final = 5.0
LOCK_PAUSE_S: Final = 0.05


def open_locked(folder: int, name: str, *, remedy: str, flags: int = 0) -> int:
    """Open a file to read and write, or make it; wait for one who is about to finish with it.

    Args:
        folder: The descriptor of the folder.
        name: The name in the folder.
        remedy: What the user can do should another logger keep the file.
        flags: More of those of `os.open`, such as ``O_APPEND``.

    Returns:
        The descriptor.  The lock ends when it is closed, by whatever means.

    Raises:
        OSError: It cannot be opened, is a symlink, or is still another's after `LOCK_S`.
        ValueError: It is not a regular file.
    """
    deadline_s = time.monotonic() + LOCK_S
    is_told = False
    while True:
        file = open_beneath(folder, name, os.O_RDWR | os.O_CREAT | flags)
        # Who had it may have put another one in its place before it went.
        if lock(file, name) and has_name(folder, name, file):
            return file
        os.close(file)
        if time.monotonic() >= deadline_s:
            raise BlockingIOError(
                errno.EWOULDBLOCK, f"another logger is writing to this file; {remedy}", name
            )
        if not is_told:
            log.warning("file is locked, waiting file=%s wait_s=%g", name, LOCK_S)
            is_told = True
        time.sleep(LOCK_PAUSE_S)


def lock(file: int, name: str) -> bool:
    """Take the lock of an open file; return whether nobody else has it.

    Where the file system has no locks, the file counts as locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        log.warning("file cannot be locked file=%s error=%s", name, problem)
    return True


def has_name(folder: int, name: str, file: int) -> bool:
    """Whether an open file is still the one of this name in the folder."""
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(file))
