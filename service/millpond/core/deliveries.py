"""What one logger was sent, what waits for it, and what became of the rest.

published = delivered + dead + queued + in_window
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from millpond.core.slots import Words


class Result(NamedTuple):
    """One published result; all loggers share this one object.

    Args:
        slot: Where its arrays lie.
        generation: Which use of that slot it is.
        renderer: The number of its renderer.
        sequence: Which of that renderer's results it is, from 1.
        id: The renderer's name for it.
        frame: The PUBLISH frame, as the renderer sent it.
    """

    slot: int
    generation: int
    renderer: int
    sequence: int
    id: str
    frame: bytes


class Deliveries:
    """The results of one logger, first in, first out.

    Args:
        window_max: Results that may be in its pipe at a time, not yet released.
    """

    def __init__(self, window_max: int) -> None:
        assert window_max > 0
        self.window_max = window_max
        self.queue: deque[Result] = deque()
        self.window: list[Result] = []
        self.published = 0
        self.delivered = 0
        self.dead = 0

    @property
    def is_settled(self) -> bool:
        """Whether every result has its outcome."""
        return not self.queue and not self.window

    def admit(self, results: Iterable[Result]) -> None:
        """Queue results that were just published."""
        before = len(self.queue)
        self.queue.extend(results)
        self.published += len(self.queue) - before

    def advance(self) -> list[Result]:
        """Move as many as fit from the queue into the window, and return those."""
        room = self.window_max - len(self.window)
        queue = self.queue
        if room <= 0 or not queue:
            return []
        if len(queue) <= room:
            moved = list(queue)
            queue.clear()
        else:
            moved = [queue.popleft() for _ in range(room)]
        self.window += moved
        return moved

    def collect(self, acks: Words) -> list[int]:
        """Take what the logger has released out of the window, and return its slots."""
        released = []
        kept = []
        for result in self.window:
            # Each word is read once: the logger may write it at any moment.
            if acks[result.slot] == result.generation:
                released.append(result.slot)
            else:
                kept.append(result)
        if released:
            self.window = kept
            self.delivered += len(released)
        return released

    def take_window(self) -> list[Result]:
        """Take out everything that was sent and not released."""
        taken, self.window = self.window, []
        return taken

    def take_queue(self) -> list[Result]:
        """Take out everything that was not sent yet."""
        taken = list(self.queue)
        self.queue.clear()
        return taken

    def take_slots(self, slots: Collection[int]) -> list[Result]:
        """Take out what was not sent yet and lies in these slots."""
        taken = [result for result in self.queue if result.slot in slots]
        if taken:
            self.queue = deque(result for result in self.queue if result.slot not in slots)
        return taken

    def take_one(self, slot: int, generation: int) -> Result | None:
        """Take one result out of the window, or None if this use is not in it."""
        for index, result in enumerate(self.window):
            if result.slot == slot and result.generation == generation:
                return self.window.pop(index)
        return None

    def check_invariants(self) -> None:
        """Assert the conservation of results."""
        assert len(self.window) <= self.window_max
        in_hand = len(self.queue) + len(self.window)
        assert self.published == self.delivered + self.dead + in_hand
