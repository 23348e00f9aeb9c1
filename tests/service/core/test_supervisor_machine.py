"""Any order of events: the supervisor against a model of its world that shares no code with it.

The model plays the shell: it is told the commands, obeys them, and keeps its own books.  Loggers
write their words as they like, also wrongly, late and after their death.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from millpond.core import commands as do
from millpond.core import events as on
from millpond.core.deliveries import Result
from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import RestartPolicy
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

DRAIN_S = 10.0
START_S = 60.0
DELAY_S_MAX = 30.0
SETTLING_ROUNDS = 500


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


def has_claims(world: World) -> bool:
    return any(writer.claims for writer in world.renderers.values())


def may_do_wrong(world: World) -> bool:
    return world.may_do_wrong and has_claims(world)


class World(RuleBasedStateMachine):
    """Renderers, loggers and the shell between them and the supervisor."""

    is_sound = False

    @initialize(
        slot_count=st.integers(1, 12),
        windows=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        data=st.data(),
    )
    def open(self, slot_count, windows, data):
        def sometimes(name: str) -> bool:
            return data.draw(st.sampled_from([False, False, True]), label=name)

        self.slot_count = slot_count
        self.exit_when_done = sometimes("exit when done")
        self.may_stop = sometimes("may stop")
        self.may_do_wrong = sometimes("renderers may do wrong")
        self.loggers = [Reader(window_max, [0] * slot_count) for window_max in windows]
        self.renderers: dict[int, Writer] = {}
        self.joined_count = 0
        self.last_generation = [0] * slot_count
        self.published: list[SlotRef] = []
        self.now_s = 1000.0
        self.is_stopping = self.is_closed = self.is_finished = False
        self.drain_deadline_s = float("inf")
        self.event: on.Event | None = None
        self.is_fault_expected = False
        self.is_shedding = self.is_giving_up = False
        intensity = data.draw(st.integers(0, 3), label="intensity")
        restart = RestartPolicy(intensity=intensity, delay_s_max=DELAY_S_MAX)
        self.supervisor = Supervisor(
            SlotTable(
                slot_count,
                want=[[0] * slot_count for _ in windows],
                ack=[logger.ack for logger in self.loggers],
            ),
            slot_bytes=data.draw(st.sampled_from([4096, 2**21]), label="slot_bytes"),
            loggers=[
                LoggerSpec(f"l{n}", window_max=window_max, start_s=START_S, restart=restart)
                for n, window_max in enumerate(windows)
            ],
            drain_s=DRAIN_S,
            exit_when_done=self.exit_when_done,
            chance=lambda: 0.5,
        )
        self.obey(self.supervisor.start(self.now_s))
        for _ in range(data.draw(st.integers(1, 3), label="renderers")):
            self.renderer_joins()
        if not sometimes("loggers start slowly"):
            for logger in range(len(windows)):
                self.make_ready(logger)

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
        assert not reader.is_killed
        assert not reader.is_closing
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
        if self.exit_when_done and self.published and not connected and self.is_drained():
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

    # Renderers.

    def some_renderer(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.renderers)), label="renderer")

    @rule()
    def renderer_joins(self):
        self.joined_count += 1
        self.renderers[self.joined_count] = Writer()
        self.feed(on.RendererJoined(self.joined_count, pid=self.joined_count))

    @precondition(lambda self: self.renderers)
    @rule(data=st.data())
    def renderer_wants(self, data):
        self.want(self.some_renderer(data))

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

    def some_claims(self, data: st.DataObject) -> tuple[int, list[SlotRef]]:
        renderer = data.draw(st.sampled_from([r for r, w in self.renderers.items() if w.claims]))
        refs = data.draw(st.permutations(self.renderers[renderer].claims))
        return renderer, refs[: data.draw(st.integers(1, len(refs)))]

    @precondition(has_claims)
    @rule(data=st.data())
    def renderer_publishes(self, data):
        self.publish(*self.some_claims(data))

    @rule()
    def renderers_publish_all_and_want_more(self):
        for renderer, writer in self.renderers.items():
            if writer.claims:
                self.publish(renderer, list(writer.claims))
            self.want(renderer)

    @precondition(may_do_wrong)
    @rule(data=st.data(), name=st.sampled_from(["slot", "generation", "sequence"]))
    def renderer_publishes_wrongly(self, data, name):
        renderer, refs = self.some_claims(data)
        sequence = self.renderers[renderer].sequence + len(refs)
        wrong = {
            "slot": [-1, self.slot_count, 2**32 - 1],
            "generation": [refs[-1].generation - 1, refs[-1].generation + 1],
            "sequence": [sequence - 1, sequence + 1],
        }
        with self.fault_of(renderer):
            self.publish(renderer, refs, **{name: data.draw(st.sampled_from(wrong[name]))})

    @precondition(may_do_wrong)
    @rule(data=st.data())
    def renderer_publishes_twice(self, data):
        renderer, refs = self.some_claims(data)
        with self.fault_of(renderer):
            self.publish(
                renderer,
                [*refs, refs[0]],
                sequence=self.renderers[renderer].sequence + len(refs) + 1,
            )

    def give_back(self, renderer: int, refs: list[SlotRef], *wrong: SlotRef) -> None:
        writer = self.renderers[renderer]
        if not writer.is_ended:
            writer.claims = [ref for ref in writer.claims if ref not in refs]
        self.feed(on.SlotsReturned(renderer, [*refs, *wrong]))

    @precondition(has_claims)
    @rule(data=st.data())
    def renderer_returns(self, data):
        self.give_back(*self.some_claims(data))

    @precondition(may_do_wrong)
    @rule(data=st.data())
    def renderer_returns_wrongly(self, data):
        """Another's slot, an unknown one, or one of its own for the second time."""
        renderer, refs = self.some_claims(data)
        slot = data.draw(st.integers(0, self.slot_count))
        wrong = data.draw(st.sampled_from([refs[0], SlotRef(slot, 0)]))
        with self.fault_of(renderer):
            self.give_back(renderer, refs, wrong)

    @contextmanager
    def fault_of(self, renderer: int) -> Iterator[None]:
        """Such a fault ends this renderer, and only once."""
        self.is_fault_expected = not self.renderers[renderer].is_ended
        yield
        assert self.renderers[renderer].is_ended
        self.is_fault_expected = False

    @precondition(lambda self: len(self.renderers) > 1)
    @rule(data=st.data(), is_twice=st.booleans())
    def renderer_leaves(self, data, is_twice):
        renderer = self.some_renderer(data)
        del self.renderers[renderer]
        for _ in range(1 + is_twice):
            self.feed(on.RendererLeft(renderer))

    # Loggers.

    def some_logger(self, data: st.DataObject, *phases: str) -> int:
        fitting = [n for n, r in enumerate(self.loggers) if not phases or r.phase in phases]
        return data.draw(st.sampled_from(fitting), label="logger")

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

    @precondition(lambda self: any(reader.phase == "starting" for reader in self.loggers))
    @rule(data=st.data())
    def logger_is_ready(self, data):
        self.make_ready(self.some_logger(data, "starting"))

    @precondition(lambda self: any(reader.phase == "starting" for reader in self.loggers))
    @rule(data=st.data())
    def logger_fails(self, data):
        logger = self.some_logger(data, "starting")
        self.feed(on.LoggerFailed(logger, "ImportError: no module named 'x'"))
        self.end(logger, "exit(1)")

    @precondition(lambda self: any(reader.phase != "none" for reader in self.loggers))
    @rule(data=st.data(), cause=st.sampled_from(["crash(SIGSEGV)", "exit(0)"]))
    def logger_ends(self, data, cause):
        self.end(self.some_logger(data, "starting", "ready"), cause)

    @precondition(lambda self: any(reader.window for reader in self.loggers))
    @rule(data=st.data(), is_rung=st.booleans())
    def logger_releases(self, data, is_rung):
        """In any order, some of what it has; it may die before it rings."""
        logger = data.draw(st.sampled_from([n for n, r in enumerate(self.loggers) if r.window]))
        reader = self.loggers[logger]
        for ref in data.draw(st.lists(st.sampled_from(reader.window), min_size=1)):
            reader.ack[ref.slot] = ref.generation
        if is_rung:
            self.ring(logger)

    @rule()
    def loggers_release_all(self):
        for logger, reader in enumerate(self.loggers):
            for ref in reader.window:
                reader.ack[ref.slot] = ref.generation
            self.ring(logger)

    @rule(data=st.data(), is_rung=st.booleans())
    def stray_write(self, data, is_rung):
        """A late, double or wrong release, also by a helper that outlived the logger."""
        logger = self.some_logger(data)
        slot = data.draw(st.integers(0, self.slot_count - 1))
        self.loggers[logger].ack[slot] = data.draw(st.integers(0, self.last_generation[slot] + 1))
        if is_rung:
            self.ring(logger)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def logger_raises(self, data):
        logger = self.some_logger(data)
        reader = self.loggers[logger]
        ref = data.draw(st.sampled_from(reader.window or self.published))
        is_blamed = ref in reader.window
        self.feed(on.LoggerRaised(logger, *ref, "Traceback ...\nValueError: no"))
        assert not is_blamed or reader.outcomes[ref] == "dead: exception"

    # Time and the end.

    @rule(passed_s=st.sampled_from([None, 0.0, 0.05, 1.0, 70.0]))
    def time_passes(self, passed_s):
        wake_at_s = self.supervisor.wake_at_s
        if passed_s is None:
            passed_s = max(0.0, wake_at_s - self.now_s) if wake_at_s is not None else 0.0
        self.now_s += passed_s
        self.feed(on.TimePassed())
        assert self.supervisor.wake_at_s is None or self.supervisor.wake_at_s > self.now_s
        for reader in self.loggers:
            if reader.phase == "starting" and self.now_s >= reader.started_s + START_S:
                assert reader.is_killed or reader.is_closing

    @precondition(lambda self: self.may_stop)
    @rule()
    def stop(self):
        if not self.is_stopping:
            self.is_stopping = True
            self.drain_deadline_s = self.now_s + DRAIN_S
        self.feed(on.StopRequested())

    @precondition(lambda self: self.is_stopping)
    @rule()
    def stop_now(self):
        self.is_stopping = self.is_closed = True
        self.feed(on.StopNow())
        assert all(reader.is_killed for reader in self.loggers if reader.phase != "none")

    def teardown(self):
        """Let everybody do his work: then every result has its outcome, and it is over."""
        if not self.is_sound:
            return  # It was found wrong already; what follows would be noise.
        for renderer in list(self.renderers):
            del self.renderers[renderer]
            self.feed(on.RendererLeft(renderer))
        for _ in range(SETTLING_ROUNDS):
            if self.is_finished:
                break
            self.settle_a_little()
        assert self.is_finished
        assert self.supervisor.wake_at_s is None
        assert self.free_slots() == set(range(self.slot_count))
        for reader in self.loggers:
            assert reader.outcomes.keys() == set(self.published)

    def settle_a_little(self) -> None:
        self.loggers_release_all()
        for logger, reader in enumerate(self.loggers):
            if reader.phase != "none" and (reader.is_killed or reader.is_closing):
                self.end(logger, "exit(0)")
            elif reader.phase == "starting":
                self.make_ready(logger)
        if not all(reader.phase == "ready" for reader in self.loggers) and not self.is_finished:
            self.time_passes(None)
        elif not any(reader.queue or reader.window for reader in self.loggers):
            assert self.free_slots() == set(range(self.slot_count))
            self.stop()


test_any_order_of_events_keeps_the_books = pytest.mark.filterwarnings("error")(World.TestCase)
World.TestCase.settings = settings(
    max_examples=400,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
