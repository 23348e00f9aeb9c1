"""The renderers, and which free slot goes to whom.

A slot given ahead of need saves the round trip of asking; one that lies unused with one renderer
is missing to the others.  So each renderer begins with few credits, and gets twice as many each
time that it ran dry although slots were free.  Those who wait are served first, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from millpond.core.slots import SlotRef, SlotTable

CREDITS_FIRST: Final = 2
CREDITS_MAX: Final = 64  # As many frames as one send of the renderer carries.
# Slots in rotation should stay in the caches: a copy into a slot that was used a moment ago costs
# a third of one into a slot that went cold.  The figure was measured: half and twice are slower.
HOT_BYTES: Final = 12 * 1024 * 1024


@dataclass(slots=True)
class Renderer:
    """What one renderer has, and what it did."""

    pid: int
    credits_max: int  # The most that it may be given ahead of need.
    credit_target: int = CREDITS_FIRST  # Slots that it should have.
    claimed: int = 0  # Slots that it has, and may write into.
    published: int = 0  # Also the sequence of its last result.


class RendererTable:
    """Who is connected, who waits, and the rule by which free slots are given away.

    Args:
        slots: The slot table.
        slot_bytes: Bytes of one slot.
    """

    def __init__(self, slots: SlotTable, *, slot_bytes: int) -> None:
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._members: dict[int, Renderer] = {}
        self._ended: set[int] = set()  # Those that have not left yet.
        self._waiting: dict[int, None] = {}  # In order of asking.

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._members)

    @property
    def members(self) -> dict[int, Renderer]:
        """All of them by number."""
        return self._members

    def get(self, renderer: int) -> Renderer | None:
        """One of them, or None when it was ended a moment ago."""
        return self._members.get(renderer)

    @property
    def is_full(self) -> bool:
        """Whether every slot may be with a renderer already, and one more might get none."""
        return self._unshared <= 0

    def join(self, renderer: int, pid: int) -> None:
        """Note a new one."""
        # A renderer that rests keeps what it was given ahead, and cannot be asked for it.  So
        # each may have a quarter of what the earlier ones leave, and there is always a rest.
        hot = max(CREDITS_FIRST, HOT_BYTES // self._slot_bytes)
        credits_max = max(1, min(CREDITS_MAX, hot, self._unshared // 4))
        self._members[renderer] = Renderer(pid, credits_max)

    def leave(self, renderer: int) -> bool:
        """Forget one and free what it could write into; False when it was not there."""
        if renderer not in self._members and renderer not in self._ended:
            return False
        self.end(renderer)
        self._ended.remove(renderer)
        for slot in self._slots.claimed_by(renderer):
            self._slots.give_back(slot)
        return True

    def end(self, renderer: int) -> None:
        """Take nothing more from one and give it nothing more.

        What it could write into stays taken until it has left: it may still be writing.
        """
        self._members.pop(renderer, None)
        self._waiting.pop(renderer, None)
        self._ended.add(renderer)

    def want(self, renderer: int) -> None:
        """Note that one has no slot left, and waits."""
        if self._slots.free_count:
            # It ran dry although slots were free: give it more ahead from now on.
            member = self._members[renderer]
            member.credit_target = min(member.credit_target * 2, CREDITS_MAX)
        self._waiting[renderer] = None

    def is_waiting(self, renderer: int) -> bool:
        """Whether it still waits."""
        return renderer in self._waiting

    def shortage(self, reserve: int) -> int:
        """Slots that should come free now, for there are more who wait than free slots.

        Args:
            reserve: Free slots that are for others.
        """
        free_count = self._slots.free_count - reserve
        if len(self._waiting) <= max(0, free_count):
            return 0
        waiting = [self._members[renderer] for renderer in self._waiting]
        return sum(1 + self._room(member, extra=1) for member in waiting) - free_count

    def stop_waiting(self) -> None:
        """Nobody gets a slot any more."""
        self._waiting.clear()

    def grant(self, reserve: int) -> dict[int, list[SlotRef]]:
        """Give free slots away, and say to whom which.

        Args:
            reserve: Free slots that are for others.
        """
        slots = self._slots
        granted: dict[int, list[SlotRef]] = {}
        if slots.free_count <= reserve:
            return granted
        for renderer in list(self._waiting)[: slots.free_count - reserve]:
            del self._waiting[renderer]
            granted[renderer] = self._claim(renderer, 1)
        for renderer, member in self._members.items():
            more = self._claim(renderer, min(self._room(member), slots.free_count - reserve))
            if more:
                granted[renderer] = granted.get(renderer, []) + more
        return granted

    def _room(self, member: Renderer, *, extra: int = 0) -> int:
        """How many slots one should get ahead now, if it had `extra` more than it has."""
        target = min(member.credit_target, member.credits_max)
        missing = target - member.claimed - extra
        # Half of them used up: so that grants go out in batches.
        return missing if missing * 2 >= target else 0

    def _claim(self, renderer: int, count: int) -> list[SlotRef]:
        refs = [ref for _ in range(count) if (ref := self._slots.claim(renderer)) is not None]
        assert len(refs) == max(0, count)
        self._members[renderer].claimed += len(refs)
        return refs

    @property
    def _unshared(self) -> int:
        return self._slots.slot_count - sum(m.credits_max for m in self._members.values())

    def check_invariants(self) -> None:
        """Assert that claims add up.  Looks at everything: for tests."""
        for renderer, member in self._members.items():
            assert member.claimed == len(self._slots.claimed_by(renderer))
        assert self._waiting.keys() <= self._members.keys()
        assert not self._ended & self._members.keys()
