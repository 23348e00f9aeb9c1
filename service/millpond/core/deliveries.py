"""What one logger was sent, what waits for it, and what became of the rest.

published = delivered + dead + queued + in_window + spilled
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from millpond.core.progress import read_word, returned_word
from millpond.core.slots import Words

Key = tuple[int, int]  # (renderer, sequence): which result it is, among all of its run.


class Result(NamedTuple):
    """One published result; all loggers share this one object.

    Args:
        slot: Where its arrays lie.
        generation: Which use of that slot it is.
        renderer: The number of its renderer, which no other has in the same run folder.
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

    @property
    def key(self) -> Key:
        """Which result it is, whatever slot it lies in."""
        return self.renderer, self.sequence


@dataclass(slots=True, eq=False)
class Batch:
    """Results that stand together in a queue and leave its slots for the disk, or have left them.

    Args:
        token: Its name.
        results: Those that are being written; they still hold their slots.
        home: The token under which the disk has them: that of the first batch in their row.
        on_disk: How many are there, and were not read back.
        reading: How many of these are on their way back.
    """

    token: int
    results: list[Result]
    home: int
    on_disk: int = 0
    reading: int = 0


@dataclass(slots=True)
class Blame:
    """How often one result was the one that a logger was busy with when it failed."""

    crashes: int = 0
    raises: int = 0

    @property
    def attempts(self) -> int:
        """How often it was tried in vain."""
        return self.crashes + self.raises


class Deliveries:
    """The results of one logger, first in, first out.

    Args:
        window_max: Results that may be in its pipe at a time, not yet released.
    """

    def __init__(self, window_max: int) -> None:
        assert window_max > 0
        self.window_max = window_max
        self.queue: deque[Result | Batch] = deque()
        self.window: list[Result] = []
        self.kept = 0  # At its head: logged, and kept by a logger that keeps slots.
        self.retrying: list[tuple[float, Result | Batch]] = []  # When each is due again.
        self.returned: list[Result] = []  # By a logger whose disk failed, in order.
        self.blames: dict[Key, Blame] = {}
        self.batches = 0  # In `queue` and `retrying`.
        self.burying = 0  # Being written to the list of the dead.
        self.published = 0
        self.delivered = 0
        self.dead = 0
        self.spilled = 0

    @property
    def is_settled(self) -> bool:
        """Whether every result has its outcome."""
        return self.published == self.delivered + self.dead

    @property
    def unsettled(self) -> int:
        """Results without an outcome, wherever they are."""
        return self.published - self.delivered - self.dead

    @property
    def is_window_empty(self) -> bool:
        """Whether the logger is done with everything that it was sent."""
        return not self.window and not self.returned

    @property
    def queued(self) -> int:
        """Results in slots that are not in the pipe."""
        return self.published - self.delivered - self.dead - self.spilled - len(self.window)

    def waiting(self) -> list[Result]:
        """The results in slots that wait to be sent; those on the way to the disk are left out."""
        items = [*self.queue, *(item for _, item in self.retrying)]
        return [item for item in items if isinstance(item, Result)]

    def leaving(self) -> list[Result]:
        """The same, in the order in which they should leave their slots.

        The newest first: the logger is about to get the oldest, and need not wait for the disk.
        But what stands behind a batch has to follow it, and makes one row with it.
        """
        if not self.batches:
            return self.waiting()[::-1]
        items = list(self.queue)
        first = next((i for i, item in enumerate(items) if isinstance(item, Batch)), len(items))
        retrying = [item for _, item in self.retrying]
        ordered = [*items[first:], *items[:first][::-1], *retrying]
        return [item for item in ordered if isinstance(item, Result)]

    def resting(self) -> list[Result]:
        """Those in slots that are to be tried again later."""
        return [item for _, item in self.retrying if isinstance(item, Result)]

    @property
    def is_catching_up(self) -> bool:
        """Whether something is on the disk that must be sent before what stands behind it."""
        return self.batches > sum(isinstance(item, Batch) for _, item in self.retrying)

    def admit(self, results: Iterable[Result]) -> None:
        """Queue results that were just published."""
        before = len(self.queue)
        self.queue.extend(results)
        self.published += len(self.queue) - before

    def recover(self, batch: Batch) -> None:
        """Queue what an earlier daemon left on the disk."""
        self.queue.append(batch)
        self.batches += 1
        self.published += batch.on_disk
        self.spilled += batch.on_disk

    def put_back(self, results: list[Result]) -> None:
        """Put results at the head of the queue, in their order."""
        self.queue.extendleft(reversed(results))

    def advance(self, count_max: int) -> list[Result]:
        """Move as many as fit from the queue into the window, and return those."""
        room = min(self.window_max - len(self.window), count_max)
        queue = self.queue
        if room <= 0 or not queue:
            return []
        if self.batches:
            moved: list[Result] = []
            while queue and len(moved) < room and isinstance(queue[0], Result):
                moved.append(queue.popleft())  # type: ignore[arg-type]  # Looked at just now.
        elif len(queue) <= room:
            moved = list(queue)  # type: ignore[arg-type]  # No batch is in it.
            queue.clear()
        else:
            moved = [queue.popleft() for _ in range(room)]  # type: ignore[misc]
        self.window += moved
        return moved

    def collect(self, acks: Words) -> list[Result]:
        """Take what the logger has released out of the window, and return it."""
        released = []
        kept = []
        for result in self.window:
            # Each word is read once: the logger may write it at any moment.
            if acks[result.slot] == result.generation:
                released.append(result)
            else:
                kept.append(result)
        if released:
            if self.kept:
                still = set(map(id, kept))
                self.kept = sum(id(result) in still for result in self.window[: self.kept])
            self.window = kept
            self.delivered += len(released)
            if self.blames:
                for result in released:
                    self.blames.pop(result.key, None)
        return released

    def take_window(self) -> list[Result]:
        """Take out everything that was sent and not released, what came back first."""
        taken = self.returned + self.window
        self.returned, self.window, self.kept = [], [], 0
        return taken

    def started(self, word: int) -> Result | None:
        """The result in the window that the logger began with last, as its word tells."""
        started = read_word(word)
        for result in self.window:
            if (result.slot, result.generation) == started:
                return result
        return None

    def has_returned(self, word: int) -> bool:
        """Whether the logger keeps slots and waits for more, as its word tells."""
        if not self.window:
            return False
        last = self.window[-1]
        return word == returned_word(last.slot, last.generation)

    def requeue_returned(self) -> int:
        """Put what came back from a failed disk at the head, and say how many results it is."""
        returned, self.returned = self.returned, []
        self.put_back(returned)
        return len(returned)

    def take_one(self, slot: int, generation: int) -> Result | None:
        """Take one result out of the window, or None if this use is not in it."""
        for index, result in enumerate(self.window):
            if result.slot == slot and result.generation == generation:
                self.kept -= index < self.kept
                return self.window.pop(index)
        return None

    def blame(self, result: Result) -> Blame:
        """How often this one failed; counted by the caller."""
        return self.blames.setdefault(result.key, Blame())

    # Retries.

    def retry_later(self, result: Result, due_s: float) -> None:
        """Try a result again at a moment; the others go on meanwhile."""
        self.retrying.append((due_s, result))

    def take_retries(self, now_s: float) -> int:
        """Put those that are due at the head of the queue, and say how many results they are."""
        due = [item for due_s, item in self.retrying if due_s <= now_s]
        self.retrying = [pair for pair in self.retrying if pair[0] > now_s]
        self.queue.extendleft(reversed(due))
        return len(due)

    @property
    def retry_at_s(self) -> float | None:
        """When the first of them is due."""
        return min((due_s for due_s, _ in self.retrying), default=None)

    def hurry_retries(self) -> None:
        """Put all of them at the head of the queue: there is no later."""
        self.queue.extendleft(item for _, item in reversed(self.retrying))
        self.retrying = []

    # The way to the disk and back.

    def take_slots(self, slots: Collection[int]) -> list[Result]:
        """Take out for good what waits in these slots."""
        taken = [result for result in self.waiting() if result.slot in slots]
        if taken:
            gone = {id(result) for result in taken}
            self.queue = deque(item for item in self.queue if id(item) not in gone)
            self.retrying = [pair for pair in self.retrying if id(pair[1]) not in gone]
        return taken

    def make_batches(self, slots: Collection[int], token: int, count_max: int) -> list[Batch]:
        """Replace what waits in these slots by batches, one for each unbroken row of results.

        Args:
            slots: Which; all that wait in them.
            token: The name of the first batch; the others are numbered from there.
            count_max: Results in one batch; a longer row becomes several.
        """
        batches: list[Batch] = []
        queue: deque[Result | Batch] = deque()
        # What joins a home is read last of all that is there.
        last = {item.home: item for item in self.queue if isinstance(item, Batch)}
        is_row = False  # The last item of `queue` is a batch that was begun here.
        for item in self.queue:
            if isinstance(item, Batch) or item.slot not in slots:
                queue.append(item)
                is_row = False
                continue
            if not is_row or len(batches[-1].results) == count_max:
                before = queue[-1] if queue else None
                name = home = token + len(batches)
                if isinstance(before, Batch) and last[before.home] is before:
                    home = before.home
                last[home] = Batch(name, [], home)
                batches.append(last[home])
                queue.append(last[home])
                is_row = True
            batches[-1].results.append(item)
        self.queue = queue
        for index, (due_s, item) in enumerate(self.retrying):
            if isinstance(item, Result) and item.slot in slots:
                name = token + len(batches)
                batches.append(Batch(name, [item], name))
                self.retrying[index] = (due_s, batches[-1])
        self.batches += len(batches)
        return batches

    def written(self, batch: Batch) -> list[Result]:
        """Its results are on the disk: they need their slots no more, and are returned."""
        results, batch.results = batch.results, []
        batch.on_disk = len(results)
        self.spilled += len(results)
        if batch.home != batch.token:
            self._join(batch)
        return results

    def _join(self, batch: Batch) -> None:
        """Make one batch of this and the one before it, so that the queue stays short."""
        index = self.queue.index(batch)
        before = self.queue[index - 1] if index else None
        if isinstance(before, Batch) and before.home == batch.home and before.on_disk:
            before.on_disk += batch.on_disk
            del self.queue[index]
            self.batches -= 1

    def not_written(self, batch: Batch, *, keep: bool) -> list[Result]:
        """Its results are not on the disk: put them back in its place, or take them out."""
        results, batch.results = batch.results, []
        self._replace(batch, results if keep else [], is_over=True)
        return results

    @property
    def front(self) -> Batch | None:
        """What must be read back before anything else is sent; None when that is in a slot."""
        first = self.queue[0] if self.batches and self.queue else None
        return first if isinstance(first, Batch) and first.on_disk > first.reading == 0 else None

    def is_behind(self, batch: Batch) -> bool:
        """Whether another batch must be sent before this one."""
        queued = [item for item in self.queue if isinstance(item, Batch)]
        return batch in queued and batch is not queued[0]

    def arrived(self, batch: Batch, results: list[Result], corrupt_count: int) -> None:
        """What was read back is in slots again, at its place in the queue.

        Args:
            batch: Whose results they are.
            results: Those that came back.
            corrupt_count: Those that cannot be read; they are dead, which the caller counts.
        """
        gone = len(results) + corrupt_count
        batch.reading -= gone
        batch.on_disk -= gone
        self.spilled -= gone
        self._replace(batch, results, is_over=not batch.on_disk)

    def _replace(self, batch: Batch, results: list[Result], *, is_over: bool) -> None:
        """Put results before a batch, and take the batch out when it is over."""
        for index, (due_s, item) in enumerate(self.retrying):
            if item is batch:
                rest = [] if is_over else [(due_s, batch)]
                self.retrying[index : index + 1] = [*((due_s, r) for r in results), *rest]
                break
        else:
            index = self.queue.index(batch)
            if is_over:
                del self.queue[index]
            for result in reversed(results):
                self.queue.insert(index, result)
        self.batches -= is_over

    def check_invariants(self) -> None:
        """Assert the conservation of results."""
        assert self.kept <= len(self.window) <= self.window_max
        batches = [item for item in self.queue if isinstance(item, Batch)]
        batches += [item for _, item in self.retrying if isinstance(item, Batch)]
        assert self.batches == len(batches)
        assert all(bool(batch.results) != bool(batch.on_disk) for batch in batches)
        assert self.spilled == sum(batch.on_disk for batch in batches)
        in_slots = len(self.waiting()) + len(self.returned) + self.burying
        assert self.queued == in_slots + sum(len(batch.results) for batch in batches)
