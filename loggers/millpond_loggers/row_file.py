"""A text file to which rows are appended, and which no crash leaves with half a row.

Rows wait in memory until `RowFile.flush`, which writes them or, if the disk will not have them,
leaves the file as it was.  What a crash tore off is cut when the file is opened again.  The rows
that were written but not released when the logger died will be delivered again; those that are
in the file already, byte for byte, are then left out.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from millpond_loggers.names import (
    open_beneath,
    open_folder,
    remove_leftovers,
    replace_atomically,
    write_all,
)

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 1 << 20
# A longer end without a newline was hardly torn by a crash: the file is someone else's.
TORN_BYTES_MAX: Final = 16 << 20
# The rows that may be delivered again: as many as the widest window has, if they fit.
REPEATED_ROWS_MAX: Final = 65_536
REPEATED_BYTES_MAX: Final = 16 << 20


class RowFile:
    """Appends rows to a file; made once in a process, and again after a crash.

    Attributes:
        header: The first row of a CSV file, if it has one when it is opened.  Set by the owner
            for a new file; it is written before the first row.
    """

    def __init__(
        self, root_dir: str, name: str, *, starts_with: bytes, is_csv: bool = False
    ) -> None:
        """Open the file, or make it, and mend its end.

        Args:
            root_dir: The folder, which exists.
            name: The name in the folder.
            starts_with: How every file of this kind begins; any other is not touched.
            is_csv: The first row is a header, and a newline between double quotes ends no row.

        Raises:
            OSError: It cannot be opened, is a symlink, or another logger is writing to it.
            ValueError: It is not a file of ours.  Nothing has changed.
        """
        self._name = name
        self._is_csv = is_csv
        self._waiting: list[bytes] = []
        self._left_out: list[bytes] = []  # Of this batch.
        self._repeats_within = REPEATED_ROWS_MAX
        self._cut_at: int | None = None  # Where a failed batch began that could not be cut off.
        self._file = -1
        self._folder = open_folder(root_dir)
        try:
            remove_leftovers(self._folder)
            self._file = self._open()
            self._check_start(starts_with)
            self._mend()
            self.header: bytes | None = next(self._rows(), None) if is_csv else None
            self._repeats = Counter(self._last_rows())
        except BaseException:
            self._close_descriptors()
            raise
        self._repeats_within = REPEATED_ROWS_MAX

    def append(self, row: bytes) -> None:
        """Take a row, which ends with a newline, to be written by `flush`."""
        if self._repeats and self._is_repeat(row):
            return
        self._waiting.append(row)

    def flush(self) -> None:
        """Write the rows that wait.

        Raises:
            OSError: They could not be written.  The file is what it was, and the rows are
                forgotten: every result since the last flush must be logged again.
        """
        content = b"".join(self._waiting)
        try:
            if content:
                self._write(content)
        except OSError:
            self._repeats.update(self._left_out)
            raise
        finally:
            self._waiting.clear()
            self._left_out.clear()

    def widen(self, header: bytes, padding: bytes) -> None:
        """Replace the header, and put `padding` at the end of every row, before its newline.

        The file is copied, so this costs as much time as it has rows; a crash leaves the old one
        or the new one.

        Raises:
            OSError: It cannot be copied.  Nothing has changed.
        """
        end = padding + b"\n"
        if os.fstat(self._file).st_size:
            replace_atomically(
                self._folder, self._name, lambda copy: self._copy_widened(copy, header, end)
            )
            # Should the open fail, later writes must fail too, not go to the file replaced.
            old, self._file = self._file, -1
            os.close(old)
            self._file = self._open()
        self.header = header
        self._waiting = [row[:-1] + end for row in self._waiting]
        self._left_out = [row[:-1] + end for row in self._left_out]
        self._repeats = Counter({row[:-1] + end: n for row, n in self._repeats.items()})

    def close(self) -> None:
        """Write what waits, and close.  The second time does nothing."""
        if self._file < 0:
            return
        try:
            self.flush()
        finally:
            self._close_descriptors()

    def _open(self) -> int:
        file = open_beneath(self._folder, self._name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            os.close(file)
            raise BlockingIOError(
                errno.EWOULDBLOCK, "another logger is writing to this file", self._name
            ) from problem
        except OSError as problem:
            log.warning("file cannot be locked file=%s error=%s", self._name, problem)
        return file

    def _close_descriptors(self) -> None:
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._folder = -1

    def _write(self, content: bytes) -> None:
        self._cut_failed_batch()
        start = os.fstat(self._file).st_size
        if start == 0 and self.header is not None:
            content = self.header + content
        try:
            write_all(self._file, content)
        except BaseException:
            self._cut_at = start
            with suppress(OSError):
                self._cut_failed_batch()
            raise

    def _cut_failed_batch(self) -> None:
        if self._cut_at is not None:
            os.ftruncate(self._file, self._cut_at)
            self._cut_at = None

    def _is_repeat(self, row: bytes) -> bool:
        """Whether the row is in the file already; each row in the file answers for one."""
        self._repeats_within -= 1
        count = self._repeats.get(row, 0)
        if count:
            self._left_out.append(row)
            if count > 1:
                self._repeats[row] = count - 1
            else:
                del self._repeats[row]
        elif self._repeats_within <= 0:
            self._repeats.clear()  # What comes now was never delivered to a dead process.
        return count > 0

    def _check_start(self, starts_with: bytes) -> None:
        start = os.pread(self._file, len(starts_with), 0)
        if not starts_with.startswith(start):
            raise ValueError(
                f"{self._name} begins with {start!r}, so it is not a file of this logger; "
                "move it away or choose another output folder"
            )

    def _mend(self) -> None:
        """Cut off a last row that a crash has torn."""
        size = os.fstat(self._file).st_size
        end = self._end_of_quoted_rows(size) if self._is_csv else self._end_of_rows(size)
        if size - end > TORN_BYTES_MAX:
            raise ValueError(
                f"{self._name} ends with {size - end} bytes that are no row; more than a crash "
                "leaves, so they are not cut off. Mend the file or move it away"
            )
        if end < size:
            os.ftruncate(self._file, end)
            log.warning("torn row cut off file=%s bytes=%d", self._name, size - end)

    def _end_of_rows(self, size: int) -> int:
        stop = size
        while stop:
            start = max(0, stop - BLOCK_BYTES)
            newline = self._read(start, stop).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            stop = start
        return 0

    def _end_of_quoted_rows(self, size: int) -> int:
        """Behind the last newline that an even number of quotes precedes; reads the whole file."""
        end, is_odd = 0, False
        for start in range(0, size, BLOCK_BYTES):
            block = self._read(start, min(size, start + BLOCK_BYTES))
            is_odd ^= bool(block.count(b'"') & 1)
            is_odd_there, stop = is_odd, len(block)
            while (newline := block.rfind(b"\n", 0, stop)) >= 0:
                is_odd_there ^= bool(block.count(b'"', newline, stop) & 1)
                if not is_odd_there:
                    end = start + newline + 1
                    break
                stop = newline
        return end

    def _rows(self) -> Iterator[bytes]:
        """Every row of the file, from the first; each ends with a newline."""
        lines: list[bytes] = []
        is_odd = False
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                lines.append(line)
                is_odd ^= self._is_csv and bool(line.count(b'"') & 1)
                if not is_odd:
                    yield lines[0] if len(lines) == 1 else b"".join(lines)
                    lines.clear()

    def _last_rows(self) -> list[bytes]:
        size = os.fstat(self._file).st_size
        start = max(0, size - REPEATED_BYTES_MAX)
        lines = self._read(start, size).split(b"\n")[:-1]
        rows: list[bytes] = []
        part, is_odd = b"", False
        # From the end: a row begins where the quotes from there to its end are even.
        for line in reversed(lines):
            part = line + b"\n" + part
            is_odd ^= self._is_csv and bool(line.count(b'"') & 1)
            if not is_odd:
                rows.append(part)
                part = b""
                if len(rows) == REPEATED_ROWS_MAX:
                    break
        return rows

    def _copy_widened(self, copy: int, header: bytes, end: bytes) -> None:
        rows = self._rows()
        next(rows)
        block = [header]
        block_bytes = 0
        for row in rows:
            block.append(row[:-1] + end)
            block_bytes += len(row)
            if block_bytes > BLOCK_BYTES:
                write_all(copy, b"".join(block))
                block.clear()
                block_bytes = 0
        write_all(copy, b"".join(block))
        os.fsync(copy)  # It takes the place of rows that may long be on the disk.

    def _read(self, start: int, stop: int) -> bytes:
        pieces = []
        while start < stop and (piece := os.pread(self._file, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)
