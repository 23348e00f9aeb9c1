"""The supervisor: takes note of what happened and says what is to be done about it.

It is synchronous and touches nothing outside itself: time and chance are arguments, and the words
that loggers write are read through the slot table.  A fault of a renderer becomes an order to end
that renderer; a fault of ours is an assertion, which ends the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from millpond.core.alarms import Alarms
from millpond.core.commands import (
    Command,
    EndRenderer,
    Finish,
    GrantSlots,
    RecordFiltered,
    RecordPublished,
    TellClosing,
    TellHolders,
)
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    KeepingFailed,
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    LoggerSpawned,
    RendererJoined,
    RendererLeft,
    ResultsKept,
    ResultsPublished,
    ResultsReplayed,
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
from millpond.core.routes import Filter, Routes
from millpond.core.slots import SlotRef, SlotTable

# Below this part of the slots, what may go to the disk goes there ahead of need.
LOW_WATER_PART: Final = 4


class Supervisor:
    """Slots, renderers, loggers, and the rules between them.

    Args:
        slots: The slot table, with a row for each logger.
        slot_bytes: Bytes of one slot.
        loggers: What the operator wants, in the order of starting.
        teams: Which of them are processes of the same logger, as `Routes` has it; None: none are.
        filters: What each team wants, as `Routes` has it.
        drain_s: Seconds that a stop waits for the loggers to finish.
        keep_s: Seconds without any progress after which the disk no longer holds slots.
        recovered: Results of each logger that an earlier daemon left on the disk.
        exit_when_done: Stop when every renderer has left and every result has its outcome.
        is_replay: No renderer comes: only what is on the disk is delivered.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        slots: SlotTable,
        *,
        slot_bytes: int,
        loggers: Sequence[LoggerSpec],
        teams: Sequence[int] | None = None,
        filters: Mapping[int, Filter] | None = None,
        drain_s: float = 10.0,
        keep_s: float = 5.0,
        recovered: Sequence[int] = (),
        exit_when_done: bool = False,
        is_replay: bool = False,
        chance: Callable[[], float],
    ) -> None:
        self.slots = slots
        self._alarms = Alarms()
        self.loggers = LoggerTable(
            slots,
            loggers,
            alarms=self._alarms,
            slot_bytes=slot_bytes,
            keep_s=keep_s,
            recovered=recovered or [0] * len(loggers),
            chance=chance,
        )
        everyone = self.loggers.everyone
        self.routes = Routes(
            list(self.loggers), everyone if teams is None else teams, filters or {}
        )
        self._is_routed = not self.routes.are_plain
        self._low_water = slots.slot_count // LOW_WATER_PART
        self.renderers = RendererTable(slots, slot_bytes=slot_bytes)
        self.results_count = 0
        self.is_stopping = False
        self._since_s = [0.0] * slots.slot_count  # When each slot was published last.
        self._drain_s = drain_s
        self._drain_deadline_s: float | None = None
        self._exit_when_done = exit_when_done
        self._is_closed = False  # The loggers were asked to end.
        self._is_finished = False
        self._had_renderers = is_replay

    @property
    def wake_at_s(self) -> float | None:
        """When `TimePassed` is due, or None when nothing waits for time."""
        moments = (self._alarms.next_s, self._drain_deadline_s)
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
                commands = loggers.collect(logger, now_s) + self._grant(now_s)
            case SlotsReturned(renderer, slots):
                commands = self._take_back(renderer, slots, now_s)
            case SlotWanted(renderer, asks_who):
                commands = self._want(renderer, now_s, asks_who=asks_who)
            case RendererJoined(renderer, pid):
                commands = self._join(renderer, pid, now_s)
            case RendererLeft(renderer):
                commands = self._grant(now_s) if self.renderers.leave(renderer) else []
            case LoggerSpawned(logger, pid):
                loggers[logger].pid = pid
                commands = []
            case LoggerReady(logger):
                commands = loggers.ready(logger, now_s) + self._grant(now_s)
            case LoggerFailed(logger, problem, number):
                loggers[logger].start_problem, loggers[logger].start_error = problem, number
                commands = []
            case LoggerRaised():
                commands = loggers.raised(event, now_s) + self._grant(now_s)
            case LoggerExited(logger, cause, output):
                commands = loggers.exited(logger, cause, output, now_s) + self._grant(now_s)
            case ResultsKept(token):
                loggers.disk.kept(token, now_s)
                commands = self._grant(now_s)
            case KeepingFailed(token, problem):
                commands = loggers.not_kept(token, problem, now_s) + self._grant(now_s)
            case ResultsReplayed(logger, token, results, corrupt):
                commands = loggers.disk.replayed(logger, token, results, corrupt)
                for result in results:
                    self._since_s[result.slot] = now_s
                commands += loggers.send(logger, now_s) + self._grant(now_s)
            case TimePassed():
                commands = self._time_passed(now_s)
            case StopRequested():
                commands = self._stop(now_s)
            case StopNow():
                commands = self._stop_now(now_s)
            case _:
                assert_never(event)
        return commands + self._conclude(now_s)

    # Renderers.

    def _join(self, renderer: int, pid: int, now_s: float) -> list[Command]:
        self._had_renderers = True
        self.renderers.join(renderer, pid)
        return [TellClosing(renderer)] if self.is_stopping else self._grant(now_s)

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
            if not self._is_routed:
                slots.publish(slot, generation, self.loggers.everyone)
            elif holders := self.routes.route(result):
                slots.publish(slot, generation, holders)
            else:
                slots.give_back(slot)
            member.published += 1
            self._since_s[slot] = now_s
        member.claimed -= len(good)
        self.results_count += len(good)
        commands: list[Command] = [RecordPublished(good)] if good else []
        if self._is_routed:
            shares, unwanted = self.routes.take()
            commands += [RecordFiltered(team, some) for team, some in unwanted.items()]
        else:
            shares = dict.fromkeys(self.loggers.everyone, good)
        commands += self.loggers.admit(shares, now_s)
        if problem:
            commands.append(self._end_renderer(renderer, problem))
        return commands + self._grant(now_s)

    def _take_back(self, renderer: int, slots: list[SlotRef], now_s: float) -> list[Command]:
        member = self.renderers.get(renderer)
        if member is None:
            return []
        for slot, generation in slots:
            if not self.slots.is_claimed(slot, generation, renderer):
                problem = f"returned slot {slot} (use {generation}), which it does not have"
                return [self._end_renderer(renderer, problem), *self._grant(now_s)]
            self.slots.give_back(slot)
            member.claimed -= 1
        return self._grant(now_s)

    def _want(self, renderer: int, now_s: float, *, asks_who: bool) -> list[Command]:
        if self.renderers.get(renderer) is None:
            return []
        if self.is_stopping:
            return [TellClosing(renderer)]
        self.renderers.want(renderer)
        commands = self._grant(now_s)
        if asks_who and self.renderers.is_waiting(renderer):
            text = describe_holders(
                self.loggers,
                self.renderers.members.values(),
                on_disk=self.loggers.disk.busy_count,
                since_s=self._since_s,
                now_s=now_s,
            )
            commands.append(TellHolders(renderer, text))
        return commands

    def _end_renderer(self, renderer: int, problem: str) -> Command:
        self.renderers.end(renderer)
        return EndRenderer(renderer, problem)

    def _grant(self, now_s: float) -> list[Command]:
        """Give free slots to those who read from the disk, and to the renderers.

        When they run short, they are taken from loggers that nobody waits for.
        """
        disk = self.loggers.disk
        commands, starving = disk.replay()
        reserve = disk.reserve
        short = spare = 0
        if not self.is_stopping:
            # Those that cannot go on without a slot are counted for themselves.
            short = self.renderers.shortage(max(0, reserve - starving))
            spare = self._low_water + reserve - self.slots.free_count
        if starving or short or spare > 0:
            commands += disk.make_room(short, starving, spare, now_s)
        if starving and self.slots.free_count:
            commands += disk.replay()[0]
            reserve = disk.reserve
            if not self.is_stopping and (short := self.renderers.shortage(reserve)):
                # What is read back next keeps more free slots than was known before.
                commands += disk.make_room(short, 0, 0, now_s)
        if self.is_stopping:
            return commands
        return commands + [
            GrantSlots(*granted) for granted in self.renderers.grant(reserve).items()
        ]

    # Time and the end.

    def _time_passed(self, now_s: float) -> list[Command]:
        commands: list[Command] = []
        if self._drain_deadline_s is not None and now_s >= self._drain_deadline_s:
            commands = self._close(now_s)
        for alarm, due_s in self._alarms.take_due(now_s):
            commands += self.loggers.alarm(alarm, due_s, now_s)
        return commands + self._grant(now_s)

    def _stop(self, now_s: float) -> list[Command]:
        if self.is_stopping:
            return []
        self.is_stopping = True
        self.renderers.stop_waiting()
        self._drain_deadline_s = now_s + self._drain_s
        return [TellClosing(renderer) for renderer in self.renderers.members]

    def _stop_now(self, now_s: float) -> list[Command]:
        self.is_stopping = self._is_closed = True
        self._drain_deadline_s = None
        return self._end_renderers() + self.loggers.kill(now_s)

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
