"""Where each channel of each slot lies in the segment.

::

    segment   | slot 0          | slot 1          | ...  | slot S-1        |
               ^ page aligned    ^ slot_bytes further
    slot      | channel a |pad| channel b |pad| ... |pad to a page |
               ^ 64-byte aligned offsets, in the order of declaration

    acks      | ack of slot 0 | ... | ack of slot S-1 | started |
    control   | want of logger 0: slot 0 ... slot S-1 | want of logger 1 | ... |

Acks are written by one logger each, control by the daemon; both are rows of aligned 8-byte words.
What `started` holds stands in `progress`.
Every number here is computed from the channels and the slot count, by the same code in the
daemon, the renderers and the loggers.  Sizes never come from shared memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

PAGE_BYTES: Final = 4096
# A cache line: two channels never share one, and numpy's vector loops start aligned.
CHANNEL_ALIGN_BYTES: Final = 64

# What a channel may hold: fixed size, no pointers, the same bytes in every process.
DTYPE_BYTES: Final[Mapping[str, int]] = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
CHANNEL_COUNT_MAX: Final = 64
DIMENSION_COUNT_MAX: Final = 8
DIMENSION_MAX: Final = 2**31 - 1
SLOT_COUNT_MAX: Final = 65_536
SLOT_BYTES_MAX: Final = 2**40
NAME_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Channel:
    """One named array in every slot.

    Args:
        name: A letter or underscore, then up to 63 letters, digits, ``_``, ``.`` or ``-``.
        shape: The length of each dimension; ``()`` for a scalar.
        dtype: One of `DTYPE_BYTES`, in the machine's byte order.

    Raises:
        ValueError: The name, shape or dtype is none; the message says what is allowed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        """Refuse what could not be laid out."""
        if not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(
                f"channel name {self.name!r}: use a letter, then letters, digits, '_', '.' or '-', "
                "at most 64 in all"
            )
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(
                f"channel '{self.name}': dtype {self.dtype!r} is none of {', '.join(DTYPE_BYTES)}"
            )
        if len(self.shape) > DIMENSION_COUNT_MAX:
            raise ValueError(
                f"channel '{self.name}': {len(self.shape)} dimensions, "
                f"at most {DIMENSION_COUNT_MAX} are possible"
            )
        for length in self.shape:
            if type(length) is not int or not 1 <= length <= DIMENSION_MAX:
                raise ValueError(
                    f"channel '{self.name}': dimension {length!r} in shape {list(self.shape)} "
                    f"is not a whole number from 1 to {DIMENSION_MAX}"
                )

    @property
    def size_bytes(self) -> int:
        """Bytes of the array itself, without padding."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        """The channel as people write it: ``rgb (3, 256, 256) float32``."""
        return f"{self.name} {self.shape} {self.dtype}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where every channel lies; made by `plan`."""

    channels: tuple[Channel, ...]
    offsets: tuple[int, ...]  # From the start of the slot, one for each channel.
    slot_bytes: int
    slot_count: int

    @property
    def segment_bytes(self) -> int:
        """Bytes of the whole segment."""
        return self.slot_bytes * self.slot_count

    @property
    def acks_bytes(self) -> int:
        """Bytes of the acks of one logger, and of the word that says what it has started."""
        return (self.slot_count + 1) * WORD_BYTES

    @property
    def payload_bytes(self) -> int:
        """Bytes from the start of a slot to the end of its last channel."""
        return self.offsets[-1] + self.channels[-1].size_bytes

    def to_json(self) -> dict[str, Any]:
        """What another process needs to compute the same layout."""
        return {"channels": channels_to_json(self.channels), "slots": self.slot_count}


def plan(channels: Sequence[Channel], slot_count: int) -> Layout:
    """Lay the channels out.

    Raises:
        ValueError: No channel or too many, two of one name, or sizes out of range.
    """
    if not channels:
        raise ValueError("no channel is declared; a result needs at least one array")
    if len(channels) > CHANNEL_COUNT_MAX:
        raise ValueError(f"{len(channels)} channels, at most {CHANNEL_COUNT_MAX} are possible")
    if len({channel.name for channel in channels}) < len(channels):
        raise ValueError("two channels have the same name")
    if not 1 <= slot_count <= SLOT_COUNT_MAX:
        raise ValueError(f"{slot_count} slots, from 1 to {SLOT_COUNT_MAX} are possible")
    offsets = []
    end = 0
    for channel in channels:
        offsets.append(end)
        end = _align(end + channel.size_bytes, CHANNEL_ALIGN_BYTES)
    slot_bytes = _align(end, PAGE_BYTES)
    if slot_bytes * slot_count > SLOT_BYTES_MAX:
        raise ValueError(f"{slot_count} slots of {slot_bytes} bytes are more than 1 TiB")
    return Layout(tuple(channels), tuple(offsets), slot_bytes, slot_count)


def channels_from_json(declared: object) -> tuple[Channel, ...]:
    """Read ``{"rgb": [[3, 256, 256], "float32"], ...}``, which may come from a stranger.

    Raises:
        ValueError: It is not of that form, or a channel is not possible.
    """
    if not isinstance(declared, dict):
        raise ValueError("channels must map each name to [shape, dtype]")
    channels = []
    for name, spec in declared.items():
        match spec:
            case [[*shape], str(dtype)]:
                channels.append(Channel(str(name), tuple(shape), dtype))
            case _:
                raise ValueError(f"channel {name!r} must be [shape, dtype], not {spec!r}")
    return tuple(channels)


def channels_or_none(declared: object) -> tuple[Channel, ...] | None:
    """The same of what may be missing or damaged; None then."""
    try:
        return channels_from_json(declared)
    except ValueError:
        return None


def channels_to_json(channels: Sequence[Channel]) -> dict[str, Any]:
    """The form that `channels_from_json` reads."""
    return {channel.name: [list(channel.shape), channel.dtype] for channel in channels}


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
