"""The slot table: who holds which slot, for which use.

A hold is two words with one writer each.  The daemon writes ``want[logger][slot] = generation``
when a result is published; the logger writes ``ack[logger][slot] = generation`` when it is done.
Held means ``want != 0 and ack != want``.  No counter is shared and no lock: two processes that
count one word down lose updates, and the owner of a lock may die.

The words may be any sequence: memory shared with the loggers in the daemon, lists in tests.
Nothing read from `ack` is used for anything but this comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence, Sequence
from typing import Final, NamedTuple, Protocol

NOBODY: Final = 0  # No renderer has this number.


class Words(Protocol):
    """Whole numbers that another process writes."""

    def __getitem__(self, index: int, /) -> int:
        """The word as it is now."""


class SlotRef(NamedTuple):
    """One use of one slot: a late release names a use that is over, and does no harm."""

    slot: int
    generation: int


class SlotTable:
    """Holds on a fixed number of slots; the daemon alone changes it.

    Args:
        slot_count: How many there are.
        want: A row of `slot_count` words for each logger, written here.
        ack: The same, written by the loggers.
    """

    def __init__(
        self,
        slot_count: int,
        want: Sequence[MutableSequence[int] | memoryview[int]],
        ack: Sequence[Words],
    ) -> None:
        assert slot_count > 0
        assert len(want) == len(ack) > 0  # Without loggers no hold would ever end.
        self.slot_count = slot_count
        self._want = want
        self._ack = ack
        # A stack: the slot used a moment ago is still in the caches.
        self._free = list(range(slot_count - 1, -1, -1))
        self._generations = [0] * slot_count
        self._writers = [NOBODY] * slot_count
        self._hold_counts = [0] * slot_count  # Holds of loggers.

    @property
    def free_count(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    def claim(self, renderer: int) -> SlotRef | None:
        """Give a renderer a slot to write into, or None when all are held.

        A number below zero is that of one who reads results back from the disk.
        """
        if not self._free:
            return None
        slot = self._free.pop()
        self._generations[slot] += 1
        self._writers[slot] = renderer
        return SlotRef(slot, self._generations[slot])

    def is_claimed(self, slot: int, generation: int, renderer: int) -> bool:
        """Whether this renderer may write into this use of this slot."""
        return (
            0 <= slot < self.slot_count
            and self._writers[slot] == renderer
            and self._generations[slot] == generation
        )

    def publish(self, slot: int, generation: int, holders: Sequence[int]) -> None:
        """Replace the hold of the writer by those of the loggers `holders`, at least one."""
        assert self._writers[slot] != NOBODY
        self._writers[slot] = NOBODY
        self._hold_counts[slot] = len(holders)
        for holder in holders:
            self._want[holder][slot] = generation

    def give_back(self, slot: int) -> None:
        """End the hold of a renderer that will not publish."""
        assert self._writers[slot] != NOBODY
        self._writers[slot] = NOBODY
        self._free.append(slot)

    def claimed_by(self, renderer: int) -> list[int]:
        """The slots that a renderer may write into.  Looks at every slot."""
        return [slot for slot, writer in enumerate(self._writers) if writer == renderer]

    def acks_of(self, logger: int) -> Words:
        """The words that a logger writes: the generation of each slot that it is done with."""
        return self._ack[logger]

    def end_holds(self, logger: int, slots: Iterable[int]) -> int:
        """End holds of one logger, and say how many slots became free by it.

        The slots must be held by it: released by the logger, or revoked by the daemon after the
        logger's process was reaped.
        """
        want = self._want[logger]
        freed = len(self._free)
        for slot in slots:
            assert want[slot] == self._generations[slot], "a hold ends once"
            want[slot] = 0
            self._hold_counts[slot] -= 1
            if not self._hold_counts[slot]:
                self._free.append(slot)
        return len(self._free) - freed

    def hold_count(self, slot: int) -> int:
        """How many loggers hold a slot."""
        return self._hold_counts[slot]

    def holders_of(self, slot: int) -> list[int]:
        """The loggers that hold a slot, released or not."""
        return [logger for logger, want in enumerate(self._want) if want[slot]]

    def check_invariants(self) -> None:
        """Assert what must be true of every slot.  Looks at everything: for tests."""
        free = set(self._free)
        assert len(free) == len(self._free), "a slot is free twice"
        for slot in range(self.slot_count):
            holders = self.holders_of(slot)
            assert len(holders) == self._hold_counts[slot]
            states = [slot in free, self._writers[slot] != NOBODY, bool(holders)]
            assert states.count(True) == 1, "a slot is free, being written, or held: one of them"
            for logger in holders:
                assert self._want[logger][slot] == self._generations[slot]
