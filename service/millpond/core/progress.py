"""What a logger is doing right now, in one word that it writes and the daemon reads.

The word lies behind the acks of its slots.  It names the result whose `log` was started last, so
that a crash or a hang has a culprit; a word is stored whole or not at all.  It is compared with
what the daemon sent, and used for nothing else.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SLOT_BITS: Final = 17  # 65,536 slots, counted from 1, and one number more for `flush`.
FLUSH: Final = (1 << SLOT_BITS) - 1
IDLE: Final = 0  # Nothing was started.
RETURNED: Final = 1 << 63  # No generation ever comes so far.


class Started(NamedTuple):
    """The use of a slot whose `log` was started last."""

    slot: int
    generation: int


def log_word(slot: int, generation: int) -> int:
    """The word of a logger that starts `log` for this use of this slot."""
    return generation << SLOT_BITS | (slot + 1)


def flush_word(count: int) -> int:
    """The word of a logger that starts its `count`-th `flush`: any result of a batch may be it."""
    return count << SLOT_BITS | FLUSH


def returned_word(slot: int, generation: int) -> int:
    """The word of a logger that keeps slots when `log` has returned for this use of this slot.

    It may wait for more results as long as it likes, if this is the last one that it was sent.
    """
    return RETURNED | log_word(slot, generation)


def read_word(word: int) -> Started | None:
    """What was started; None: nothing, the flush of a batch, or a `log` that has returned."""
    if word & RETURNED:
        return None
    slot = (word & FLUSH) - 1
    if slot < 0 or slot == FLUSH - 1:
        return None
    return Started(slot, word >> SLOT_BITS)
