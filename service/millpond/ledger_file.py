"""The two mapped files of the ledger: lines that grow at the end, and a table of words.

Both are written by storing into memory, so a write is no system call and never waits for the
disk.  What was stored is in the file as far as the kernel knows: it survives the process, however
that dies, though not the machine.  Only pages that the disk has promised are mapped.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

# Some 40,000 results; one such extent is always there ahead of the one being filled.
EXTENT_BYTES: Final = 1 << 20
# Renderers at a time are at most as many (service.renderers_max).
ROWS: Final = 1024

_MARKS_HEADER: Final = struct.Struct("<8sQQQ")
_MARKS_MAGIC: Final = b"millmark"
_MARKS_VERSION: Final = 1
_WORD_BYTES: Final = 8
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class LineFile:
    """Lines appended to a mapped file; its content ends at the first NUL.

    One thread calls `append`; another one may call `make_room` and `sync` meanwhile.

    Args:
        path: The file, which must not be there yet.
        extent_bytes: By how much it grows; a multiple of the page size.

    Raises:
        OSError: It is there, or the disk has no room for one extent.
    """

    def __init__(self, path: Path, *, extent_bytes: int = EXTENT_BYTES) -> None:
        self.length = 0  # Bytes of content.
        self._extent_bytes = extent_bytes
        self._extent_count = 0
        self._at = 0  # Where the content ends in the current extent.
        self._next: mmap.mmap | None = None
        self._full: list[mmap.mmap] = []  # To be unmapped, which takes its time.
        self._fd = os.open(path, _FLAGS, 0o644)
        try:
            self._extent = self._make_extent()
        except OSError:
            os.close(self._fd)
            path.unlink()
            raise

    @property
    def needs_room(self) -> bool:
        """Whether `make_room` has something to do."""
        return self._next is None

    def append(self, line: bytes) -> bool:
        """Store a line, which has a newline at its end and no NUL in it.

        Returns:
            False: there is no room for it now, and nothing was stored.
        """
        start = self._at
        end = start + len(line)
        if end > self._extent_bytes:
            return self._append_across(line)
        # The first byte last: until then the content ends before it, so no line is ever half
        # there.  The processor keeps the order of stores, and a killed process can do no less.
        extent = self._extent
        extent[start + 1 : end] = line[1:]
        extent[start] = line[0]
        self._at = end
        self.length += end - start
        return True

    def make_room(self) -> None:
        """Have the next extent ready.

        Raises:
            OSError: The disk has no room for it.  Nothing has changed.
        """
        while self._full:
            self._full.pop().close()
        if self._next is None:
            self._next = self._make_extent()

    def sync(self) -> None:
        """Wait until what was appended before is on the disk.

        Raises:
            OSError: The disk failed.
        """
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Cut the file to its content, and wait until it is on the disk.

        Raises:
            OSError: The disk failed; the file is closed.
        """
        for extent in (*self._full, self._extent, self._next):
            if extent is not None:
                extent.close()
        try:
            os.ftruncate(self._fd, self.length)
            os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def _append_across(self, line: bytes) -> bool:
        """Store a line that does not fit into the current extent."""
        following = self._next
        room = self._extent_bytes - self._at
        rest = len(line) - room
        if following is None or rest > self._extent_bytes:
            return False
        following[1:rest] = line[room + 1 :]
        if room:
            following[0] = line[room]
            self._extent[self._at + 1 :] = line[1:room]
            self._extent[self._at] = line[0]
        else:
            following[0] = line[0]
        self._full.append(self._extent)
        self._extent, self._next = following, None
        self._at = rest
        self.length += len(line)
        return True

    def _make_extent(self) -> mmap.mmap:
        start = self._extent_count * self._extent_bytes
        os.posix_fallocate(self._fd, start, self._extent_bytes)
        extent = mmap.mmap(self._fd, self._extent_bytes, offset=start)
        self._extent_count += 1
        return extent


class Marks:
    """A mapped table with a row for each renderer that is there.

    ::

        header | row 0 | row 1 | ...
        row    | renderer, 0: free | its last sequence published | mark of logger 0 | of 1 | ...

    Attributes:
        words: All rows, as 8-byte words; `base` of a row is the index of its first word.

    Args:
        path: The file, which must not be there yet.
        logger_count: How many marks a row has.
        rows: How many rows there are.

    Raises:
        OSError: It is there, or the disk has no room for it.
    """

    def __init__(self, path: Path, logger_count: int, *, rows: int = ROWS) -> None:
        self._path = path
        self._row_words = 2 + logger_count
        self._free = [row * self._row_words for row in reversed(range(rows))]
        fd = os.open(path, _FLAGS, 0o644)
        try:
            size_bytes = _MARKS_HEADER.size + rows * self._row_words * _WORD_BYTES
            os.posix_fallocate(fd, 0, size_bytes)
            self._map = mmap.mmap(fd, size_bytes)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        header = _MARKS_HEADER.pack(_MARKS_MAGIC, _MARKS_VERSION, logger_count, rows)
        self._map[: _MARKS_HEADER.size] = header
        self._view = memoryview(self._map)
        self.words: memoryview[int] = self._view[_MARKS_HEADER.size :].cast("Q")

    def take_row(self, renderer: int) -> int | None:
        """Give a renderer a row of zeros.

        Returns:
            The row's `base`; None: all rows are taken.
        """
        if not self._free:
            return None
        base = self._free.pop()
        # The row counts from the moment that its first word is not 0.
        for place in range(base + 1, base + self._row_words):
            self.words[place] = 0
        self.words[base] = renderer
        return base

    def free_row(self, base: int) -> None:
        """Take a row back."""
        self.words[base] = 0
        self._free.append(base)

    def close(self, *, remove: bool) -> None:
        """Unmap the file, and remove it if nothing in it is needed any more."""
        self.words.release()
        self._view.release()
        self._map.close()
        if remove:
            self._path.unlink(missing_ok=True)


def read_marks(path: Path) -> list[tuple[int, int, list[int]]]:
    """Read the rows of a table: the renderer, its last sequence, and the mark of each logger.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        ValueError: It is none of ours, or damaged.
    """
    content = path.read_bytes()
    if len(content) < _MARKS_HEADER.size:
        raise ValueError(f"{path.name} has {len(content)} bytes and no header")
    magic, version, logger_count, rows = _MARKS_HEADER.unpack_from(content)
    if (magic, version) != (_MARKS_MAGIC, _MARKS_VERSION):
        raise ValueError(f"{path.name} is no table of marks of this version")
    body = memoryview(content)[_MARKS_HEADER.size :]
    row_words = 2 + logger_count
    if len(body) != rows * row_words * _WORD_BYTES:
        raise ValueError(f"{path.name} has {len(content)} bytes, which its header belies")
    words = body.cast("Q")
    found = []
    for base in range(0, rows * row_words, row_words):
        renderer, published, *marks = words[base : base + row_words].tolist()
        if renderer:
            found.append((renderer, published, marks))
    return found
