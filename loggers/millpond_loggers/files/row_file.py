"""A text file to which rows are appended, and which no crash leaves with half a row.

Rows wait in memory until `RowFile.flush`, which writes them or, if the disk will not have them,
leaves the file as it was.  When the file is opened again, a last row that a crash has torn is cut
off, and rows go on behind it.

Every row has the key of its result.  A row whose key is in the file already is not written again,
for it is a result that came twice; what the row says does not count, for two results may well be
the same.  The keys are kept by `BatchRecord`, in a hidden file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from millpond_loggers.files.batch_record import BatchRecord
from millpond_loggers.files.known_keys import Key
from millpond_loggers.files.locked_file import open_locked
from millpond_loggers.files.names import (
    open_folder,
    remove_leftovers,
    replace_atomically,
    write_all,
)

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 1 << 20
# A longer end without a newline was hardly torn by a crash: the file is someone else's.
TORN_BYTES_MAX: Final = 16 << 20


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
            OSError: It cannot be opened, is a symlink, or another logger still writes to it after
                `locked_file.LOCK_S`.
            ValueError: It is not a file of ours.  Nothing has changed.
        """
        self._name = name
        self._is_csv = is_csv
        self._waiting: dict[Key, bytes] = {}
        self._cut_at: int | None = None  # Where a failed batch began that could not be cut off.
        self._file = -1
        self._folder = open_folder(root_dir)
        try:
            remove_leftovers(self._folder)
            self._file = self._open()
            self._check_start(starts_with)
            self._mend()
            self.header: bytes | None = next(self._rows(), None) if is_csv else None
            # Not before the file is locked: the one who had it wrote to its record too.
            self._record = BatchRecord(self._folder, name, os.fstat(self._file).st_size)
            self._known = self._record.known
        except BaseException:
            self._close_descriptors()
            raise

    def append(self, row: bytes, key: Key) -> None:
        """Take a row, to be written by `flush` unless it is in the file.

        Args:
            row: Ends with a newline.
            key: The renderer and the sequence of its result: `ResultBuffer.key_of`.
        """
        if key not in self._known:
            self._waiting[key] = row

    def flush(self) -> None:
        """Write the rows that wait.

        Raises:
            OSError: They could not be written.  The file is what it was, and the rows are
                forgotten: no result since the last flush is recorded.
        """
        try:
            if self._waiting:
                self._write(list(self._waiting.values()))
        finally:
            self._waiting.clear()

    def widen(self, header: bytes, padding: bytes) -> None:
        """Replace the header, and put `padding` at the end of every row, before its newline.

        The file is copied, so this costs as much time as it has rows; a crash leaves the old one
        or the new one.

        Raises:
            OSError: It cannot be copied.  Nothing has changed.
        """
        end = padding + b"\n"
        self._make_ready()
        if size := os.fstat(self._file).st_size:
            self._record.leave(size)
            replace_atomically(
                self._folder, self._name, lambda copy: self._copy_widened(copy, header, end)
            )
            # No write may go to the file replaced.  The new one is there and widened, so should
            # its open fail, that is made up for by whoever writes next.
            old, self._file = self._file, -1
            os.close(old)
            with suppress(OSError):
                self._make_ready()
        self.header = header
        self._waiting = {key: row[:-1] + end for key, row in self._waiting.items()}

    def close(self) -> None:
        """Write what waits, and close.  The second time does nothing."""
        if self._folder < 0:
            return
        try:
            self.flush()
        finally:
            self._record.close()
            self._close_descriptors()

    def _open(self) -> int:
        remedy = "give one of the two loggers another `options: {file: ...}`"
        return open_locked(self._folder, self._name, remedy=remedy, flags=os.O_APPEND)

    def _close_descriptors(self) -> None:
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._folder = -1

    def _write(self, rows: list[bytes]) -> None:
        self._make_ready()
        start = os.fstat(self._file).st_size
        header = b"" if start or self.header is None else self.header
        self._record.begin(start + len(header), self._waiting, list(map(len, rows)))
        try:
            write_all(self._file, header + b"".join(rows))
        except BaseException:
            self._record.settle(0)
            self._cut_at = start
            with suppress(OSError):
                self._make_ready()
            raise
        self._record.settle(len(rows))

    def _make_ready(self) -> None:
        """Make up for an open or a cut that failed."""
        if self._file < 0:
            self._file = self._open()
        if self._cut_at is not None:
            os.ftruncate(self._file, self._cut_at)
            self._cut_at = None

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
