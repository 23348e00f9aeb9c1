"""The shared memory: sealed, every page allocated at start, without a name to leak.

Renderers get the segment writable, loggers read-only; the words that decide about slots lie in
memory of their own, and each has one writer.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from typing import Final

from millpond.core.layout import WORD_BYTES, Layout
from millpond.errors import SegmentError

# Not in Python's `os` before 3.13: no execution, ever (Linux 6.3; refused with EINVAL before).
MFD_NOEXEC_SEAL: Final = 0x0008
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """All shared memory of one pond.

    Args:
        layout: Where the channels lie.
        logger_count: How many loggers there are.

    Raises:
        SegmentError: The machine does not have that much memory, or no more descriptors.
    """

    def __init__(self, layout: Layout, logger_count: int) -> None:
        self.layout = layout
        self._descriptors: list[int] = []
        try:
            self.fd = self._make("segment", layout.segment_bytes)
            self.fd_read_only = self._reopen(self.fd)
            control = self._make("control", logger_count * layout.slot_count * WORD_BYTES)
            self.control_fd_read_only = self._reopen(control)
            self.acks_fds = [
                self._make(f"acks-{logger}", layout.acks_bytes) for logger in range(logger_count)
            ]
            words = _words(control, writable=True)
            self.want = [
                words[logger * layout.slot_count : (logger + 1) * layout.slot_count]
                for logger in range(logger_count)
            ]
            self.acks = [_words(fd, writable=False) for fd in self.acks_fds]
            # Only what is copied to the disk or back is ever touched here.
            self._memory = memoryview(mmap.mmap(self.fd, layout.segment_bytes, mmap.MAP_SHARED))
        except SegmentError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise SegmentError(f"shared memory cannot be set up: {error.strerror}") from None

    def _make(self, purpose: str, size_bytes: int) -> int:
        """Make a sealed file in memory, of fixed size, with all its pages there."""
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        name = f"millpond-{purpose}"
        try:
            try:
                fd = os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                fd = os.memfd_create(name, flags)
            self._descriptors.append(fd)
            os.fchmod(fd, 0o600)
            # Allocates every page: too little memory is an error here, not a SIGBUS later.
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            raise SegmentError(
                f"{size_bytes / 2**20:.0f} MiB of shared memory for the {purpose} cannot be had: "
                f"{error.strerror}; take fewer buffer.slots or smaller channels"
            ) from None
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        return fd

    def _reopen(self, fd: int) -> int:
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors.append(read_only)
        return read_only

    def slot(self, slot: int) -> memoryview:
        """The bytes of a slot, from its first channel to the end of its last."""
        start = slot * self.layout.slot_bytes
        return self._memory[start : start + self.layout.payload_bytes]

    def close(self) -> None:
        """Close the descriptors; the memory goes when the last process has unmapped it."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _words(fd: int, *, writable: bool) -> memoryview[int]:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    size_bytes = os.fstat(fd).st_size
    return memoryview(mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, protection)).cast("Q")
