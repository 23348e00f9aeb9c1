"""Which results have their row in a file already: a small hidden file beside it.

A logger may die after it has written rows and before the daemon knows; then those results come
again.  So before the rows of a batch are written, their keys are put on record, with the place
where the rows begin and the length of each.  When the file is opened again, its size tells how
many of the rows are in it.

The record is a row of entries, each a batch::

    magic "mpB1" | CRC of the rest u32 | rows u32 | rows of the batch before that were written u32
    place in the file u64 | (renderer u64, sequence u64) of every row | bytes u64 of every row

in the byte order of the machine.  Entries are only appended.  One that is torn at the end means
that no row of its batch was written, for the entry goes first.  Now and then the record is
replaced by a short one.  It is there against the death of processes, not of the machine.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from array import array
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import accumulate, chain, islice
from typing import Final, NamedTuple

from millpond_loggers.files.known_keys import KEYS_KEPT, Key, remember
from millpond_loggers.files.names import open_beneath, replace_atomically, write_all

log = logging.getLogger(__name__)

MAGIC: Final = b"mpB1"
HEADER: Final = struct.Struct("=4sIIIQ")
WORD_BYTES: Final = 8
# As long as the record may become before a short one takes its place.
RECORD_BYTES_MAX: Final = 1024 * 1024
# Nothing of ours is longer: an entry of twice `KEYS_KEPT` rows, and a batch that was just allowed.
READ_BYTES_MAX: Final = 4 * 1024 * 1024


class _Entry(NamedTuple):
    """One as it is read."""

    before: int  # How many rows of the batch before were written.
    offset: int
    keys: dict[Key, None]
    lengths: Sequence[int]
    end: int  # Where it ends in the record.


class BatchRecord:
    """The record of one file; the owner has the file to itself.

    Use: `begin`, then the rows are written, then `settle`; and so on.

    Args:
        folder: The descriptor of the folder; it stays the caller's, and open.
        name: The name of the file that the rows are in.
        size: Bytes of that file, which ends with a whole row.

    Attributes:
        known: The keys of rows that are in the file: at least the latest `KEYS_KEPT`, the last
            written last.  It stays the same object.

    Raises:
        OSError: The record cannot be read, or is a symlink.
        ValueError: It is not a regular file.
    """

    def __init__(self, folder: int, name: str, size: int) -> None:
        self._folder = folder
        self._name = record_name(name)
        self._file = -1
        self._size = 0  # What lies behind is a torn entry, and no entry.
        self.known: dict[Key, None] = {}
        self._offset = 0  # Of the last batch that was begun,
        self._keys: dict[Key, None] = {}  # its keys,
        self._written = 0  # and how many rows of it are in the file.
        with suppress(FileNotFoundError):
            self._file = open_beneath(folder, self._name, os.O_RDWR)
        if self._file >= 0:
            try:
                self._read(size)
            except BaseException:
                self.close()
                raise

    def begin(self, offset: int, keys: Collection[Key], lengths: Sequence[int]) -> None:
        """Put a batch on record, before its first byte is written.

        Args:
            offset: Where in the file its first row will begin.
            keys: Of each row, in order; no two are the same.
            lengths: Bytes of each row, in order.

        Raises:
            OSError: It cannot be written.  Nothing has changed.
        """
        if self._size > RECORD_BYTES_MAX:
            with suppress(OSError):  # Then it becomes longer still, or the write fails too.
                self._shorten()
        if self._file < 0:
            self._file = open_beneath(self._folder, self._name, os.O_RDWR | os.O_CREAT)
        entry = _pack(self._written, offset, keys, lengths)
        _write_at(self._file, entry, self._size)
        self._size += len(entry)
        self._offset, self._keys, self._written = offset, dict.fromkeys(keys), 0

    def settle(self, count: int) -> None:
        """Take note that the first `count` rows of the last batch are in the file."""
        self._written = count
        remember(self.known, islice(self._keys, count), kept=KEYS_KEPT)

    def leave(self, size: int) -> None:
        """Let go of the places in the file, before another one takes its place.

        What is known stays known: the other one has the same rows, and at least as many bytes.

        Raises:
            OSError: It cannot be put on record; the file must stay.
        """
        if self._file >= 0:
            self.begin(size, (), ())
            self.settle(0)

    def close(self) -> None:
        """Close the descriptor; the record stays."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _read(self, size: int) -> None:
        """Take over what is on record, and find out how much of the last batch is in the file."""
        content = _read_all(self._file)
        lengths: Sequence[int] = ()
        while (entry := _unpack(content, self._size)) is not None:
            self.settle(entry.before)
            self._offset, self._keys, lengths = entry.offset, entry.keys, entry.lengths
            self._size = entry.end
        if self._size < len(content):
            torn_bytes = len(content) - self._size
            log.warning("torn entry cut off file=%s bytes=%d", self._name, torn_bytes)
            # Not only overwritten: entries behind it could fit to the next one.
            os.ftruncate(self._file, self._size)
        if size < self._offset or not size:
            self._forget()
        else:
            ends = accumulate(lengths, initial=self._offset)
            self.settle(sum(end <= size for end in ends) - 1)

    def _forget(self) -> None:
        """Begin anew: the file was made shorter, or is another one.

        A row that is there twice is better than none.
        """
        if self.known:
            log.warning("file is shorter than it was, rows may come twice file=%s", self._name)
        os.ftruncate(self._file, 0)
        self._size = self._offset = self._written = 0
        self._keys = {}
        self.known.clear()

    def _shorten(self) -> None:
        """Put a record in place that knows the same rows, the latest ones."""
        keys = list(self.known)[-KEYS_KEPT:]
        # Of no length: the second entry says that they are all there.
        entries = _pack(0, self._offset, keys, [0] * len(keys))
        entries += _pack(len(keys), self._offset, (), ())
        replace_atomically(self._folder, self._name, lambda copy: write_all(copy, entries))
        self.close()
        self._size, self._keys, self._written = len(entries), {}, 0


def record_name(name: str) -> str:
    """What the record of a file is called."""
    return f".{name}.batch"


def _pack(before: int, offset: int, keys: Collection[Key], lengths: Sequence[int]) -> bytes:
    words = array("Q", chain.from_iterable(keys))
    words.extend(lengths)
    body = words.tobytes()
    # The CRC is made with itself as 0, then put in its place.
    header = HEADER.pack(MAGIC, 0, len(keys), before, offset)
    return (
        HEADER.pack(MAGIC, zlib.crc32(body, zlib.crc32(header)), len(keys), before, offset) + body
    )


def _unpack(content: bytes, start: int) -> _Entry | None:
    """The entry that begins there; None: none does, or not a whole one."""
    if len(content) - start < HEADER.size:
        return None
    magic, checksum, count, before, offset = HEADER.unpack_from(content, start)
    end = start + HEADER.size + 3 * WORD_BYTES * count
    if magic != MAGIC or end > len(content):
        return None
    body = content[start + HEADER.size : end]
    if zlib.crc32(body, zlib.crc32(HEADER.pack(MAGIC, 0, count, before, offset))) != checksum:
        return None
    words = array("Q", body)
    keys = dict.fromkeys(zip(words[: 2 * count : 2], words[1 : 2 * count : 2], strict=True))
    return _Entry(before, offset, keys, words[2 * count :], end)


def _read_all(file: int) -> bytes:
    pieces = []
    start = 0
    while start < READ_BYTES_MAX and (piece := os.pread(file, READ_BYTES_MAX - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _write_at(file: int, content: bytes, start: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, start)
        rest, start = rest[written:], start + written
