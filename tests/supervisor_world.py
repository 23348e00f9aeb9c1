"""The world around a supervisor, as a model: renderers, loggers, and the shell between them.

It obeys the commands and keeps its own books, which share no code with the core.  Whatever does
not agree with the books is an assertion.  The moves are made by the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from millpond.core import commands as do
from millpond.core import events as on
from millpond.core.deliveries import Result
from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import RestartPolicy
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

DRAIN_S = 10.0
START_S = 60.0
LATE_S = 1.0
DELAY_S_MAX = 30.0


@dataclass
class Writer:
    """A renderer, as the model sees it."""

    claims: list[SlotRef] = field(default_factory=list)
    sequence: int = 0
    waits: bool = False
    is_ended: bool = False


@dataclass
class Reader:
    """A logger, as the model sees it; `queue` and `window` hold uses of slots, in order."""

    window_max: int
    ack: list[int]
    queue: list[SlotRef] = field(default_factory=list)
    window: list[SlotRef] = field(default_factory=list)
    outcomes: dict[SlotRef, str] = field(default_factory=dict)
    phase: str = "none"  # "none", "starting" or "ready": what its process does.
    started_s: float = 0.0
    is_killed: bool = False
    is_closing: bool = False
    is_fatal: bool = False
    last_cause: str = ""

    @property
    def is_down(self) -> bool:
        return bool(self.last_cause) and self.phase != "ready"

    def settle(self, ref: SlotRef, outcome: str) -> None:
        assert ref not in self.outcomes, "a result has one outcome"
        (self.window if ref in self.window else self.queue).remove(ref)
        self.outcomes[ref] = outcome

    def settle_released(self) -> None:
        for ref in [ref for ref in self.window if self.ack[ref.slot] == ref.generation]:
            self.settle(ref, "delivered")


class World:
    """Everything around the supervisor.

    Args:
        slot_count: How many slots there are.
        windows: The window of each logger.
        slot_bytes: Bytes of one slot.
        intensity: Exits of one logger that are borne.
        exit_when_done: As for the supervisor.
    """

    def __init__(
        self,
        slot_count: int,
        windows: Sequence[int],
        *,
        slot_bytes: int,
        intensity: int,
        exit_when_done: bool,
    ) -> None:
        self.slot_count = slot_count
        self.exit_when_done = exit_when_done
        self.loggers = [Reader(window_max, [0] * slot_count) for window_max in windows]
        self.renderers: dict[int, Writer] = {}
        self.joined_count = 0
        self.last_generation = [0] * slot_count
        self.published: list[SlotRef] = []
        self.now_s = 1000.0
        self.is_sound = False  # Whether the last event agreed with the books.
        self.is_stopping = self.is_closed = self.is_finished = False
        self.drain_deadline_s = float("inf")
        self.event: on.Event | None = None
        self.is_fault_expected = False
        self.is_shedding = self.is_giving_up = False
        restart = RestartPolicy(intensity=intensity, delay_s_max=DELAY_S_MAX)
        self.supervisor = Supervisor(
            SlotTable(
                slot_count,
                want=[[0] * slot_count for _ in windows],
                ack=[logger.ack for logger in self.loggers],
            ),
            slot_bytes=slot_bytes,
            loggers=[
                LoggerSpec(f"l{n}", window_max=window_max, start_s=START_S, restart=restart)
                for n, window_max in enumerate(windows)
            ],
            drain_s=DRAIN_S,
            exit_when_done=exit_when_done,
            chance=lambda: 0.5,
        )
        self.obey(self.supervisor.start(self.now_s))

    # What renderers do.

    def join(self) -> None:
        self.joined_count += 1
        self.renderers[self.joined_count] = Writer()
        self.feed(on.RendererJoined(self.joined_count, pid=self.joined_count))

    def want(self, renderer: int) -> None:
        writer = self.renderers[renderer]
        writer.waits = not (writer.is_ended or self.is_stopping)
        self.feed(on.SlotWanted(renderer))

    def publish(self, renderer: int, refs: list[SlotRef], **fault: int) -> None:
        """Several results, the last of which may be wrong; nothing is taken after that."""
        writer = self.renderers[renderer]
        results = []
        for sequence, ref in enumerate(refs, writer.sequence + 1):
            result = Result(*ref, renderer, sequence, f"{renderer}-{sequence}", b"frame")
            results.append(result)
        if fault:
            results[-1] = results[-1]._replace(**fault)
            refs = refs[:-1]
        if not writer.is_ended:
            writer.claims = [ref for ref in writer.claims if ref not in refs]
            writer.sequence += len(refs)
            self.published += refs
            for reader in self.loggers:
                reader.queue += refs
        self.feed(on.ResultsPublished(renderer, results))

    def give_back(self, renderer: int, refs: list[SlotRef], *wrong: SlotRef) -> None:
        writer = self.renderers[renderer]
        if not writer.is_ended:
            writer.claims = [ref for ref in writer.claims if ref not in refs]
        self.feed(on.SlotsReturned(renderer, [*refs, *wrong]))

    def leave(self, renderer: int) -> None:
        del self.renderers[renderer]
        self.feed(on.RendererLeft(renderer))

    @contextmanager
    def fault_of(self, renderer: int) -> Iterator[None]:
        """Such a fault ends this renderer, and only once."""
        self.is_fault_expected = not self.renderers[renderer].is_ended
        yield
        assert self.renderers[renderer].is_ended
        self.is_fault_expected = False

    # What loggers do.

    def make_ready(self, logger: int) -> None:
        reader = self.loggers[logger]
        if not (reader.is_killed or reader.is_closing):
            reader.phase = "ready"
        self.feed(on.LoggerReady(logger))

    def ring(self, logger: int) -> None:
        self.loggers[logger].settle_released()
        self.feed(on.DoorbellRang(logger))

    def end(self, logger: int, cause: str) -> None:
        reader = self.loggers[logger]
        reader.settle_released()
        reader.phase, reader.last_cause = "none", cause
        self.feed(on.LoggerExited(logger, cause))
        assert not reader.window
        assert self.is_closed or self.supervisor.wake_at_s is not None

    def release_all(self) -> None:
        for logger, reader in enumerate(self.loggers):
            for ref in reader.window:
                reader.ack[ref.slot] = ref.generation
            self.ring(logger)

    # Time and the end.

    def wait(self, passed_s: float | None) -> None:
        """Let time pass, or whatever the supervisor waits for when it is None."""
        wake_at_s = self.supervisor.wake_at_s
        if passed_s is None:
            passed_s = 0.0 if wake_at_s is None else max(0.0, wake_at_s - self.now_s)
        self.now_s += passed_s
        self.feed(on.TimePassed())
        assert self.supervisor.wake_at_s is None or self.supervisor.wake_at_s > self.now_s
        for reader in self.loggers:
            late_s = self.now_s - (reader.started_s + START_S)
            if reader.phase == "starting" and late_s > LATE_S:
                reader.started_s = self.now_s  # The machine was paused.
            elif reader.phase == "starting" and late_s >= 0:
                assert reader.is_killed or reader.is_closing

    def stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self.drain_deadline_s = self.now_s + DRAIN_S
        self.feed(on.StopRequested())

    def stop_now(self) -> None:
        self.is_stopping = self.is_closed = True
        self.feed(on.StopNow())
        assert all(reader.is_killed for reader in self.loggers if reader.phase != "none")

    def settle_a_little(self) -> None:
        """Let everybody do his work; when there is no more, stop."""
        self.release_all()
        for logger, reader in enumerate(self.loggers):
            if reader.phase != "none" and (reader.is_killed or reader.is_closing):
                self.end(logger, "exit(0)")
            elif reader.phase == "starting":
                self.make_ready(logger)
        if not all(reader.phase == "ready" for reader in self.loggers) and not self.is_finished:
            self.wait(None)
        elif not any(reader.queue or reader.window for reader in self.loggers):
            assert self.free_slots() == set(range(self.slot_count))
            self.stop()

    # The shell.

    def feed(self, event: on.Event) -> None:
        """Let an event happen, obey, and look at the books."""
        self.event = event
        self.is_sound = False
        self.is_shedding = self.is_giving_up = False
        self.obey(self.supervisor.handle(event, self.now_s))
        self.check()
        self.is_sound = True

    def obey(self, commands: list[do.Command]) -> None:
        spawned = []
        for command in commands:
            assert not self.is_finished or isinstance(command, do.TellClosing | do.EndRenderer)
            match command:
                case do.GrantSlots(renderer, refs):
                    self.grant(self.renderers[renderer], refs)
                case do.TellHolders(renderer, text):
                    assert self.renderers[renderer].waits
                    assert text
                case do.TellClosing(renderer):
                    assert self.is_stopping
                    assert not self.renderers[renderer].is_ended or self.is_closed
                    self.renderers[renderer].waits = False
                case do.EndRenderer(renderer, problem):
                    writer = self.renderers[renderer]
                    assert not writer.is_ended, "a renderer is ended once"
                    assert bool(problem) == self.is_fault_expected
                    writer.is_ended = True
                    writer.waits = False
                case do.SendJobs(logger, results):
                    self.send(self.loggers[logger], results)
                case do.ReportDead(logger, results, reason, _):
                    self.bury(logger, results, reason)
                case do.Finish():
                    self.is_finished = True
                case _:
                    spawned += self.obey_about_processes(command)
        for logger in spawned:
            self.feed(on.LoggerSpawned(logger, pid=4000 + logger))

    def obey_about_processes(self, command: do.Command) -> list[int]:
        reader = self.loggers[command.logger]
        match command:
            case do.SpawnLogger(logger):
                assert reader.phase == "none"
                assert not self.is_closed
                reader.phase, reader.started_s = "starting", self.now_s
                reader.is_killed = reader.is_fatal = False
                return [logger]
            case do.CloseLogger():
                assert reader.phase != "none"
                assert not reader.is_closing
                reader.is_closing = True
            case do.KillLogger(_, why):
                assert reader.phase != "none"
                assert why
                reader.is_killed = True
            case do.ReportReady():
                assert reader.phase == "ready"
                assert not reader.is_killed
            case do.ReportExit(_, cause, restart_s, is_fatal):
                assert isinstance(self.event, on.LoggerExited)
                assert cause == reader.last_cause
                if restart_s is None:
                    assert reader.is_closing or reader.is_killed, "it ended badly at the end"
                else:
                    assert is_fatal or 0 < restart_s <= DELAY_S_MAX * 1.2
                reader.is_fatal = is_fatal
        return []

    def grant(self, writer: Writer, refs: list[SlotRef]) -> None:
        assert refs
        assert not self.is_stopping
        assert not writer.is_ended
        for ref in refs:
            assert ref.slot in self.free_slots(), "a slot is granted that somebody holds"
            assert ref.generation > self.last_generation[ref.slot]
            self.last_generation[ref.slot] = ref.generation
            writer.claims.append(ref)
        writer.waits = False

    def send(self, reader: Reader, results: list[Result]) -> None:
        refs = [SlotRef(result.slot, result.generation) for result in results]
        assert reader.phase == "ready"
        assert (reader.is_killed, reader.is_closing) == (False, False)
        assert refs == reader.queue[: len(refs)], "first in, first out"
        del reader.queue[: len(refs)]
        reader.window += refs
        assert 0 < len(reader.window) <= reader.window_max

    def bury(self, logger: int, results: list[Result], reason: str) -> None:
        """A result dies only for a cause: it was in hand at a death, was blamed, or must go."""
        reader = self.loggers[logger]
        is_awaited = any(writer.waits for writer in self.renderers.values())
        for result in results:
            ref = SlotRef(result.slot, result.generation)
            if ref in reader.queue:
                assert reason == "shutdown" or reader.is_down
                if reason == "shutdown":
                    assert self.is_stopping
                    self.is_giving_up = True
                elif is_awaited and not self.is_stopping:
                    assert reason == ("disabled" if reader.is_fatal else reader.last_cause)
                    assert ref.slot in self.slots_of_broken(), "it is shed, and nobody gains by it"
                    self.is_shedding = True
                else:
                    assert reason == "disabled"
                    self.is_giving_up = True
            elif isinstance(self.event, on.LoggerExited):
                assert self.event.logger == logger
                assert reason == ("shutdown" if self.is_closed else reader.last_cause)
            else:
                assert isinstance(self.event, on.LoggerRaised)
                assert (self.event.logger, self.event.slot) == (logger, ref.slot)
                assert reason == "exception"
            reader.settle(ref, f"dead: {reason}")

    # The books.

    def free_slots(self) -> set[int]:
        held = {ref.slot for writer in self.renderers.values() for ref in writer.claims}
        for reader in self.loggers:
            held |= {ref.slot for ref in reader.queue + reader.window}
        return set(range(self.slot_count)) - held

    def slots_of_broken(self) -> set[int]:
        """Slots that nobody needs but loggers which are down."""
        needed = {ref.slot for writer in self.renderers.values() for ref in writer.claims}
        for reader in self.loggers:
            if not reader.is_down:
                needed |= {ref.slot for ref in reader.queue + reader.window}
        return set(range(self.slot_count)) - needed

    def is_drained(self) -> bool:
        return all(r.is_fatal or not (r.queue or r.window) for r in self.loggers)

    def note_end(self) -> None:
        """Find out, without asking the supervisor, whether it should be stopping now."""
        connected = [writer for writer in self.renderers.values() if not writer.is_ended]
        if self.exit_when_done and self.joined_count and not connected and self.is_drained():
            self.is_stopping = True
        if self.is_stopping:
            is_late = isinstance(self.event, on.TimePassed) and self.now_s >= self.drain_deadline_s
            self.is_closed |= self.is_drained() or is_late

    def check(self) -> None:
        supervisor = self.supervisor
        supervisor.check_invariants()
        self.note_end()
        assert supervisor.is_stopping == self.is_stopping
        free = self.free_slots()
        assert supervisor.slots.free_count == len(free)
        if any(writer.waits for writer in self.renderers.values()) and not self.is_stopping:
            assert not self.slots_of_broken(), "a renderer waits although a slot is to be had"
        assert not (self.is_shedding and free), "results were shed for slots that nobody takes"
        assert not self.is_giving_up or self.is_closed
        for reader, record in zip(self.loggers, supervisor.loggers, strict=True):
            told = record.statistics()
            dead = sum(outcome != "delivered" for outcome in reader.outcomes.values())
            assert told["published"] == len(self.published)
            assert told["delivered"] == len(reader.outcomes) - dead
            assert told["dead"] == dead
            assert told["queued"] == len(reader.queue)
            assert told["in_window"] == len(reader.window)
            assert reader.phase != "none" or not reader.window
            if reader.phase == "ready" and not (self.is_closed or reader.is_killed):
                assert not reader.queue or len(reader.window) == reader.window_max
        if self.is_closed:
            assert all(writer.is_ended or not writer.claims for writer in self.renderers.values())
            assert self.is_finished == all(reader.phase == "none" for reader in self.loggers)
