"""What leaves the slots for the disk, and what comes back.

Results that wait for a logger which is down or slow by permission give their slots to the
renderers, and so do those of a logger that is not through with what it has on the disk: they could
not be sent before that.  A hold ends only when the disk has what it held, or when the disk takes
too long, and then the result is dead or goes back to its place.  What is on the disk keeps its
place in the queue, and comes back through ordinary slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from millpond.core.alarms import Alarm, Alarms, Why
from millpond.core.commands import (
    BuryResults,
    CancelKeeping,
    Command,
    ReplayResults,
    ReportDead,
    SpillResults,
)
from millpond.core.deliveries import Batch, Result
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerRecord
from millpond.core.slots import SlotRef, SlotTable

RECOVERED: Final = 0  # The token of what an earlier daemon left.
SPILL_FULL: Final = "spill_full"
# Part of the slots that may be on their way back for one logger: replay starves no renderer.
REPLAY_PART: Final = 8
# Part of the slots that is kept free for replay while something is to be replayed.
RESERVE_PART: Final = 4
PROBE_S: Final = 5.0  # Between two tries on a disk that failed.
# As much as is written in one go: a slow disk must be seen to make progress.
BATCH_BYTES: Final = 32 * 1024 * 1024
KEEP: Final = Alarm(Why.KEEP, 0)
# Between two vain looks for results that might go to the disk ahead of need: a part of the slots.
VAIN_PART: Final = 16


@dataclass(slots=True)
class Keeping:
    """Results that are being written, and still hold their slots."""

    logger: int
    results: list[Result]
    batch: Batch | None  # None: they are dead, and their arrays are kept.


class DiskTable:
    """The results on the way to the disk, there, and on the way back.

    Args:
        slots: The slot table.
        records: The loggers.
        alarms: Where the deadlines of the disk are set.
        slot_bytes: Bytes of one slot.
        keep_s: Seconds without any progress after which the disk no longer holds slots.
    """

    def __init__(
        self,
        slots: SlotTable,
        records: Sequence[LoggerRecord],
        alarms: Alarms,
        *,
        slot_bytes: int,
        keep_s: float,
    ) -> None:
        self._slots = slots
        self._records = records
        self._alarms = alarms
        self._keep_s = keep_s
        self._batch_max = max(1, BATCH_BYTES // slot_bytes)
        self._is_stuck = False  # It let us wait in vain, and has not answered since.
        self._keeping: dict[int, Keeping] = {}  # By token.
        self._reading: dict[int, tuple[Batch, list[SlotRef]]] = {}  # By logger.
        self._leaving: Counter[int] = Counter()  # Holds that end when the disk has the results.
        self._next_token = RECOVERED + 1
        self._starving = 0  # What the last `replay` said.
        self._vain = 0  # Calls to come that need not look for results to spill ahead of need.
        self.is_closed = False  # Nothing is read back any more.

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written that holds a slot."""
        return not self._keeping

    # Out of the slots.

    def make_room(self, short: int, starving: int, spare: int, now_s: float) -> list[Command]:
        """Take slots back from loggers that the renderers need not wait for.

        Args:
            short: Slots that renderers need now.
            starving: Slots that are needed to read back what loggers must get next.
            spare: Slots that should come free ahead of need; nothing is dropped for those.
            now_s: The present moment.
        """
        commands: list[Command] = []
        free_count = self._slots.free_count
        if starving > self._leaving_count:
            commands = self._shed(starving, now_s, may_drop=True)
        # What is dropped comes free at once.
        needed = short + starving + free_count - self._slots.free_count
        if needed > self._leaving_count:
            commands += self._shed(needed, now_s, may_drop=True)
        elif self._vain:
            self._vain -= 1
            return commands
        spare += free_count - self._slots.free_count
        if spare > self._leaving_count:
            # Some more, so that they go in rows and not one by one.
            part = self._slots.slot_count // VAIN_PART
            ahead = self._shed(spare + part, now_s, may_drop=False)
            self._vain = 0 if ahead else part
            commands += ahead
        return commands

    @property
    def _leaving_count(self) -> int:
        """Slots that will be free as soon as the disk has what lies in them."""
        hold_count = self._slots.hold_count
        return sum(count == hold_count(slot) for slot, count in self._leaving.items())

    def _shed(self, needed: int, now_s: float, *, may_drop: bool) -> list[Command]:
        """Have so many slots come free, those on their way included."""
        leaving: dict[int, list[Result]] = {}
        for logger in range(len(self._records)):
            if results := self._leaving_of(logger, may_drop=may_drop):
                leaving[logger] = results
        chosen = self._choose(leaving.values(), needed - self._leaving_count)
        commands: list[Command] = []
        for logger in leaving if chosen else ():
            record = self._records[logger]
            if may_drop and record.drops:
                lost = record.deliveries.take_slots(chosen)
                problem = f"it is down: {record.last_error}" if record.is_broken else ""
                commands += self.bury(logger, lost, _drop_reason(record), problem)
            elif self._is_stuck:
                lost = record.deliveries.take_slots(chosen)
                commands += self.bury(logger, lost, SPILL_FULL, "the disk does not answer")
            else:
                commands += self._spill(logger, chosen, now_s)
        return commands

    def _leaving_of(self, logger: int, *, may_drop: bool) -> list[Result]:
        """What one logger's slots may be taken from, in the order in which they should."""
        record = self._records[logger]
        deliveries = record.deliveries
        if may_drop and record.drops:
            return deliveries.leaving()
        if Alarm(Why.SPILL, logger) in self._alarms:
            return []  # The disk did not take it a moment ago.
        if self._is_stuck:  # What would be spilled dies: so not ahead of need.
            return deliveries.leaving() if may_drop and record.spills else []
        # What stands behind others on the disk cannot be sent before them: until the logger has
        # caught up, the renderers need not wait for it.  Nor for what is tried again later.
        is_whole = record.spills or deliveries.is_catching_up
        return deliveries.leaving() if is_whole else deliveries.resting()

    def _choose(self, leaving: Collection[Sequence[Result]], needed: int) -> set[int]:
        """Slots in which nothing lies but what may leave them."""
        counts = Counter(result.slot for results in leaving for result in results)
        chosen: set[int] = set()
        for results in leaving:
            for result in results:
                if len(chosen) >= needed:
                    return chosen
                if counts[result.slot] == self._slots.hold_count(result.slot):
                    chosen.add(result.slot)
        return chosen

    def _spill(self, logger: int, chosen: set[int], now_s: float) -> list[Command]:
        deliveries = self._records[logger].deliveries
        batches = deliveries.make_batches(chosen, self._next_token, self._batch_max)
        self._next_token += len(batches)
        commands: list[Command] = []
        for batch in batches:
            self._keep(batch.token, Keeping(logger, batch.results, batch), now_s)
            commands.append(SpillResults(logger, batch.token, batch.results, batch.home))
        return commands

    def spill_rest(self, logger: int, now_s: float) -> list[Command]:
        """Spill everything that waits for one logger."""
        deliveries = self._records[logger].deliveries
        deliveries.hurry_retries()
        return self._spill(logger, {result.slot for result in deliveries.waiting()}, now_s)

    def bury(self, logger: int, results: list[Result], reason: str, problem: str) -> list[Command]:
        """End the holds of one logger on results that it will never get, and say so."""
        if not results:
            return []
        deliveries = self._records[logger].deliveries
        deliveries.dead += len(results)
        for result in results:
            deliveries.blames.pop(result.key, None)
        self._slots.end_holds(logger, [result.slot for result in results])
        return [ReportDead(logger, results, reason, problem)]

    def bury_with_arrays(
        self, logger: int, result: Result, reason: str, problem: str, now_s: float
    ) -> Command:
        """Give up one result; it keeps its slot until its arrays are on the disk."""
        deliveries = self._records[logger].deliveries
        blame = deliveries.blames.pop(result.key, None)
        token = self._next_token
        self._next_token += 1
        deliveries.burying += 1
        self._keep(token, Keeping(logger, [result], None), now_s)
        attempts = blame.attempts if blame else 0
        return BuryResults(logger, token, [result], reason, problem, attempts)

    def _keep(self, token: int, keeping: Keeping, now_s: float) -> None:
        self._keeping[token] = keeping
        self._leaving.update(result.slot for result in keeping.results)
        if KEEP not in self._alarms:
            self._alarms.set(KEEP, now_s + self._keep_s)

    def _end_keeping(self, token: int, now_s: float) -> Keeping | None:
        keeping = self._keeping.pop(token, None)
        self._is_stuck = False
        if keeping is not None:
            self._alarms.clear(KEEP)
            if self._keeping:  # It makes progress.
                self._alarms.set(KEEP, now_s + self._keep_s)
            for result in keeping.results:
                self._leaving[result.slot] -= 1
                if not self._leaving[result.slot]:
                    del self._leaving[result.slot]
        return keeping

    def kept(self, token: int, now_s: float) -> None:
        """The disk has them: their holds end."""
        keeping = self._end_keeping(token, now_s)
        if keeping is None:
            return  # It came too late.
        deliveries = self._records[keeping.logger].deliveries
        if keeping.batch is None:
            self._end_burial(keeping)
        else:
            self._end_holds(keeping.logger, deliveries.written(keeping.batch))

    def logger_of(self, token: int) -> int | None:
        """Whose results are being written; None: it came too late."""
        keeping = self._keeping.get(token)
        return keeping.logger if keeping is not None else None

    def failed(self, token: int, problem: str, now_s: float) -> list[Command]:
        """The disk does not have them, and will not.

        They go back to their place if the renderers may wait for this logger, else they are dead.
        """
        keeping = self._end_keeping(token, now_s)
        if keeping is None:
            return []
        record = self._records[keeping.logger]
        if keeping.batch is None:
            self._end_burial(keeping)
            return []
        # What stands behind others on the disk must not keep the slots that those come back by.
        is_in_the_way = self._starving > 0 and record.deliveries.is_behind(keeping.batch)
        may_spill = record.is_broken or record.spec.when_full == "spill"
        is_patient = not (may_spill or is_in_the_way or self.is_closed)
        lost = record.deliveries.not_written(keeping.batch, keep=is_patient)
        if is_patient:
            self._alarms.set(Alarm(Why.SPILL, keeping.logger), now_s + PROBE_S)
            return []
        return self.bury(keeping.logger, lost, SPILL_FULL, problem)

    def overdue(self, now_s: float) -> list[Command]:
        """The disk does nothing any more: it must not hold slots."""
        problem = f"the disk did not take it within {self._keep_s:g} s"
        commands: list[Command] = []
        for token in list(self._keeping):
            commands += [CancelKeeping(token), *self.failed(token, problem, now_s)]
        self._is_stuck = True
        return commands

    def rearm(self, now_s: float) -> None:
        """It was not the disk that took so long: the machine was paused."""
        self._alarms.set(KEEP, now_s + self._keep_s)

    def _end_burial(self, keeping: Keeping) -> None:
        deliveries = self._records[keeping.logger].deliveries
        deliveries.burying -= len(keeping.results)
        deliveries.dead += len(keeping.results)
        self._end_holds(keeping.logger, keeping.results)

    def _end_holds(self, logger: int, results: list[Result]) -> None:
        self._slots.end_holds(logger, [result.slot for result in results])

    # And back.

    def replay(self) -> tuple[list[Command], int]:
        """Read back what loggers get next.

        Returns:
            What to do, and how many slots loggers need that cannot go on without one.
        """
        commands: list[Command] = []
        starving = 0
        for logger, record in enumerate(self._records):
            deliveries = record.deliveries
            if not deliveries.batches or logger in self._reading or self.is_closed:
                continue
            batch = deliveries.front
            if batch is None:
                continue
            # What it could not be sent at once might only go to the disk again.
            count = min(record.room, batch.on_disk, self._share)
            refs = [self._slots.claim(_reader(logger)) for _ in range(count)]
            slots = [ref for ref in refs if ref is not None]
            if slots:
                batch.reading = len(slots)
                self._reading[logger] = batch, slots
                commands.append(ReplayResults(logger, batch.home, slots))
            elif count > 0 and len(deliveries.window) == deliveries.kept:
                starving += count
        self._starving = starving
        return commands, starving

    @property
    def _share(self) -> int:
        """Slots that may be on their way back for one logger."""
        return max(1, self._slots.slot_count // REPLAY_PART)

    @property
    def reserve(self) -> int:
        """Free slots that renderers leave, so that what is read back next comes in rows."""
        if self.is_closed:
            return 0
        wanted = [
            min(self._share, record.deliveries.spilled - self._reading_count(logger))
            for logger, record in enumerate(self._records)
            if record.deliveries.batches and record.room
        ]
        return min(sum(wanted), self._slots.slot_count // RESERVE_PART)

    def _reading_count(self, logger: int) -> int:
        return len(self._reading[logger][1]) if logger in self._reading else 0

    def replayed(
        self, logger: int, token: int, results: list[Result], corrupt: list[Result]
    ) -> list[Command]:
        """What was asked for is in its slots, but for what cannot be read."""
        self._is_stuck = False
        reading = self._reading.pop(logger, None)
        if reading is None or self.is_closed:
            return []
        batch, slots = reading
        assert (batch.home, len(slots)) == (token, len(results) + len(corrupt))
        for result in (*results, *corrupt):
            self._slots.publish(result.slot, result.generation, [logger])
        deliveries = self._records[logger].deliveries
        deliveries.arrived(batch, results, len(corrupt))
        return self.bury(logger, corrupt, "spill_corrupt", "its record on the disk is damaged")

    def close(self) -> None:
        """Read nothing back any more; what was on its way stays on the disk."""
        self.is_closed = True
        for batch, slots in self._reading.values():
            batch.reading = 0
            for slot, _ in slots:
                self._slots.give_back(slot)
        self._reading.clear()

    @property
    def busy_count(self) -> int:
        """Slots that something is on its way from or to the disk in."""
        return len(self._leaving) + sum(len(slots) for _, slots in self._reading.values())

    def held_by(self, logger: int) -> list[Result]:
        """What holds slots for one logger while it is written.  Looks at everything: for tests."""
        kept = [k.results for k in self._keeping.values() if k.logger == logger]
        return [result for results in kept for result in results]

    def check_invariants(self) -> None:
        """Assert that nothing is forgotten.  Looks at everything: for tests."""
        kept = Counter(r.slot for keeping in self._keeping.values() for r in keeping.results)
        assert self._leaving == kept
        assert bool(self._keeping) == (KEEP in self._alarms)
        for logger, (batch, slots) in self._reading.items():
            assert 0 < batch.reading == len(slots) <= batch.on_disk
            assert sorted(self._slots.claimed_by(_reader(logger))) == sorted(s for s, _ in slots)


def _reader(logger: int) -> int:
    """Who writes into a slot what comes back from the disk: a number that no renderer has."""
    return -1 - logger


def _drop_reason(record: LoggerRecord) -> str:
    if record.state is State.FATAL:
        return "disabled"
    return (record.kill_cause or record.last_exit) if record.is_broken else "dropped"
