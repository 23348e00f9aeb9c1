"""The frame: what travels on the renderer socket and on the pipes of the loggers.

::

    magic "mp" | version u8 | kind u8 | body length u32 | slot u32 | renderer u32
    generation u64 | sequence u64 | body

32 bytes, little endian, then the body.  Bodies are JSON, except that of GRANT, which is a row of
(slot u32, generation u64).  PUBLISH frames are made by the renderer and reach the loggers as the
same bytes.  Only the standard library is used, for the renderer's Python may have nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from millpond.errors import PeerError

PROTOCOL_VERSION: Final = 1
MAGIC: Final = b"mp"
HEADER: Final = struct.Struct("<2sBBIIIQQ")
HEADER_BYTES: Final = HEADER.size
GRANT: Final = struct.Struct("<IQ")

# A job is an id and some arguments: 64 KiB holds thousands, and keeps what an unfinished frame
# can make us store small.
BODY_BYTES_MAX: Final = 64 * 1024
# A set-up carries the whole experiment file.
SETUP_BYTES_MAX: Final = 4 * 1024 * 1024


class Kind(IntEnum):
    """What a frame says, and who says it to whom."""

    HELLO = 1  # renderer -> daemon: protocol, pid, channels
    WELCOME = 2  # daemon -> renderer: layout, its number; the segment's descriptor comes along
    REFUSED = 3  # daemon -> renderer: why; the connection ends
    GRANT = 4  # daemon -> renderer: slots to write into; sequence = last one accepted
    PUBLISH = 5  # renderer -> daemon -> loggers: a job
    RETURN = 6  # renderer -> daemon: a slot that will not be published
    WANT = 7  # renderer -> daemon: I wait; generation = its number; slot = 1: who holds them?
    HOLDERS = 8  # daemon -> renderer, after such a WANT: who holds the slots
    SYNC = 9  # both ways: asks for, and gives, the last sequence accepted
    CLOSING = 10  # daemon -> renderer: no more slots, the daemon ends

    SETUP = 16  # daemon -> logger: what to make and where
    READY = 17  # logger -> daemon: made, send jobs
    FAILED = 18  # logger -> daemon: could not be made, and why
    RAISED = 19  # logger -> daemon: `log` raised; this result is not delivered


class Frame(NamedTuple):
    """One whole frame; `raw` is all of it, header included."""

    kind: int
    slot: int
    renderer: int
    generation: int
    sequence: int
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.raw[HEADER_BYTES:]


def pack(
    kind: Kind,
    body: bytes = b"",
    *,
    slot: int = 0,
    renderer: int = 0,
    generation: int = 0,
    sequence: int = 0,
) -> bytes:
    """Make a frame."""
    return (
        HEADER.pack(MAGIC, PROTOCOL_VERSION, kind, len(body), slot, renderer, generation, sequence)
        + body
    )


def pack_grants(slots: Iterable[tuple[int, int]]) -> bytes:
    """Make the body of a GRANT from (slot, generation) pairs."""
    return b"".join([GRANT.pack(slot, generation) for slot, generation in slots])


def unpack_grants(body: bytes) -> list[tuple[int, int]]:
    """Read the body of a GRANT.

    Raises:
        PeerError: It is not a whole number of grants.
    """
    if len(body) % GRANT.size:
        raise PeerError(f"grant of {len(body)} bytes is cut short")
    return list(GRANT.iter_unpack(body))


class FrameReader:
    """Cuts a stream of bytes into frames, and keeps the beginning of the next one.

    Args:
        body_bytes_max: A longer body is refused as soon as its header is there.
    """

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._body_bytes_max = body_bytes_max
        self._rest = b""

    @property
    def is_midway(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes and give the frames that are whole now.

        Raises:
            PeerError: These are no frames of ours; the reader is of no further use.
        """
        if self._rest:
            data = self._rest + data
        frames = []
        start = 0
        unpack = HEADER.unpack_from
        while len(data) - start >= HEADER_BYTES:
            magic, version, kind, length, slot, renderer, generation, sequence = unpack(data, start)
            if magic != MAGIC or version != PROTOCOL_VERSION:
                raise PeerError(_not_ours(magic, version))
            if length > self._body_bytes_max:
                raise PeerError(f"frame of {length} bytes, at most {self._body_bytes_max} may come")
            end = start + HEADER_BYTES + length
            if end > len(data):
                break
            frames.append(Frame(kind, slot, renderer, generation, sequence, data[start:end]))
            start = end
        self._rest = data[start:]
        return frames


def _not_ours(magic: bytes, version: int) -> str:
    if magic != MAGIC:
        return f"frame begins with {magic!r}, not with {MAGIC!r}: not a millpond peer"
    return (
        f"peer speaks version {version} of the protocol, this is version {PROTOCOL_VERSION}: "
        "install the same millpond on both sides"
    )
