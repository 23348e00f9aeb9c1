"""The loggers: what each is sent, when it is started again, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from millpond.core.commands import (
    CloseLogger,
    Command,
    KillLogger,
    ReportDead,
    ReportExit,
    ReportReady,
    SendJobs,
    SpawnLogger,
)
from millpond.core.deliveries import Result
from millpond.core.lifecycle import HAS_PROCESS, Input, State
from millpond.core.logger_record import LoggerRecord, LoggerSpec, brief
from millpond.core.slots import SlotTable

CLEAN_EXIT: Final = "exit(0)"
# A deadline that is seen so late was missed by us, not by the logger: the machine was paused.
LATE_S: Final = 1.0


class LoggerTable:
    """All loggers by index, and the commands that follow from what happens to them.

    Args:
        slots: The slot table, with a row for each logger.
        specs: What the operator wants, in the order of starting.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self, slots: SlotTable, specs: Sequence[LoggerSpec], *, chance: Callable[[], float]
    ) -> None:
        self.everyone = tuple(range(len(specs)))
        self._slots = slots
        self._records = [LoggerRecord(spec) for spec in specs]
        self._chance = chance

    def __getitem__(self, logger: int) -> LoggerRecord:
        """What is known of one."""
        return self._records[logger]

    def __iter__(self) -> Iterator[LoggerRecord]:
        """All of them, in the order of starting."""
        return iter(self._records)

    @property
    def wake_at_s(self) -> float | None:
        """The first moment at which one's present state has lasted too long."""
        moments = [r.deadline_s for r in self._records if r.deadline_s is not None]
        return min(moments, default=None)

    @property
    def is_drained(self) -> bool:
        """Whether a stop need not wait any longer."""
        return all(record.is_drained for record in self._records)

    @property
    def is_stopped(self) -> bool:
        """Whether none will run any more."""
        return all(record.state is State.STOPPED for record in self._records)

    def spawn(self, logger: int, now_s: float) -> Command:
        """Start one's process."""
        record = self._records[logger]
        record.advance(Input.SPAWN)
        record.deadline_s = now_s + record.spec.start_s
        record.start_problem = ""
        return SpawnLogger(logger)

    def ready(self, logger: int, now_s: float) -> list[Command]:
        """It has made its files: send it what waits."""
        record = self._records[logger]
        if record.state is not State.STARTING or record.start_problem:
            return []  # It was asked to stop meanwhile, or killed because it took too long.
        record.advance(Input.READY)
        record.deadline_s = None
        record.ready_since_s = now_s
        return [ReportReady(logger), *self._send(logger)]

    def admit(self, results: Sequence[Result]) -> list[Command]:
        """Results were published: they are for everyone."""
        commands = []
        for logger in self.everyone:
            self._records[logger].deliveries.admit(results)
            commands += self._send(logger)
        return commands

    def _send(self, logger: int) -> list[Command]:
        record = self._records[logger]
        if record.state is not State.RUNNING:
            return []
        moved = record.deliveries.advance()
        return [SendJobs(logger, moved)] if moved else []

    def collect(self, logger: int) -> list[Command]:
        """It rang: end the holds that it has released, and send it more."""
        return self._send(logger) if self._collect(logger) else []

    def _collect(self, logger: int) -> bool:
        released = self._records[logger].deliveries.collect(self._slots.acks_of(logger))
        self._slots.end_holds(logger, released)
        return bool(released)

    def raised(self, logger: int, slot: int, generation: int, problem: str) -> list[Command]:
        """`log` raised for one result."""
        record = self._records[logger]
        result = record.deliveries.take_one(slot, generation)
        if result is None:
            return []  # Of a use that is over.
        record.last_error = brief(problem)
        return self._bury(logger, [result], "exception", problem) + self._send(logger)

    def exited(self, logger: int, cause: str, now_s: float) -> list[Command]:
        """Its process was reaped: what it had not released is lost, and it is started again."""
        record = self._records[logger]
        self._collect(logger)  # What it released before it ended counts, rung or not.
        lost = record.deliveries.take_window()
        record.last_exit = cause
        if record.state is State.STOPPING:
            record.advance(Input.EXIT)
            record.deadline_s = None
            commands = self._bury(logger, lost, "shutdown", f"it ended: {cause}")
            if cause != CLEAN_EXIT:  # Its `end` may have failed: its last words may be missing.
                record.ended_badly = True
                commands.append(ReportExit(logger, cause, None, is_fatal=False))
            return commands
        record.last_error = brief(record.start_problem) or cause
        commands = self._bury(logger, lost, cause, "")
        delay_s = record.history.record_exit(
            now_s, ready_since_s=record.ready_since_s, chance=self._chance()
        )
        record.advance(Input.GIVE_UP if delay_s is None else Input.EXIT)
        rest_s = record.spec.restart.retry_s if delay_s is None else delay_s
        record.deadline_s = now_s + rest_s
        commands.append(ReportExit(logger, cause, rest_s, is_fatal=delay_s is None))
        return commands

    def shed(self, needed: int) -> list[Command]:
        """Take slots back from loggers that are down: renderers never wait for those."""
        broken = {n for n in self.everyone if self._records[n].is_broken}
        chosen: set[int] = set()
        for logger in sorted(broken):
            for result in self._records[logger].deliveries.queue:
                if len(chosen) >= needed:
                    break
                if broken.issuperset(self._slots.holders_of(result.slot)):
                    chosen.add(result.slot)
        commands: list[Command] = []
        for logger in sorted(broken):
            record = self._records[logger]
            lost = record.deliveries.take_slots(chosen)
            reason = "disabled" if record.state is State.FATAL else record.last_exit
            commands += self._bury(logger, lost, reason, f"it is down: {record.last_error}")
        return commands

    def _bury(
        self, logger: int, results: Sequence[Result], reason: str, problem: str
    ) -> list[Command]:
        """End the holds of one logger on results that it will never get, and say so."""
        if not results:
            return []
        self._records[logger].deliveries.dead += len(results)
        self._slots.end_holds(logger, [result.slot for result in results])
        return [ReportDead(logger, list(results), reason, problem)]

    def time_passed(self, now_s: float) -> list[Command]:
        """Start those whose rest is over, and end those that take too long."""
        commands: list[Command] = []
        for logger, record in enumerate(self._records):
            due_s = record.deadline_s
            if due_s is None or now_s < due_s:
                continue
            if record.state not in HAS_PROCESS:
                record.restarts += 1
                commands.append(self.spawn(logger, now_s))
                continue
            is_starting = record.state is State.STARTING
            within_s = record.spec.start_s if is_starting else record.spec.stop_s
            if now_s - due_s > LATE_S:
                record.deadline_s = now_s + within_s
                continue
            record.deadline_s = None
            why = f"{'not ready' if is_starting else 'did not end'} within {within_s:g} s"
            if is_starting:
                record.start_problem = record.start_problem or why
            commands.append(KillLogger(logger, why))
        return commands

    def close(self, now_s: float) -> list[Command]:
        """Ask every logger to end, the last one first."""
        commands: list[Command] = []
        for logger in reversed(self.everyone):
            record = self._records[logger]
            commands += self._stop(logger)
            if record.state is State.STOPPING:
                record.deadline_s = now_s + record.spec.stop_s
                commands.append(CloseLogger(logger))
        return commands

    def kill(self) -> list[Command]:
        """End every logger at once."""
        commands: list[Command] = []
        for logger in reversed(self.everyone):
            if self._records[logger].state in HAS_PROCESS:
                commands.append(KillLogger(logger, "the daemon ends now"))
            commands += self._stop(logger)
        return commands

    def _stop(self, logger: int) -> list[Command]:
        """Give up what it was not sent; what it has, it may finish."""
        record = self._records[logger]
        reason = "disabled" if record.state is State.FATAL else "shutdown"
        record.deadline_s = None
        if record.state not in (State.STOPPING, State.STOPPED):
            record.advance(Input.STOP)
        return self._bury(logger, record.deliveries.take_queue(), reason, record.last_error)

    def check_invariants(self) -> None:
        """Assert that holds and deliveries are the same.  Looks at everything: for tests."""
        held = [0] * self._slots.slot_count
        for logger, record in enumerate(self._records):
            record.deliveries.check_invariants()
            for result in (*record.deliveries.window, *record.deliveries.queue):
                assert logger in self._slots.holders_of(result.slot)
                held[result.slot] += 1
            assert record.state in HAS_PROCESS or not record.deliveries.window
        for slot, count in enumerate(held):
            assert count == len(self._slots.holders_of(slot)), "a hold without a delivery"
