"""The supervisor: takes note of what happened and says what is to be done about it.

It is synchronous and touches nothing outside itself: time and chance are arguments, and the words
that loggers write are read through the slot table.  A fault of a renderer becomes an order to end
that renderer; a fault of ours is an assertion, which ends the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, assert_never

from millpond.core.commands import (
    CloseLogger,
    Command,
    EndRenderer,
    Finish,
    GrantSlots,
    KillLogger,
    ReportDead,
    ReportExit,
    ReportReady,
    SendJobs,
    SpawnLogger,
    TellClosing,
    TellHolders,
)
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    LoggerSpawned,
    RendererJoined,
    RendererLeft,
    ResultsPublished,
    SlotsReturned,
    SlotWanted,
    StopNow,
    StopRequested,
    TimePassed,
)
from millpond.core.holders import describe_holders
from millpond.core.lifecycle import HAS_PROCESS, Input, State
from millpond.core.logger_record import LoggerRecord, LoggerSpec
from millpond.core.renderer_table import RendererTable
from millpond.core.slots import SlotRef, SlotTable

CLEAN_EXIT: Final = "exit(0)"


class Supervisor:
    """Slots, renderers, loggers, and the rules between them.

    Args:
        slots: The slot table, with a row for each logger.
        slot_bytes: Bytes of one slot.
        loggers: What the operator wants, in the order of starting.
        drain_s: Seconds that a stop waits for the loggers to finish.
        exit_when_done: Stop when every renderer has left and every result has its outcome.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        slots: SlotTable,
        *,
        slot_bytes: int,
        loggers: Sequence[LoggerSpec],
        drain_s: float = 10.0,
        exit_when_done: bool = False,
        chance: Callable[[], float],
    ) -> None:
        self.slots = slots
        self.loggers = [LoggerRecord(spec) for spec in loggers]
        self.renderers = RendererTable(slots, slot_bytes=slot_bytes)
        self.results_count = 0
        self.is_stopping = False
        self._everyone = tuple(range(len(loggers)))
        self._since_s = [0.0] * slots.slot_count  # When each slot was published last.
        self._drain_s = drain_s
        self._drain_deadline_s: float | None = None
        self._exit_when_done = exit_when_done
        self._is_closed = False  # The loggers were asked to end.
        self._is_finished = False
        self._chance = chance

    @property
    def wake_at_s(self) -> float | None:
        """When `TimePassed` is due, or None when nothing waits for time."""
        moments = [record.deadline_s for record in self.loggers]
        return min((s for s in [*moments, self._drain_deadline_s] if s is not None), default=None)

    def start(self, now_s: float) -> list[Command]:
        """Start every logger."""
        return [self._spawn(logger, now_s) for logger in self._everyone]

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take note of one event and say what is to be done about it, in order."""
        match event:
            case ResultsPublished(renderer, results):
                commands = self._publish(renderer, results, now_s)
            case DoorbellRang(logger):
                commands = self._collect(logger)
            case SlotsReturned(renderer, slots):
                commands = self._take_back(renderer, slots)
            case SlotWanted(renderer):
                commands = self._want(renderer, now_s)
            case RendererJoined(renderer, pid):
                commands = self._join(renderer, pid)
            case RendererLeft(renderer):
                commands = self._leave(renderer)
            case LoggerSpawned(logger, pid):
                self.loggers[logger].pid = pid
                commands = []
            case LoggerReady(logger):
                commands = self._ready(logger, now_s)
            case LoggerFailed(logger, problem):
                self.loggers[logger].start_problem = problem
                commands = []
            case LoggerRaised(logger, slot, generation, problem):
                commands = self._raised(logger, slot, generation, problem)
            case LoggerExited(logger, cause):
                commands = self._exited(logger, cause, now_s)
            case TimePassed():
                commands = self._time_passed(now_s)
            case StopRequested():
                commands = self._stop(now_s)
            case StopNow():
                commands = self._stop_now()
            case _:
                assert_never(event)
        return commands + self._conclude(now_s)

    # Renderers.

    def _join(self, renderer: int, pid: int) -> list[Command]:
        self.renderers.join(renderer, pid)
        return [TellClosing(renderer)] if self.is_stopping else self._grant()

    def _publish(self, renderer: int, results: list[Result], now_s: float) -> list[Command]:
        member = self.renderers.get(renderer)
        if member is None:
            return []  # It was ended a moment ago.
        slots = self.slots
        problem = ""
        good = results
        for count, result in enumerate(results):
            slot, generation = result.slot, result.generation
            if not slots.is_claimed(slot, generation, renderer):
                problem = f"published slot {slot} (use {generation}), which it may not write into"
            elif result.sequence != member.published + 1:
                problem = f"sent sequence {result.sequence} after {member.published}"
            if problem:
                good = results[:count]
                break
            slots.publish(slot, generation, self._everyone)
            member.published += 1
            self._since_s[slot] = now_s
        member.claimed -= len(good)
        self.results_count += len(good)
        commands: list[Command] = []
        for logger in self._everyone:
            self.loggers[logger].deliveries.admit(good)
            commands += self._send(logger)
        if problem:
            commands.append(self._end_renderer(renderer, problem))
        return commands + self._grant()

    def _take_back(self, renderer: int, slots: list[SlotRef]) -> list[Command]:
        member = self.renderers.get(renderer)
        if member is None:
            return []
        for slot, generation in slots:
            if not self.slots.is_claimed(slot, generation, renderer):
                problem = f"returned slot {slot} (use {generation}), which it does not have"
                return [self._end_renderer(renderer, problem), *self._grant()]
            self.slots.give_back(slot)
            member.claimed -= 1
        return self._grant()

    def _want(self, renderer: int, now_s: float) -> list[Command]:
        if self.renderers.get(renderer) is None:
            return []
        if self.is_stopping:
            return [TellClosing(renderer)]
        self.renderers.want(renderer)
        commands = self._grant()
        if self.renderers.is_waiting(renderer):
            text = describe_holders(
                self.loggers, self.renderers.members.values(), since_s=self._since_s, now_s=now_s
            )
            commands.append(TellHolders(renderer, text))
        return commands

    def _leave(self, renderer: int) -> list[Command]:
        return self._grant() if self.renderers.leave(renderer) else []

    def _end_renderer(self, renderer: int, problem: str) -> Command:
        self.renderers.end(renderer)
        return EndRenderer(renderer, problem)

    def _grant(self) -> list[Command]:
        if self.is_stopping:
            return []
        shortage = self.renderers.shortage
        shed = self._shed(shortage) if shortage else []
        return shed + [GrantSlots(*granted) for granted in self.renderers.grant().items()]

    def _shed(self, needed: int) -> list[Command]:
        """Take slots back from loggers that are down: renderers never wait for those."""
        broken = {n for n in self._everyone if self.loggers[n].is_broken}
        chosen: set[int] = set()
        for logger in sorted(broken):
            for result in self.loggers[logger].deliveries.queue:
                if len(chosen) >= needed:
                    break
                if broken.issuperset(self.slots.holders_of(result.slot)):
                    chosen.add(result.slot)
        commands: list[Command] = []
        for logger in sorted(broken):
            record = self.loggers[logger]
            shed = record.deliveries.take_slots(chosen)
            reason = "disabled" if record.state is State.FATAL else record.last_exit
            commands += self._bury(logger, shed, reason, f"it is down: {record.last_error}")
        return commands

    # Loggers.

    def _spawn(self, logger: int, now_s: float) -> Command:
        record = self.loggers[logger]
        record.advance(Input.SPAWN)
        record.deadline_s = now_s + record.spec.start_s
        record.start_problem = ""
        return SpawnLogger(logger)

    def _ready(self, logger: int, now_s: float) -> list[Command]:
        record = self.loggers[logger]
        if record.state is not State.STARTING or record.start_problem:
            return []  # It was asked to stop meanwhile, or killed because it took too long.
        record.advance(Input.READY)
        record.deadline_s = None
        record.ready_since_s = now_s
        return [ReportReady(logger), *self._send(logger)]

    def _send(self, logger: int) -> list[Command]:
        record = self.loggers[logger]
        if record.state is not State.RUNNING:
            return []
        moved = record.deliveries.advance()
        return [SendJobs(logger, moved)] if moved else []

    def _collect(self, logger: int) -> list[Command]:
        released = self.loggers[logger].deliveries.collect(self.slots.acks_of(logger))
        if not released:
            return []
        freed = self.slots.end_holds(logger, released)
        commands = self._send(logger)
        # What is held by none but loggers that are down now can be had too.
        return commands + self._grant() if freed or self.renderers.shortage else commands

    def _raised(self, logger: int, slot: int, generation: int, problem: str) -> list[Command]:
        record = self.loggers[logger]
        result = record.deliveries.take_one(slot, generation)
        if result is None:
            return []  # Of a use that is over.
        record.last_error = problem.strip().rpartition("\n")[2]
        commands = self._bury(logger, [result], "exception", problem)
        return commands + self._send(logger) + self._grant()

    def _exited(self, logger: int, cause: str, now_s: float) -> list[Command]:
        record = self.loggers[logger]
        # What it released before it ended counts, rung or not.
        self.slots.end_holds(logger, record.deliveries.collect(self.slots.acks_of(logger)))
        lost = record.deliveries.take_window()
        record.last_exit = cause
        if record.state is State.STOPPING:
            record.advance(Input.EXIT)
            record.deadline_s = None
            commands = self._bury(logger, lost, "shutdown", f"it ended: {cause}")
            if cause != CLEAN_EXIT:  # Its `end` may have failed: its last words may be missing.
                commands.append(ReportExit(logger, cause, None, is_fatal=False))
            return commands
        record.last_error = record.start_problem or cause
        commands = self._bury(logger, lost, cause, "")
        delay_s = record.history.record_exit(
            now_s, ready_since_s=record.ready_since_s, chance=self._chance()
        )
        record.advance(Input.GIVE_UP if delay_s is None else Input.EXIT)
        rest_s = record.spec.restart.retry_s if delay_s is None else delay_s
        record.deadline_s = now_s + rest_s
        commands.append(ReportExit(logger, cause, rest_s, is_fatal=delay_s is None))
        return commands + self._grant()

    def _bury(
        self, logger: int, results: Iterable[Result], reason: str, problem: str
    ) -> list[Command]:
        """End the holds of one logger on results that it will never get, and say so."""
        buried = list(results)
        if not buried:
            return []
        self.loggers[logger].deliveries.dead += len(buried)
        self.slots.end_holds(logger, [result.slot for result in buried])
        return [ReportDead(logger, buried, reason, problem)]

    # Time and the end.

    def _time_passed(self, now_s: float) -> list[Command]:
        is_late = self._drain_deadline_s is not None and now_s >= self._drain_deadline_s
        commands = self._close(now_s) if is_late else []
        for logger, record in enumerate(self.loggers):
            if record.deadline_s is None or now_s < record.deadline_s:
                continue
            record.deadline_s = None
            if record.state is State.STARTING:
                why = f"not ready within {record.spec.start_s:g} s"
                record.start_problem = record.start_problem or why
                commands.append(KillLogger(logger, why))
            elif record.state is State.STOPPING:
                commands.append(KillLogger(logger, f"did not end within {record.spec.stop_s:g} s"))
            else:
                record.restarts += 1
                commands.append(self._spawn(logger, now_s))
        return commands

    def _stop(self, now_s: float) -> list[Command]:
        if self.is_stopping:
            return []
        self.is_stopping = True
        self.renderers.stop_waiting()
        self._drain_deadline_s = now_s + self._drain_s
        return [TellClosing(renderer) for renderer in self.renderers.members]

    def _stop_now(self) -> list[Command]:
        self.is_stopping = self._is_closed = True
        self._drain_deadline_s = None
        commands = self._end_renderers()
        for logger in reversed(self._everyone):
            if self.loggers[logger].state in HAS_PROCESS:
                commands.append(KillLogger(logger, "the daemon ends now"))
            commands += self._stop_logger(logger)
        return commands

    def _close(self, now_s: float) -> list[Command]:
        """Ask every logger to end, the last one first."""
        self._is_closed = True
        self._drain_deadline_s = None
        commands = self._end_renderers()
        for logger in reversed(self._everyone):
            record = self.loggers[logger]
            commands += self._stop_logger(logger)
            if record.state is State.STOPPING:
                record.deadline_s = now_s + record.spec.stop_s
                commands.append(CloseLogger(logger))
        return commands

    def _end_renderers(self) -> list[Command]:
        return [self._end_renderer(renderer, "") for renderer in list(self.renderers.members)]

    def _stop_logger(self, logger: int) -> list[Command]:
        """Give up what it was not sent; what it has, it may finish."""
        record = self.loggers[logger]
        reason = "disabled" if record.state is State.FATAL else "shutdown"
        record.deadline_s = None
        if record.state not in (State.STOPPING, State.STOPPED):
            record.advance(Input.STOP)
        lost = record.deliveries.take_queue()
        return self._bury(logger, lost, reason, record.last_error)

    def _conclude(self, now_s: float) -> list[Command]:
        """See whether a stop is due, or drained, or over."""
        commands: list[Command] = []
        is_done = self._exit_when_done and self.results_count and not len(self.renderers)
        if (is_done or self.is_stopping) and not self._is_closed and self._is_drained():
            commands += self._stop(now_s) + self._close(now_s)
        if self._is_closed and not self._is_finished:
            self._is_finished = all(record.state is State.STOPPED for record in self.loggers)
            if self._is_finished:
                commands.append(Finish())
        return commands

    def _is_drained(self) -> bool:
        return all(record.is_drained for record in self.loggers)

    def check_invariants(self) -> None:
        """Assert what must be true between two events.  Looks at everything: for tests."""
        self.slots.check_invariants()
        held = [0] * self.slots.slot_count
        for logger, record in enumerate(self.loggers):
            record.deliveries.check_invariants()
            for result in (*record.deliveries.window, *record.deliveries.queue):
                assert logger in self.slots.holders_of(result.slot)
                held[result.slot] += 1
            assert record.state in HAS_PROCESS or not record.deliveries.window
        for slot, count in enumerate(held):
            assert count == len(self.slots.holders_of(slot)), "a hold without a delivery"
        self.renderers.check_invariants()
