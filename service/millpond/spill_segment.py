"""One segment file of a spill on the disk: made, appended to, cut back, removed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from millpond.spill_record import ALIGN_BYTES, Header, Kind, pack_header

_SUFFIX: Final = ".seg"
# So that names sort as their numbers do.
_NUMBER_DIGITS: Final = 8
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Segment:
    """A segment file, and how many of its records still count.

    Args:
        folder: Where it is.
        number: Its number, in its name and in its records.
        end: Bytes that are in it; the next record is put there.
    """

    def __init__(self, folder: Path, number: int, end: int = 0) -> None:
        self.number = number
        self.path = folder / segment_name(number)
        self.end = end
        self.live = 0
        self.is_poisoned = False  # What was written last may not be on the disk, and never be.
        self._fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether records may be appended."""
        return self._fd is not None

    def create(self, head: bytes) -> None:
        """Make the file; it is on the disk, name and head, when this returns.

        Raises:
            OSError: It cannot be made; at most an empty file is left.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._fd = os.open(self.path, flags | _OPEN_FLAGS, 0o644)
        self.write(memoryview(head))
        os.fsync(self._fd)
        sync_folder(self.path.parent)

    def write(self, content: memoryview) -> None:
        """Append.

        Raises:
            OSError: A part of it may be there; `cut` it off.
        """
        assert self._fd is not None
        while content:  # The last bytes of a disk take a part of them.
            count = os.pwrite(self._fd, content, self.end)
            self.end += count
            content = content[count:]

    def sync(self) -> None:
        """Wait until all that was written is on the disk.

        Raises:
            OSError: It is not known what is; nothing may be appended any more.
        """
        assert self._fd is not None
        assert not self.is_poisoned
        # Until the kernel says otherwise: it tells of a failure once only.
        self.is_poisoned = True
        os.fdatasync(self._fd)
        self.is_poisoned = False

    def cut(self, end: int) -> None:
        """Take back all that was appended behind `end`.

        When the disk refuses, the tail is marked instead, so that no recovery takes it for
        records, and the segment is sealed.
        """
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, end)
        except OSError:
            self._mark_void(end)
            self.seal()
        else:
            self.end = end

    def seal(self) -> None:
        """Close it for appending."""
        if self._fd is not None:
            descriptor, self._fd = self._fd, None
            with suppress(OSError):
                os.close(descriptor)

    def unlink(self) -> bool:
        """Remove the file; False when the disk refuses.

        That this is on the disk is not waited for: a file that comes back has only records whose
        outcome is known.
        """
        self.seal()
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _mark_void(self, end: int) -> None:
        assert self._fd is not None
        with suppress(OSError):
            self.end = os.fstat(self._fd).st_size
        tail_bytes = (self.end - end) // ALIGN_BYTES * ALIGN_BYTES
        if tail_bytes:
            header = Header(Kind.VOID, self.number, end, 0, 0, tail_bytes - ALIGN_BYTES, 0, 0, 0)
            with suppress(OSError):
                os.pwrite(self._fd, pack_header(header), end)


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:0{_NUMBER_DIGITS}}{_SUFFIX}"


def segment_number(name: str) -> int | None:
    """The number in a file name; None when it is no segment's name."""
    stem = name.removesuffix(_SUFFIX)
    is_number = stem.isascii() and stem.isdigit() and len(stem) < 2 * _NUMBER_DIGITS
    return int(stem) if is_number and segment_name(int(stem)) == name else None


def open_for_reading(path: Path) -> int:
    """The descriptor of a segment file; symlinks are not followed, pipes not waited for.

    Raises:
        OSError: It is not there, or cannot be opened.
    """
    return os.open(path, os.O_RDONLY | _OPEN_FLAGS)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        OSError: They may not be.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
