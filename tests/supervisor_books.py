"""The books of the world around a supervisor: where each result is, for each logger.

They share no code with the core.  `supervisor_world` keeps them, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from millpond.core.logger_record import LoggerSpec
from millpond.core.progress import IDLE, flush_word, log_word, returned_word
from millpond.core.slots import SlotRef

Key = tuple[int, int]  # Renderer and sequence.

HANG_S = 30.0
PROBE_S = 5.0
KEEP_S = 5.0
BATCH_BYTES = 2**25
RETRY_S = (0.1, 1.0, 5.0, 15.0)
CRASHES_MAX = 3
RAISES_MAX = 5
DISK_ERRORS = (28, 122, 30, 5)  # ENOSPC, EDQUOT, EROFS, EIO.
ON_DISK = ("leaving", "disk", "coming")  # Or between it and the slots.


@dataclass
class Writer:
    """A renderer, as the model sees it."""

    claims: list[SlotRef] = field(default_factory=list)
    sequence: int = 0
    waits: bool = False
    is_ended: bool = False


@dataclass(eq=False)
class Item:
    """One result for one logger.

    It "waits" for its turn or "window" (is in the pipe), was "returned" by a logger whose disk
    failed, is "leaving" for the disk, on the "disk", "coming" back, or "dying" (its arrays are
    written).
    """

    key: Key
    ref: SlotRef | None  # None: it has no slot.
    place: str = "waits"
    token: int = 0
    crashes: int = 0
    raises: int = 0
    was_raised: bool = False  # Also by a failed disk.
    is_suspect: bool = False  # It is sent alone.
    is_logged: bool = False  # By a logger that keeps slots, and not released.
    is_kept: bool = False  # The same, and the supervisor was told.
    due_s: float = 0.0  # It must not be tried earlier.


class Wanted(list):
    """The words of one logger that the daemon writes, and what it was given by the last event."""

    def __init__(self, slot_count: int) -> None:
        super().__init__([0] * slot_count)
        self.given: list[SlotRef] = []

    def __setitem__(self, slot: int, generation: int) -> None:
        if generation:
            self.given.append(SlotRef(slot, generation))
        super().__setitem__(slot, generation)


@dataclass
class Reader:
    """A logger, as the model sees it; `open` holds what has no outcome, in order of publication."""

    spec: LoggerSpec
    ack: list[int]
    want: Wanted
    keeps_slots: bool = False
    open: dict[Key, Item] = field(default_factory=dict)
    window: list[Item] = field(default_factory=list)
    outcomes: dict[Key, str] = field(default_factory=dict)
    phase: str = "none"  # "none", "starting" or "ready": what its process does.
    started: SlotRef | None = None  # What its word names.
    has_news: bool = False  # It has logged something since it rang last.
    word_rung: int = IDLE  # Its word when it rang last.
    started_s: float = 0.0
    is_killed: bool = False
    is_hung: bool = False
    is_closing: bool = False
    is_fatal: bool = False
    is_plain: bool = True  # Nothing was ever returned to it.
    is_disk_bad: bool = False
    last_cause: str = ""
    progress_s: float = 0.0
    patience_s: float = 0.0  # When it must have been killed, if it does not go on.
    suspended_until_s: float | None = None
    spill_rests_until_s: float = 0.0

    @property
    def is_down(self) -> bool:
        if self.is_hung or (self.is_killed and not self.is_closing):
            return True  # It will not come back as it is.
        return bool(self.last_cause) and self.phase != "ready"

    @property
    def can_be_sent(self) -> bool:
        is_ended = self.is_killed or self.is_closing
        return self.phase == "ready" and not is_ended and self.suspended_until_s is None

    @property
    def drops(self) -> bool:
        if self.is_down:
            return self.spec.on_crash == "drop"
        return self.spec.when_full == "drop"

    def spills(self, now_s: float) -> bool:
        """Whether the renderers never wait for it: what the disk does not take may die."""
        if now_s < self.spill_rests_until_s:
            return False
        if self.is_down:
            return self.spec.on_crash == "redeliver"
        is_suspended = self.suspended_until_s is not None and self.spec.on_crash == "redeliver"
        return is_suspended or self.spec.when_full == "spill"

    def may_spill(self, now_s: float, *, is_disk_stuck: bool, is_sure: bool = False) -> bool:
        """The same, or it has not caught up yet: then they wait only if the disk does not go on.

        Args:
            now_s: The present moment.
            is_disk_stuck: It did not answer.
            is_sure: Whether it must have noticed what is due again by now.
        """
        # What is tried again later is in nobody's way.
        is_behind = any(
            item.raises == 0 or (not is_sure and item.due_s <= now_s) for item in self.at(*ON_DISK)
        )
        catches_up = is_behind and self.is_disk_willing(now_s, is_disk_stuck=is_disk_stuck)
        return catches_up or self.spills(now_s)

    def is_disk_willing(self, now_s: float, *, is_disk_stuck: bool) -> bool:
        return now_s >= self.spill_rests_until_s and not is_disk_stuck

    @property
    def may_starve(self) -> bool:
        """Whether it may have nothing to do because what it must get next is on the disk."""
        is_idle = self.can_be_sent and not self.busy and self.has_room
        return is_idle and any(self.at("disk")) and not any(self.at("coming"))

    @property
    def starves(self) -> bool:
        """The same, for sure."""
        front = self.front
        return self.may_starve and front is not None and front.place == "disk"

    def is_behind(self, keys: list[Key]) -> bool:
        """Whether others on the disk come before these, or may do so because one raised."""
        others = [item.key for item in self.at(*ON_DISK) if item.key not in keys]
        order = list(self.open)
        return any(order.index(key) < order.index(keys[0]) for key in others) or (
            bool(others) and any(item.was_raised for item in self.open.values())
        )

    def is_surely_behind(self, keys: list[Key]) -> bool:
        return not any(item.was_raised for item in self.open.values()) and self.is_behind(keys)

    def at(self, *places: str) -> Iterator[Item]:
        return (item for item in self.open.values() if item.place in places)

    def holders(self) -> Iterator[tuple[int, Item]]:
        return ((item.ref.slot, item) for item in self.open.values() if item.ref is not None)

    @property
    def front(self) -> Item | None:
        """What should be sent next, if that is for sure."""
        if any(item.was_raised for item in self.open.values()):
            return None
        return next((item for item in self.open.values() if item.place != "dying"), None)

    @property
    def busy(self) -> list[Item]:
        """What it has still to do, as far as the supervisor was told."""
        return [item for item in self.window if not item.is_kept]

    @property
    def has_room(self) -> bool:
        return len(self.window) < self.spec.window_max

    @property
    def is_waiting(self) -> bool:
        """Whether it keeps all that it was sent, and says so."""
        return bool(self.window) and self.ack[-1] == returned_word(*self.window[-1].ref)

    @property
    def is_drained(self) -> bool:
        """Whether a stop need not wait for it: what it only keeps, it releases at its end."""
        is_all_sent = len(self.window) == len(self.open)
        return self.is_fatal or not self.open or (is_all_sent and self.is_waiting)

    # What it does.

    def begin(self, ref: SlotRef) -> None:
        self.ack[-1], self.started = log_word(*ref), ref

    def begin_flush(self) -> None:
        self.ack[-1], self.started = flush_word(7), None

    def rest(self) -> None:
        """It keeps slots, and waits for more: its word names the last one that it has."""
        self.started = None
        kept = [
            item.ref for item in self.logged() if self.ack[item.ref.slot] != item.ref.generation
        ]
        self.ack[-1] = returned_word(*kept[-1]) if kept else IDLE

    def keep(self, item: Item) -> None:
        item.is_logged = self.has_news = True
        self.rest()

    def todo(self) -> list[Item]:
        """What it was sent and has not logged, in order."""
        return [item for item in self.window if not item.is_logged]

    def logged(self) -> list[Item]:
        return [item for item in self.window if item.is_logged]

    def release(self, items: Iterable[Item]) -> None:
        for item in items:
            assert item.ref is not None
            self.ack[item.ref.slot] = item.ref.generation

    def find(self, ref: SlotRef | None) -> Item | None:
        return next((item for item in self.window if item.ref == ref), None)

    # What becomes of the results.

    def settle(self, key: Key, outcome: str) -> None:
        assert key not in self.outcomes, "a result has one outcome"
        item = self.open.pop(key)
        if item.place == "window":
            self.window.remove(item)
        self.outcomes[key] = outcome

    def settle_released(self) -> list[Key]:
        keys = [item.key for item in self.window if self.ack[item.ref.slot] == item.ref.generation]
        for key in keys:
            self.settle(key, "delivered")
        return keys

    def progressed(self, now_s: float) -> None:
        self.progress_s = now_s
        self.patience_s = now_s + HANG_S

    def rang(self, now_s: float) -> None:
        """It says what it is doing, which may be something else than before."""
        if self.has_news:
            self.progressed(now_s)
        if self.ack[-1] != self.word_rung:
            self.patience_s = max(self.patience_s, now_s + HANG_S)
        self.has_news, self.word_rung = False, self.ack[-1]
        self.note_kept()

    def note_kept(self) -> None:
        if self.is_waiting:
            for item in self.window:
                item.is_kept = True

    def sent(self, item: Item, now_s: float) -> None:
        """First in, first out; only a result that raised is overtaken."""
        assert item.place == "waits"
        assert item.due_s <= now_s
        for earlier in self.open.values():
            if earlier is item or item.was_raised:
                break
            assert earlier.place in ("window", "dying") or earlier.was_raised
        if not self.busy:
            self.progressed(now_s)
        item.place = "window"
        self.window.append(item)

    def came_back(self, item: Item, place: str) -> None:
        self.is_plain = False
        self.window.remove(item)
        item.place, item.is_suspect = place, True
        item.is_logged = item.is_kept = False

    def resume(self) -> None:
        self.suspended_until_s = None
        self.requeue_returned()

    def requeue_returned(self) -> None:
        for item in self.at("returned"):
            item.place = "waits"

    def check(self, now_s: float) -> None:
        assert len(self.window) <= self.spec.window_max
        assert [item.key for item in self.at("window")] == sorted(
            (item.key for item in self.window), key=list(self.open).index
        )
        if any(item.is_suspect for item in self.busy):
            assert len(self.busy) == 1, "a suspect is sent alone"
        assert all(item.is_logged for item in self.window if item.is_kept)
        assert self.phase != "none" or not self.window
        if self.is_plain and self.can_be_sent and not any(self.at(*ON_DISK)):
            assert not any(self.at("waits")) or len(self.window) == self.spec.window_max
        if self.can_be_sent and not self.busy and self.has_room:
            front = self.front
            is_stuck = front is not None and front.place == "waits"
            if not any(self.at(*ON_DISK)):
                is_stuck = any(item.due_s <= now_s for item in self.at("waits"))
            assert not is_stuck, "it has nothing to do, and is not sent what waits"


@dataclass
class Task:
    """What the disk was asked for; `refs` are the slots that a "read" fills."""

    kind: str  # "spill", "bury" or "read".
    logger: int
    token: int
    keys: list[Key]
    home: int = 0  # Under which name a "spill" is found later.
    refs: list[SlotRef] = field(default_factory=list)


@dataclass
class Disk:
    """A disk that does one thing after the other; it may fail, lose, or never answer."""

    tasks: list[Task] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)  # It may answer them all the same.
    homes: dict[tuple[int, int], list[Key]] = field(default_factory=dict)  # What is there.
    last_token: int = 0
    since_s: float = 0.0  # When it was asked, or answered last, since there is something to write.
    patience_s: float = 0.0  # When it must have been given up, if it does not go on.
    is_stuck: bool = False  # It was given up, and has not answered since.

    @property
    def is_writing(self) -> bool:
        return any(task.kind != "read" for task in self.tasks)

    def is_asked_for(self, token: int) -> bool:
        """Whether it still has to write this, or what was asked for earlier."""
        return any(task.kind != "read" and task.token <= token for task in self.tasks)

    def ask(self, task: Task, now_s: float) -> None:
        if task.kind != "read":
            assert task.token > self.last_token, "a token is used once"
            self.last_token = task.token
            if not self.is_writing:
                self.progressed(now_s)
        self.tasks.append(task)

    def progressed(self, now_s: float) -> None:
        self.since_s, self.patience_s = now_s, now_s + KEEP_S

    def answer(self, now_s: float) -> Task:
        task = self.tasks.pop(0)
        self.is_stuck = False
        if task.kind != "read":
            self.progressed(now_s)
        return task

    def give_up(self, token: int, now_s: float) -> Task:
        assert now_s >= self.since_s + KEEP_S, "it made progress"
        self.is_stuck = True
        task = next(task for task in self.tasks if task.token == token and task.kind != "read")
        self.tasks.remove(task)
        self.cancelled.append(token)
        return task
