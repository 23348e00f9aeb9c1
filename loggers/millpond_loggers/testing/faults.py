"""What can go wrong with the files of a logger at any moment, made to happen at a chosen one.

Counted is what Python code does: it opens a file to write, renames, removes, cuts, makes a folder,
writes to a descriptor, syncs.  What a library written in C does inside itself is not seen.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

HOW: Final = ("killed before", "killed midway", "failing")
"""The process is killed before the operation; or when half of a write is done; or it is told that
the disk is full."""

_EVENTS: Final = frozenset(
    {"open", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.mkdir", "os.link"}
)
_WRITES: Final = ("write", "pwrite")
_SYNCS: Final = ("fsync", "fdatasync")
_TO_WRITE: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Of which neither a file is made nor anything left behind.
_NO_FILES: Final = ("/dev/", "/proc/", "/sys/")


class Fault:
    """Counts the operations on files of this process, from now on, and fails one of them.

    It cannot be taken back: it is for a process that is made for this.

    Args:
        at: Which one, from 1; 0: none, they are only counted.
        how: One of `HOW`.

    Attributes:
        count: How many there were.
    """

    def __init__(self, at: int = 0, how: str = HOW[0]) -> None:
        self.count = 0
        self._at = at
        self._how = how

    def install(self) -> None:
        """Begin to count."""
        for name in _WRITES:
            setattr(os, name, self._write(getattr(os, name)))
        for name in _SYNCS:
            setattr(os, name, self._sync(getattr(os, name)))
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and (event != "open" or _is_to_write(*arguments)):
            self._step()

    def _write(self, call: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, content: Any, *rest: Any) -> int:
            if descriptor > 2:
                self._step(lambda: call(descriptor, content[: len(content) // 2], *rest))
            return call(descriptor, content, *rest)

        return write

    def _sync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            self._step()
            call(descriptor)

        return sync

    def _step(self, do_half: Callable[[], object] | None = None) -> None:
        self.count += 1
        if self.count != self._at:
            return
        if do_half is not None and self._how != "killed before":
            do_half()
        if self._how == "failing":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.kill(os.getpid(), signal.SIGKILL)


def _is_to_write(path: Any, _: Any, flags: int) -> bool:
    if isinstance(path, int) or not flags & _TO_WRITE:
        return False
    return not os.fsdecode(path).startswith(_NO_FILES)
