"""The loggers: what each is sent, when it is started again, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from millpond.core.alarms import Alarm, Alarms, Why
from millpond.core.commands import (
    CloseLogger,
    Command,
    KillLogger,
    RecordDelivered,
    ReportExit,
    ReportRaised,
    ReportReady,
    ReportResumed,
    ReportSuspended,
    SendJobs,
    SpawnLogger,
)
from millpond.core.deliveries import Batch, Result
from millpond.core.disk_table import PROBE_S, RECOVERED, DiskTable
from millpond.core.events import LoggerRaised
from millpond.core.invariants import check_holds
from millpond.core.lifecycle import HAS_PROCESS, Input, State
from millpond.core.logger_record import LoggerRecord, LoggerSpec, brief
from millpond.core.progress import RETURNED
from millpond.core.restart import CRASHES_MAX, DISK_ERRORS, RAISES_MAX, RETRY_S
from millpond.core.slots import SlotTable

CLEAN_EXIT: Final = "exit(0)"
HANG: Final = "hang"
# A deadline that is seen so late was missed by us, not by the logger: the machine was paused.
LATE_S: Final = 1.0
# Seconds for a logger that has not kept up when the daemon ends; the others have `stop_s`.
END_S: Final = 1.0


class LoggerTable:
    """All loggers by index, and the commands that follow from what happens to them.

    Args:
        slots: The slot table, with a row for each logger.
        specs: What the operator wants, in the order of starting.
        alarms: Where deadlines are set.
        slot_bytes: Bytes of one slot.
        keep_s: Seconds without any progress after which the disk no longer holds slots.
        recovered: Results of each logger that an earlier daemon left on the disk.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        slots: SlotTable,
        specs: Sequence[LoggerSpec],
        *,
        alarms: Alarms,
        slot_bytes: int,
        keep_s: float,
        recovered: Sequence[int],
        chance: Callable[[], float],
    ) -> None:
        self.everyone = tuple(range(len(specs)))
        self._slots = slots
        self._records = [LoggerRecord(spec) for spec in specs]
        self._alarms = alarms
        self._chance = chance
        self._is_killing = False  # The operator wants the end now.
        self.disk = DiskTable(slots, self._records, alarms, slot_bytes=slot_bytes, keep_s=keep_s)
        for record, count in zip(self._records, recovered, strict=True):
            if count:
                record.deliveries.recover(Batch(RECOVERED, [], RECOVERED, on_disk=count))

    def __getitem__(self, logger: int) -> LoggerRecord:
        """What is known of one."""
        return self._records[logger]

    def __iter__(self) -> Iterator[LoggerRecord]:
        """All of them, in the order of starting."""
        return iter(self._records)

    @property
    def is_drained(self) -> bool:
        """Whether a stop need not wait any longer."""
        return all(map(self._is_drained, self.everyone))

    @property
    def is_stopped(self) -> bool:
        """Whether none will run any more, and nothing of theirs is being written."""
        return self.disk.is_idle and all(r.state is State.STOPPED for r in self._records)

    def spawn(self, logger: int, now_s: float) -> Command:
        """Start one's process."""
        record = self._records[logger]
        record.advance(Input.SPAWN)
        self._alarms.set(Alarm(Why.STATE, logger), now_s + record.spec.start_s)
        record.start_problem = record.kill_cause = ""
        record.start_error = 0
        return SpawnLogger(logger)

    def ready(self, logger: int, now_s: float) -> list[Command]:
        """It has made its files: send it what waits."""
        record = self._records[logger]
        if record.state is not State.STARTING or record.start_problem:
            return []  # It was asked to stop meanwhile, or killed because it took too long.
        record.advance(Input.READY)
        self._alarms.clear(Alarm(Why.STATE, logger))
        record.ready_since_s = now_s
        return [ReportReady(logger), *self.send(logger, now_s)]

    def admit(self, shares: Mapping[int, Sequence[Result]], now_s: float) -> list[Command]:
        """Results were published: these are for these loggers."""
        commands = []
        for logger, results in shares.items():
            self._records[logger].deliveries.admit(results)
            commands += self.send(logger, now_s)
        return commands

    def send(self, logger: int, now_s: float) -> list[Command]:
        """Send one what fits into its window."""
        record = self._records[logger]
        deliveries = record.deliveries
        was_idle = len(deliveries.window) == deliveries.kept
        moved = deliveries.advance(record.room)
        if not moved:
            return []
        if was_idle:
            record.is_alone = record.suspects > 0
            record.suspects -= record.is_alone
            record.progress_s = now_s
            hang = Alarm(Why.HANG, logger)
            if hang not in self._alarms:
                self._alarms.set(hang, now_s + record.spec.hang_s)
        return [SendJobs(logger, moved)]

    def collect(self, logger: int, now_s: float) -> list[Command]:
        """It rang: end the holds that it has released, and send it more."""
        commands = self._collect(logger, now_s)
        word = self._started(logger)
        has_kept = word >= RETURNED and self._records[logger].note_word(word, now_s)
        return commands + self.send(logger, now_s) if commands or has_kept else []

    def _is_drained(self, logger: int) -> bool:
        return self._records[logger].is_drained(self._started(logger))

    def _started(self, logger: int) -> int:
        """What it says that it is doing."""
        return self._slots.acks_of(logger)[self._slots.slot_count]

    def _collect(self, logger: int, now_s: float) -> list[Command]:
        record = self._records[logger]
        released = record.deliveries.collect(self._slots.acks_of(logger))
        if not released:
            return []
        self._slots.end_holds(logger, [result.slot for result in released])
        record.progress_s = now_s
        if not record.deliveries.window:
            record.suspects += record.deliveries.requeue_returned()
        commands: list[Command] = [RecordDelivered(logger, released)]
        if record.is_disk_bad:
            record.is_disk_bad = False
            commands.append(ReportResumed(logger))
        return commands

    # Failures.

    def raised(self, event: LoggerRaised, now_s: float) -> list[Command]:
        """`log` raised for one result: it is tried again some times, and the others go on."""
        logger, problem = event.logger, event.problem
        record = self._records[logger]
        deliveries = record.deliveries
        result = deliveries.take_one(event.slot, event.generation)
        if result is None:
            return []  # Of a use that is over.
        record.last_error = brief(problem)
        record.progress_s = now_s
        record.note_word(self._started(logger), now_s)
        is_stopping = record.state is State.STOPPING  # Nothing is tried again any more.
        if event.error_number in DISK_ERRORS:
            deliveries.returned.append(result)
            return [] if is_stopping else self._suspend(logger, problem, now_s)
        blame = deliveries.blame(result)
        blame.raises += 1
        commands: list[Command] = []
        if blame.raises >= RAISES_MAX:
            commands = [self.disk.bury_with_arrays(logger, result, "exception", problem, now_s)]
        elif is_stopping:
            deliveries.returned.append(result)
        else:
            again_s = RETRY_S[blame.raises - 1]
            deliveries.retry_later(result, now_s + again_s)
            self._arm_retry(logger)
            commands = [ReportRaised(logger, result, problem, again_s)]
        return commands + self.send(logger, now_s)

    def _suspend(self, logger: int, problem: str, now_s: float) -> list[Command]:
        record = self._records[logger]
        is_new = not record.is_disk_bad
        if not record.is_suspended:
            self._alarms.set(Alarm(Why.PROBE, logger), now_s + PROBE_S)
        record.is_suspended = record.is_disk_bad = True
        if not record.deliveries.window:
            record.suspects += record.deliveries.requeue_returned()
        return [ReportSuspended(logger, brief(problem), PROBE_S)] if is_new else []

    def _probe(self, logger: int, now_s: float) -> list[Command]:
        self._resume(logger)
        return self.send(logger, now_s)

    def _resume(self, logger: int) -> None:
        """What its disk did not take goes to the head of its queue, to be tried one by one."""
        record = self._records[logger]
        record.is_suspended = False
        record.suspects += record.deliveries.requeue_returned()
        self._alarms.clear(Alarm(Why.PROBE, logger))

    def _arm_retry(self, logger: int) -> None:
        due_s = self._records[logger].deliveries.retry_at_s
        if due_s is not None:
            self._alarms.set(Alarm(Why.RETRY, logger), due_s)

    def _retry(self, logger: int, now_s: float) -> list[Command]:
        record = self._records[logger]
        # One by one: should it be the flush of a whole batch that raises, only one is to blame.
        record.suspects += record.deliveries.take_retries(now_s)
        self._arm_retry(logger)
        return self.send(logger, now_s)

    def not_kept(self, token: int, problem: str, now_s: float) -> list[Command]:
        """The disk did not take some results: those that are not dead by it may be sent."""
        logger = self.disk.logger_of(token)
        commands = self.disk.failed(token, problem, now_s)
        return commands if logger is None else commands + self.send(logger, now_s)

    def exited(self, logger: int, cause: str, output: str, now_s: float) -> list[Command]:
        """Its process was reaped: what it had not released goes back, and it is started again."""
        record = self._records[logger]
        commands = self._collect(logger, now_s)  # What it released before it ended counts.
        cause = record.kill_cause or cause
        for why in (Why.HANG, Why.SPILL):
            self._alarms.clear(Alarm(why, logger))
        record.last_exit = cause
        is_cut = not record.deliveries.is_window_empty
        commands += self._return_window(logger, cause, output, now_s)
        self._resume(logger)
        if record.state is State.STOPPING:
            record.advance(Input.EXIT)
            self._alarms.clear(Alarm(Why.STATE, logger))
            commands += self._give_up(logger, now_s)
            if cause != CLEAN_EXIT:
                # Its `end` may have failed, unless it was cut off before, and gets the rest again.
                is_told = self._is_killing or (is_cut and record.spec.on_crash == "redeliver")
                record.ended_badly = not is_told
                commands.append(ReportExit(logger, cause, None, is_fatal=False))
            return commands
        record.last_error = brief(record.start_problem) or cause
        if record.start_error in DISK_ERRORS:  # As for `log`: it will pass, however long it takes.
            delay_s: float | None = PROBE_S
            record.is_disk_bad = True
        else:
            delay_s = record.history.record_exit(
                now_s, ready_since_s=record.ready_since_s, chance=self._chance()
            )
        record.advance(Input.GIVE_UP if delay_s is None else Input.EXIT)
        rest_s = record.spec.restart.retry_s if delay_s is None else delay_s
        self._alarms.set(Alarm(Why.STATE, logger), now_s + rest_s)
        commands.append(ReportExit(logger, cause, rest_s, is_fatal=delay_s is None))
        return commands

    def _return_window(self, logger: int, cause: str, output: str, now_s: float) -> list[Command]:
        """What it was sent goes back to the head of its queue, but for a result that ends it."""
        record = self._records[logger]
        deliveries = record.deliveries
        culprit = deliveries.started(self._started(logger))
        rest = deliveries.take_window()
        record.is_alone = False
        is_stopping = record.state is State.STOPPING
        if record.spec.on_crash == "drop":
            reason = "shutdown" if is_stopping else cause
            return self.disk.bury(logger, rest, reason, f"it ended: {cause}")
        commands: list[Command] = []
        if culprit is not None and not is_stopping:
            blame = deliveries.blame(culprit)
            blame.crashes += 1
            if blame.crashes >= CRASHES_MAX:
                rest.remove(culprit)
                commands = [self.disk.bury_with_arrays(logger, culprit, cause, output, now_s)]
        deliveries.put_back(rest)
        record.suspects += len(rest)
        return commands

    # Time.

    def alarm(self, alarm: Alarm, due_s: float, now_s: float) -> list[Command]:
        """Start those whose rest is over, and end those that take too long."""
        is_late = now_s - due_s > LATE_S
        match alarm:
            case Alarm(Why.STATE, logger):
                return self._state_lasts(logger, now_s, is_late=is_late)
            case Alarm(Why.HANG, logger):
                return self._check_progress(logger, now_s, is_late=is_late)
            case Alarm(Why.RETRY, logger):
                return self._retry(logger, now_s)
            case Alarm(Why.PROBE, logger):
                return self._probe(logger, now_s)
            case Alarm(Why.KEEP):
                return self._disk_lasts(now_s, is_late=is_late)
        return []

    def _disk_lasts(self, now_s: float, *, is_late: bool) -> list[Command]:
        if is_late:
            self.disk.rearm(now_s)
            return []
        commands = self.disk.overdue(now_s)
        for logger in self.everyone:
            commands += self.send(logger, now_s)
        return commands

    def _state_lasts(self, logger: int, now_s: float, *, is_late: bool) -> list[Command]:
        record = self._records[logger]
        if record.state not in HAS_PROCESS:
            record.restarts += 1
            return [self.spawn(logger, now_s)]
        is_starting = record.state is State.STARTING
        within_s = record.spec.start_s if is_starting else record.spec.stop_s
        if is_late:
            self._alarms.set(Alarm(Why.STATE, logger), now_s + within_s)
            return []
        if not is_starting:
            return [KillLogger(logger, "did not end in time")]
        record.kill_cause = HANG
        why = f"not ready within {within_s:g} s"
        record.start_problem = record.start_problem or why
        return [KillLogger(logger, why, dump=True)]

    def _check_progress(self, logger: int, now_s: float, *, is_late: bool) -> list[Command]:
        record = self._records[logger]
        if not record.deliveries.window or record.state is not State.RUNNING:
            return []
        if is_late or record.deliveries.has_returned(self._started(logger)):
            record.progress_s = now_s
        due_s = record.progress_s + record.spec.hang_s
        if now_s < due_s:
            self._alarms.set(Alarm(Why.HANG, logger), due_s)
            return []
        record.kill_cause = HANG
        return [KillLogger(logger, f"no progress for {record.spec.hang_s:g} s", dump=True)]

    # The end.

    def close(self, now_s: float) -> list[Command]:
        """Ask every logger to end, the last one first."""
        commands: list[Command] = []
        self.disk.close()
        for logger in reversed(self.everyone):
            record = self._records[logger]
            end_s = record.spec.stop_s
            if not self._is_drained(logger):
                end_s = min(end_s, END_S)
            commands += self._stop(logger, now_s)
            if record.state is State.STOPPING:
                self._alarms.set(Alarm(Why.STATE, logger), now_s + end_s)
                commands.append(CloseLogger(logger))
        return commands

    def kill(self, now_s: float) -> list[Command]:
        """End every logger at once."""
        self._is_killing = True
        commands: list[Command] = []
        self.disk.close()
        for logger in reversed(self.everyone):
            if self._records[logger].state in HAS_PROCESS:
                commands.append(KillLogger(logger, "the daemon ends now"))
            commands += self._stop(logger, now_s)
        return commands

    def _stop(self, logger: int, now_s: float) -> list[Command]:
        """Take back what it was not sent; what it has, it may finish."""
        record = self._records[logger]
        for why in (Why.STATE, Why.HANG, Why.RETRY, Why.SPILL):
            self._alarms.clear(Alarm(why, logger))
        self._resume(logger)
        if record.state not in (State.STOPPING, State.STOPPED):
            record.advance(Input.STOP)
        return self._give_up(logger, now_s)

    def _give_up(self, logger: int, now_s: float) -> list[Command]:
        """What it will not get from this daemon, the next one replays, or it is dropped."""
        record = self._records[logger]
        if record.spec.on_crash == "redeliver":
            return self.disk.spill_rest(logger, now_s)
        record.deliveries.hurry_retries()
        rest = record.deliveries.waiting()
        record.deliveries.take_slots({result.slot for result in rest})
        return self.disk.bury(logger, rest, "shutdown", record.last_error)

    def check_invariants(self) -> None:
        """Assert that holds and deliveries are the same.  Looks at everything: for tests."""
        check_holds(self._slots, self._records, self.disk)
