"""The bytes of a spill's segment file: one head, then records; every part has its checksum.

::

    head    | magic 8 | version u32 | json length u32 | CRC u32 | channels as JSON | pad to 64 |
    record  | header 64 | frame | payload | "end\\n" | CRC u32 | pad to 64 |
    header  | magic 4 | kind u16 | 0 u16 | segment u64 | offset u64 | renderer u64 | sequence u64
            | payload bytes u64 | frame bytes u32 | channels CRC u32 | frame CRC u32 | CRC u32 |

Little endian.  A header says where it lies, so a copy of a record inside an array is never taken
for one.  It has its own checksum, so a record with a damaged body can still be named, and the
next one is found.  A `Kind.VOID` header covers bytes that do not count.

This file reads and checks; it changes nothing on the disk.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import Enum, IntEnum, auto
from typing import Final, NamedTuple

import orjson

from millpond.core.layout import Channel, channels_to_json
from millpond.core.wire import HEADER_BYTES as FRAME_HEADER_BYTES

# A cache line, and never across two sectors: a header is on the disk whole or not at all.
ALIGN_BYTES: Final = 64
SEGMENT_MAGIC: Final = b"mpspill\n"
SEGMENT_VERSION: Final = 1
SEGMENT_HEAD: Final = struct.Struct("<8sIII")
# 64 channels of 8 dimensions take a small part of it.
CHANNELS_JSON_MAX: Final = 1024 * 1024

# Not text, and no usual number: it is rare in arrays.
RECORD_MAGIC: Final = b"\xf5mpR"
RECORD_HEADER: Final = struct.Struct("<4sHHQQQQQIIII")
RECORD_TRAILER: Final = struct.Struct("<4sI")
TRAILER_MAGIC: Final = b"end\n"
_CRC: Final = struct.Struct("<I")

# How much of a file is looked at in one go.
PIECE_BYTES: Final = 1024 * 1024
_HEADER_AND_USUAL_FRAME_BYTES: Final = RECORD_HEADER.size + 4096

assert RECORD_HEADER.size == ALIGN_BYTES


class Kind(IntEnum):
    """What a record is."""

    RESULT = 1
    VOID = 2  # Was rolled back, and could not be cut off: skip it.


class Header(NamedTuple):
    """The header of one record; `offset` is in bytes from the start of the file."""

    kind: int
    segment: int
    offset: int
    renderer: int
    sequence: int
    payload_bytes: int
    frame_bytes: int
    channels_crc: int
    frame_crc: int

    @property
    def payload_offset(self) -> int:
        """Where the payload begins."""
        return self.offset + RECORD_HEADER.size + self.frame_bytes

    @property
    def content_end(self) -> int:
        """Where the record ends, without its padding."""
        trailer_bytes = RECORD_TRAILER.size if self.kind == Kind.RESULT else 0
        return self.payload_offset + self.payload_bytes + trailer_bytes

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return align(self.content_end)


class Whole(NamedTuple):
    """A record that is as it was written."""

    header: Header
    id: str


class Corrupt(NamedTuple):
    """Bytes that were a record; `header` is None when nobody can say whose."""

    offset: int
    end: int
    header: Header | None
    id: str


class Torn(NamedTuple):
    """From here to the end of the file a write was not finished."""

    offset: int


class HeadState(Enum):
    """What the head of a file says about it."""

    GOOD = auto()
    TORN = auto()  # Its creation was not finished: there is no record in it.
    NEWER = auto()  # Of a later millpond.
    DAMAGED = auto()  # Or no segment at all.


class Head(NamedTuple):
    """The head of a file; `channels` is JSON, and empty unless the state is GOOD."""

    state: HeadState
    end: int
    channels: bytes


def align(size_bytes: int) -> int:
    """The next multiple of `ALIGN_BYTES`."""
    return -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES


def record_bytes(*, frame_bytes: int, payload_bytes: int) -> int:
    """What a result takes on the disk, padding included."""
    return align(RECORD_HEADER.size + frame_bytes + payload_bytes + RECORD_TRAILER.size)


def channels_json(channels: Sequence[Channel]) -> bytes:
    """The channels as a head has them: equal bytes mean equal layouts."""
    return orjson.dumps(channels_to_json(channels))


def pack_head(channels: bytes) -> bytes:
    """Make the head of a segment file."""
    begin = struct.pack("<8sII", SEGMENT_MAGIC, SEGMENT_VERSION, len(channels))
    whole = begin + _CRC.pack(zlib.crc32(channels, zlib.crc32(begin))) + channels
    return whole.ljust(align(len(whole)), b"\0")


def pack_header(header: Header) -> bytes:
    """Make the 64 bytes before a record."""
    kind, *rest = header
    raw = RECORD_HEADER.pack(RECORD_MAGIC, kind, 0, *rest, 0)[: -_CRC.size]
    return raw + _CRC.pack(zlib.crc32(raw))


def unpack_header(raw: bytes, segment: int, offset: int) -> Header | None:
    """Read a header; None when these bytes are none, or one of another place."""
    if len(raw) < RECORD_HEADER.size or not raw.startswith(RECORD_MAGIC):
        return None
    _, kind, _, *rest, crc = RECORD_HEADER.unpack_from(raw)
    if crc != zlib.crc32(raw[: RECORD_HEADER.size - _CRC.size]):
        return None
    header = Header(kind, *rest)
    if header.segment != segment or header.offset != offset or kind not in tuple(Kind):
        return None
    return header


def pack_trailer(body_crc: int) -> bytes:
    """Make what follows the payload; the CRC is over the frame and the payload."""
    return RECORD_TRAILER.pack(TRAILER_MAGIC, body_crc)


def id_of(frame: bytes) -> str:
    """The id in the body of a PUBLISH frame; "" when it has none."""
    try:
        id = orjson.loads(frame[FRAME_HEADER_BYTES:])["id"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
    return id if isinstance(id, str) else ""


def read_head(file_fd: int, segment: int, size_bytes: int) -> Head:
    """Look at the head of the segment file of that number, which has `size_bytes`."""
    raw = _read_at(file_fd, 0, SEGMENT_HEAD.size)
    if size_bytes < SEGMENT_HEAD.size and SEGMENT_MAGIC.startswith(raw[: len(SEGMENT_MAGIC)]):
        return Head(HeadState.TORN, 0, b"")
    if is_zero(file_fd, 0, size_bytes):
        return Head(HeadState.TORN, 0, b"")
    if len(raw) < SEGMENT_HEAD.size:
        return Head(HeadState.DAMAGED, 0, b"")
    magic, version, length, crc = SEGMENT_HEAD.unpack(raw)
    if magic != SEGMENT_MAGIC or length > CHANNELS_JSON_MAX:
        return Head(HeadState.DAMAGED, 0, b"")
    channels = _read_at(file_fd, SEGMENT_HEAD.size, length)
    if len(channels) < length:
        # With a record in it, it was once whole, and its length is what is wrong.
        has_record = _find_header(file_fd, segment, 0, size_bytes) < size_bytes
        is_torn = version == SEGMENT_VERSION and not has_record
        return Head(HeadState.TORN if is_torn else HeadState.DAMAGED, 0, b"")
    if crc != zlib.crc32(channels, zlib.crc32(raw[: -_CRC.size])):
        return Head(HeadState.DAMAGED, 0, b"")
    if version != SEGMENT_VERSION:
        return Head(HeadState.NEWER, 0, b"")
    return Head(HeadState.GOOD, align(SEGMENT_HEAD.size + length), channels)


def scan(
    file_fd: int, segment: int, start: int, size_bytes: int
) -> Iterator[Whole | Corrupt | Torn]:
    """Go through the records of a file; whatever is in it, each byte belongs to one thing found.

    Args:
        file_fd: The file, readable.
        segment: Its number.
        start: Where the first record should be; a multiple of 64.
        size_bytes: How long the file is.
    """
    offset = start
    while offset < size_bytes:
        header = unpack_header(_read_at(file_fd, offset, RECORD_HEADER.size), segment, offset)
        if header is None:
            after = _find_header(file_fd, segment, offset + ALIGN_BYTES, size_bytes)
            if after == size_bytes and (
                size_bytes - offset < RECORD_HEADER.size or is_zero(file_fd, offset, size_bytes)
            ):
                yield Torn(offset)
                return
            yield Corrupt(offset, after, None, "")
            offset = after
            continue
        if header.content_end > size_bytes:
            yield Torn(offset)
            return
        if header.kind == Kind.RESULT:
            id, is_whole = _check_body(file_fd, header)
            if is_whole:
                yield Whole(header, id)
            elif is_zero(file_fd, header.content_end - RECORD_TRAILER.size, size_bytes):
                # The length of the file reached the disk before the content did.
                yield Torn(offset)
                return
            else:
                yield Corrupt(offset, min(header.end, size_bytes), header, id)
        offset = header.end


def read_record(file_fd: int, segment: int, offset: int, place: memoryview) -> tuple[Header, bytes]:
    """Copy the payload of a record into `place`, and give its header and its frame.

    Args:
        file_fd: The file, readable.
        segment: Its number.
        offset: Where the record begins, in bytes.
        place: As long as the payload.  Its content is undefined when this raises.

    Raises:
        ValueError: The record is damaged, or of another size.
        OSError: It cannot be read.
    """
    begin = os.pread(file_fd, _HEADER_AND_USUAL_FRAME_BYTES, offset)
    header = unpack_header(begin, segment, offset)
    if header is None or header.kind != Kind.RESULT:
        raise ValueError("its header is damaged")
    if header.payload_bytes != len(place):
        raise ValueError(f"it has {header.payload_bytes} bytes of arrays, a slot {len(place)}")
    frame_end = RECORD_HEADER.size + header.frame_bytes
    frame = begin[RECORD_HEADER.size : frame_end]
    if frame_end > len(begin):
        frame += os.pread(file_fd, frame_end - len(begin), offset + len(begin))
    rest, at = place, header.payload_offset
    while rest:
        count = os.preadv(file_fd, [rest], at)
        if not count:
            raise ValueError("its end is missing")
        rest, at = rest[count:], at + count
    crc = zlib.crc32(place, zlib.crc32(frame))
    if os.pread(file_fd, RECORD_TRAILER.size, at) != pack_trailer(crc):
        raise ValueError("its checksum is wrong")
    return header, frame


def is_zero(file_fd: int, offset: int, end: int) -> bool:
    """Whether there is nothing but zero bytes; an unreadable file is not zero."""
    while offset < end:
        length = min(PIECE_BYTES, end - offset)
        if _read_at(file_fd, offset, length).count(0) != length:
            return False
        offset += length
    return True


def _check_body(file_fd: int, header: Header) -> tuple[str, bool]:
    """The id, if the frame is whole, and whether all is whole."""
    frame = _read_at(file_fd, header.offset + RECORD_HEADER.size, header.frame_bytes)
    crc = zlib.crc32(frame)
    if crc != header.frame_crc:
        return "", False
    offset = header.payload_offset
    end = offset + header.payload_bytes
    while offset < end:
        piece = _read_at(file_fd, offset, min(PIECE_BYTES, end - offset))
        if not piece:
            return id_of(frame), False
        crc = zlib.crc32(piece, crc)
        offset += len(piece)
    return id_of(frame), _read_at(file_fd, end, RECORD_TRAILER.size) == pack_trailer(crc)


def _find_header(file_fd: int, segment: int, offset: int, size_bytes: int) -> int:
    """Where the next good header is, from `offset` on, a multiple of 64; else the size."""
    while offset < size_bytes:
        piece = _read_at(file_fd, offset, PIECE_BYTES)
        at = piece.find(RECORD_MAGIC)
        while at >= 0:
            raw = _read_at(file_fd, offset + at, RECORD_HEADER.size)
            if at % ALIGN_BYTES == 0 and unpack_header(raw, segment, offset + at):
                return offset + at
            at = piece.find(RECORD_MAGIC, at + 1)
        offset += PIECE_BYTES
    return size_bytes


def _read_at(file_fd: int, offset: int, length: int) -> bytes:
    """What is there, up to `length` bytes; nothing where the disk has lost it."""
    try:
        return os.pread(file_fd, length, offset)
    except OSError:
        return b""
