"""What forked processes tell the owner of a buffer: a result was freed, or logged."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("<BqqI")  # Kind, slot, registration, bytes of the id.
_FREE: Final = 1
_LOG: Final = 2
_END: Final = 3


@dataclass(frozen=True, slots=True)
class Free:
    """A registration is done with a slot; -1: everybody."""

    slot: int
    registration: int


@dataclass(frozen=True, slots=True)
class Log:
    """A slot's result goes to the loggers, with this id and JSON body."""

    slot: int
    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class End:
    """No more results come."""


Message = Free | Log | End


def encode(message: Message) -> bytes:
    """As it travels."""
    match message:
        case Free(slot, registration):
            return _HEADER.pack(_FREE, slot, registration, 0)
        case Log(slot, id, body):
            name = id.encode()
            return _HEADER.pack(_LOG, slot, 0, len(name)) + name + body
        case End():
            return _HEADER.pack(_END, 0, 0, 0)


def decode(data: bytes) -> Message:
    """What `encode` was given."""
    kind, slot, registration, id_bytes = _HEADER.unpack_from(data)
    if kind == _FREE:
        return Free(slot, registration)
    if kind == _LOG:
        start = _HEADER.size + id_bytes
        return Log(slot, data[_HEADER.size : start].decode(), data[start:])
    return End()
