"""A file for what is recorded and not in its place yet: it survives a kill at any instruction.

Formats such as Parquet and HDF5 are nothing until their last byte is written.  So results lie in
a journal until there are enough of them for a file.  It is a row of records::

    magic "mpJ1" | CRC-32 of the rest u32 | renderer u64 | sequence u64 | pieces u64
    bytes of each piece u64 | the pieces

in the byte order of the machine.  The first record has the key (0, 0), which no result has, and
two pieces: JSON that says what the others are, and the keys of results that were in journals
before this one, two words each.

Records are only appended.  One that is torn at the end was never told to be recorded.  The
journal is there against the death of processes; after a loss of power its end may be missing.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final, NamedTuple

import orjson

from millpond_loggers.files.known_keys import Key
from millpond_loggers.files.locked_file import lock, open_locked
from millpond_loggers.files.names import open_beneath, temporary_name, write_all

log = logging.getLogger(__name__)

MAGIC: Final = b"mpJ1"
HEADER: Final = struct.Struct("=4sIQQQ")
CHECKED_FROM: Final = 8  # What the CRC is made of begins behind it.
WORD_BYTES: Final = 8
FIRST_KEY: Final = (0, 0)
COPY_BYTES: Final = 1 << 20


class Record(NamedTuple):
    """A result as it lies in a journal.

    Args:
        key: Its renderer and its sequence.
        pieces: What was given to `pack_record`, in the memory of the file.
    """

    key: Key
    pieces: Sequence[memoryview]


class Contents(NamedTuple):
    """What could be read of a journal.

    Args:
        about: What `Journal.begin` was given; None: there is no first record.
        earlier: Keys of results that were in journals before.
        records: The results, in order.
        end: Bytes of all that is whole.
        is_damaged: What follows was not torn by a crash: it is something else.
    """

    about: Any
    earlier: list[Key]
    records: list[Record]
    end: int
    is_damaged: bool


class Journal:
    """Appends records to a file that no other process has.

    Args:
        folder: The descriptor of the folder; it stays the caller's, and open.
        name: The name of the file in it; the file is made if need be.
        remedy: What the user can do should another logger have it.

    Attributes:
        about: What `begin` was given; None for a new file, which nothing may be appended to
            before `begin`.
        keys: Of the results that were known when the file was opened, the latest last.
        count: Results in it.
        size: Bytes of it.

    Raises:
        OSError: It cannot be opened, is a symlink, or another process keeps it.
        ValueError: It is not a regular file.
    """

    def __init__(self, folder: int, name: str, *, remedy: str) -> None:
        self._folder = folder
        self._name = name
        self._is_cut = False  # Whether nothing lies behind `size`.
        self._file = open_locked(folder, name, remedy=remedy)
        try:
            contents = read_journal(self._file)
            if contents.is_damaged:
                self._set_aside()
            self.about = contents.about
            self.keys = [*contents.earlier, *(record.key for record in contents.records)]
            self.size, self.count = contents.end, len(contents.records)
            torn_bytes = os.fstat(self._file).st_size - self.size
            if torn_bytes:
                log.warning("end of journal cut off file=%s bytes=%d", name, torn_bytes)
            self._cut()
        except BaseException:
            self.close()
            raise

    def begin(self, about: Any, earlier: Collection[Key]) -> None:
        """Put an empty journal in place of this one.

        Args:
            about: Plain values, which are written as JSON.
            earlier: Keys of results that are in their place, to be known after a crash.

        Raises:
            OSError: It cannot be written.  Nothing has changed.
        """
        words = array("Q", chain.from_iterable(earlier))
        content = pack_record(FIRST_KEY, (orjson.dumps(about), words))
        temporary = temporary_name(self._name)
        file = open_beneath(self._folder, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            lock(file, self._name)  # While it has no name that others know.
            write_all(file, content)
            os.replace(temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            os.close(file)
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._folder)
            raise
        self.close()
        self._file, self._is_cut = file, True
        self.about, self.size, self.count = about, len(content), 0

    def append(self, records: Collection[bytes]) -> None:
        """Write records that `pack_record` made, all of them or none.

        Raises:
            OSError: They cannot be written; the journal is what it was.
        """
        self._cut()
        self._is_cut = False
        try:
            for record in records:
                write_all(self._file, record)
        except BaseException:
            with suppress(OSError):  # Then it is cut before the next ones.
                self._cut()
            raise
        self._is_cut = True
        self.size += sum(map(len, records))
        self.count += len(records)

    def records(self) -> list[Record]:
        """The results in it, in order; they lie in the memory of the file, not in that of the
        process.
        """
        return read_journal(self._file).records

    def remove(self) -> None:
        """Remove the file, and give up its name."""
        os.unlink(self._name, dir_fd=self._folder)
        self.close()

    def close(self) -> None:
        """Give it up to others; the file stays.  The second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _cut(self) -> None:
        if not self._is_cut:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            self._is_cut = True

    def _set_aside(self) -> None:
        """Keep a copy of a file that is damaged."""
        name = f"{self._name}.damaged"
        log.error("journal is damaged, a copy is kept file=%s copy=%s", self._name, name)
        copy = open_beneath(self._folder, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            offset = 0
            while piece := os.pread(self._file, COPY_BYTES, offset):
                write_all(copy, piece)
                offset += len(piece)
        finally:
            os.close(copy)


def pack_record(key: Key, pieces: Sequence[Any]) -> bytes:
    """Make a record.

    Args:
        key: The renderer and the sequence of a result.
        pieces: Bytes, or arrays that are contiguous in C order; they are copied.
    """
    lengths = array("Q", (memoryview(piece).nbytes for piece in pieces))
    header = HEADER.pack(MAGIC, 0, *key, len(lengths))
    checksum = zlib.crc32(lengths, zlib.crc32(header[CHECKED_FROM:]))
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    # In one go, for pieces may be large: each is copied once.
    return b"".join((HEADER.pack(MAGIC, checksum, *key, len(lengths)), lengths, *pieces))


def read_journal(file: int) -> Contents:
    """Read a journal; nothing is changed.

    Args:
        file: A descriptor of it; it stays the caller's.

    Raises:
        OSError: It cannot be read.
    """
    size = os.fstat(file).st_size
    # A mapping lives for as long as something refers to it.  What is cut off the file lies behind
    # its last whole record, so no page of a record can go.
    content = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ) if size else b"")
    records: list[Record] = []
    end, is_damaged = 0, False
    try:
        while (found := _record_at(content, end)) is not None:
            record, end = found
            records.append(record)
    except _DamagedError:
        is_damaged = True
    if not records or records[0].key != FIRST_KEY:
        return Contents(None, [], [], 0, is_damaged or bool(records))
    about, words = records[0].pieces
    return Contents(orjson.loads(about), _keys(words), records[1:], end, is_damaged)


class _DamagedError(Exception):
    """What stands here is no record, and no beginning of one."""


def _record_at(content: memoryview, start: int) -> tuple[Record, int] | None:
    """The record that begins there, and its end; None: there is at most the beginning of one."""
    if len(content) - start < HEADER.size:
        return None
    magic, checksum, renderer, sequence, count = HEADER.unpack_from(content, start)
    if magic != MAGIC:
        raise _DamagedError
    offset = start + HEADER.size + WORD_BYTES * count
    if offset > len(content):
        return None
    lengths = array("Q", content[start + HEADER.size : offset].tobytes())
    end = offset + sum(lengths)
    if end > len(content):
        return None
    if zlib.crc32(content[start + CHECKED_FROM : end]) != checksum:
        raise _DamagedError
    pieces = []
    for length in lengths:
        pieces.append(content[offset : offset + length])
        offset += length
    return Record((renderer, sequence), pieces), end


def _keys(words: memoryview) -> list[Key]:
    numbers = array("Q", words.tobytes())
    return list(zip(numbers[::2], numbers[1::2], strict=True))
