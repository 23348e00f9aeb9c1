"""The supervisor: takes note of what happened and says what is to be done about it.

It is synchronous and touches nothing outside itself: time and chance are arguments, and the words
that loggers write are read through the slot table.  A fault of a renderer becomes an order to end
that renderer; a fault of ours is an assertion, which ends the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from millpond.core.commands import (
    Command,
    EndRenderer,
    Finish,
    GrantSlots,
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
from millpond.core.logger_record import LoggerSpec
from millpond.core.logger_table import LoggerTable
from millpond.core.renderer_table import RendererTable
from millpond.core.slots import SlotRef, SlotTable


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
        self.loggers = LoggerTable(slots, loggers, chance=chance)
        self.renderers = RendererTable(slots, slot_bytes=slot_bytes)
        self.results_count = 0
        self.is_stopping = False
        self._since_s = [0.0] * slots.slot_count  # When each slot was published last.
        self._drain_s = drain_s
        self._drain_deadline_s: float | None = None
        self._exit_when_done = exit_when_done
        self._is_closed = False  # The loggers were asked to end.
        self._is_finished = False
        self._had_renderers = False

    @property
    def wake_at_s(self) -> float | None:
        """When `TimePassed` is due, or None when nothing waits for time."""
        moments = (self.loggers.wake_at_s, self._drain_deadline_s)
        return min((s for s in moments if s is not None), default=None)

    def start(self, now_s: float) -> list[Command]:
        """Start every logger."""
        return [self.loggers.spawn(logger, now_s) for logger in self.loggers.everyone]

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take note of one event and say what is to be done about it, in order."""
        loggers = self.loggers
        match event:
            case ResultsPublished(renderer, results):
                commands = self._publish(renderer, results, now_s)
            case DoorbellRang(logger):
                commands = loggers.collect(logger) + self._grant()
            case SlotsReturned(renderer, slots):
                commands = self._take_back(renderer, slots)
            case SlotWanted(renderer, asks_who):
                commands = self._want(renderer, now_s, asks_who=asks_who)
            case RendererJoined(renderer, pid):
                commands = self._join(renderer, pid)
            case RendererLeft(renderer):
                commands = self._grant() if self.renderers.leave(renderer) else []
            case LoggerSpawned(logger, pid):
                loggers[logger].pid = pid
                commands = []
            case LoggerReady(logger):
                commands = loggers.ready(logger, now_s)
            case LoggerFailed(logger, problem):
                loggers[logger].start_problem = problem
                commands = []
            case LoggerRaised(logger, slot, generation, problem):
                commands = loggers.raised(logger, slot, generation, problem) + self._grant()
            case LoggerExited(logger, cause):
                commands = loggers.exited(logger, cause, now_s) + self._grant()
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
        self._had_renderers = True
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
            slots.publish(slot, generation, self.loggers.everyone)
            member.published += 1
            self._since_s[slot] = now_s
        member.claimed -= len(good)
        self.results_count += len(good)
        commands = self.loggers.admit(good)
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

    def _want(self, renderer: int, now_s: float, *, asks_who: bool) -> list[Command]:
        if self.renderers.get(renderer) is None:
            return []
        if self.is_stopping:
            return [TellClosing(renderer)]
        self.renderers.want(renderer)
        commands = self._grant()
        if asks_who and self.renderers.is_waiting(renderer):
            text = describe_holders(
                self.loggers, self.renderers.members.values(), since_s=self._since_s, now_s=now_s
            )
            commands.append(TellHolders(renderer, text))
        return commands

    def _end_renderer(self, renderer: int, problem: str) -> Command:
        self.renderers.end(renderer)
        return EndRenderer(renderer, problem)

    def _grant(self) -> list[Command]:
        """Give free slots away; for those who wait, take them from loggers that are down."""
        if self.is_stopping:
            return []
        shortage = self.renderers.shortage
        shed = self.loggers.shed(shortage) if shortage else []
        return shed + [GrantSlots(*granted) for granted in self.renderers.grant().items()]

    # Time and the end.

    def _time_passed(self, now_s: float) -> list[Command]:
        is_late = self._drain_deadline_s is not None and now_s >= self._drain_deadline_s
        commands = self._close(now_s) if is_late else []
        return commands + self.loggers.time_passed(now_s)

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
        return self._end_renderers() + self.loggers.kill()

    def _close(self, now_s: float) -> list[Command]:
        self._is_closed = True
        self._drain_deadline_s = None
        return self._end_renderers() + self.loggers.close(now_s)

    def _end_renderers(self) -> list[Command]:
        return [self._end_renderer(renderer, "") for renderer in list(self.renderers.members)]

    def _conclude(self, now_s: float) -> list[Command]:
        """See whether a stop is due, or drained, or over."""
        commands: list[Command] = []
        is_done = self._exit_when_done and self._had_renderers and not len(self.renderers)
        if (is_done or self.is_stopping) and not self._is_closed and self.loggers.is_drained:
            commands += self._stop(now_s) + self._close(now_s)
        if self._is_closed and not self._is_finished:
            self._is_finished = self.loggers.is_stopped
            if self._is_finished:
                commands.append(Finish())
        return commands

    def check_invariants(self) -> None:
        """Assert what must be true between two events.  Looks at everything: for tests."""
        self.slots.check_invariants()
        self.loggers.check_invariants()
        self.renderers.check_invariants()
