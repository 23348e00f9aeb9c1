"""Any order of events: the supervisor in a world whose parts do what they like.

Loggers write their words also wrongly, late and after their death; renderers publish what they
may not; the disk fails, loses, or does not answer; everybody comes and goes.  Some loggers are
several processes, some want only a part, and some keep slots: those tell the truth about it.  After
each event the books of the world must agree.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from supervisor_books import DISK_ERRORS
from supervisor_strategies import POISON, TEAMS
from supervisor_world import World

from millpond.core import events as on
from millpond.core.slots import SlotRef

SETTLING_ROUNDS = 500
KEPT_MAX = 2  # Of a logger that keeps slots and works as it should.


def has_claims(self: Moves) -> bool:
    return any(writer.claims for writer in self.world.renderers.values())


def may_do_wrong(self: Moves) -> bool:
    return self.may_do_wrong and has_claims(self)


def has_window(self: Moves) -> bool:
    return any(reader.window for reader in self.world.loggers)


def has_keepers(self: Moves) -> bool:
    return any(reader.keeps_slots and reader.window for reader in self.world.loggers)


def is_any(*phases: str):
    return lambda self: any(reader.phase in phases for reader in self.world.loggers)


class Moves(RuleBasedStateMachine):
    """What may happen in the world."""

    world: World | None = None

    @initialize(
        slot_count=st.integers(1, 20),
        specs=st.lists(TEAMS, min_size=1, max_size=3),
        data=st.data(),
    )
    def open(self, slot_count, specs, data):
        def sometimes(name: str) -> bool:
            return data.draw(st.sampled_from([False, False, True]), label=name)

        self.may_stop = sometimes("may stop")
        self.may_do_wrong = sometimes("renderers may do wrong")
        self.poison = data.draw(POISON, label="poison")
        self.world = World(
            slot_count,
            specs,
            slot_bytes=data.draw(st.sampled_from([4096, 2**21, 2**24]), label="slot_bytes"),
            exit_when_done=sometimes("exit when done"),
        )
        for _ in range(data.draw(st.integers(1, 3), label="renderers")):
            self.world.join()
        if not sometimes("loggers start slowly"):
            for logger in range(len(self.world.loggers)):
                self.world.make_ready(logger)

    # Renderers.

    def some_renderer(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.world.renderers)), label="renderer")

    @rule()
    def renderer_joins(self):
        self.world.join()

    @precondition(lambda self: self.world.renderers)
    @rule(data=st.data())
    def renderer_wants(self, data):
        self.world.want(self.some_renderer(data))

    @precondition(has_claims)
    @rule(data=st.data())
    def renderer_publishes(self, data):
        self.world.publish(*self.some_claims(data))

    @rule()
    def renderers_publish_all_and_want_more(self):
        for renderer, writer in self.world.renderers.items():
            if writer.claims:
                self.world.publish(renderer, list(writer.claims))
            self.world.want(renderer)

    @precondition(may_do_wrong)
    @rule(data=st.data(), name=st.sampled_from(["slot", "generation", "sequence"]))
    def renderer_publishes_wrongly(self, data, name):
        renderer, refs = self.some_claims(data)
        sequence = self.world.renderers[renderer].sequence + len(refs)
        wrong = {
            "slot": [-1, self.world.slot_count, 2**32 - 1],
            "generation": [refs[-1].generation - 1, refs[-1].generation + 1],
            "sequence": [sequence - 1, sequence + 1],
        }
        with self.world.fault_of(renderer):
            self.world.publish(renderer, refs, **{name: data.draw(st.sampled_from(wrong[name]))})

    @precondition(may_do_wrong)
    @rule(data=st.data())
    def renderer_publishes_twice(self, data):
        renderer, refs = self.some_claims(data)
        with self.world.fault_of(renderer):
            self.world.publish(
                renderer,
                [*refs, refs[0]],
                sequence=self.world.renderers[renderer].sequence + len(refs) + 1,
            )

    @precondition(has_claims)
    @rule(data=st.data())
    def renderer_returns(self, data):
        self.world.give_back(*self.some_claims(data))

    @precondition(may_do_wrong)
    @rule(data=st.data())
    def renderer_returns_wrongly(self, data):
        """Another's slot, an unknown one, or one of its own for the second time."""
        renderer, refs = self.some_claims(data)
        slot = data.draw(st.integers(0, self.world.slot_count))
        wrong = data.draw(st.sampled_from([refs[0], SlotRef(slot, 0)]))
        with self.world.fault_of(renderer):
            self.world.give_back(renderer, refs, wrong)

    @precondition(lambda self: len(self.world.renderers) > 1)
    @rule(data=st.data(), is_twice=st.booleans())
    def renderer_leaves(self, data, is_twice):
        renderer = self.some_renderer(data)
        self.world.leave(renderer)
        if is_twice:
            self.world.feed(on.RendererLeft(renderer))

    def some_claims(self, data: st.DataObject) -> tuple[int, list[SlotRef]]:
        renderer = data.draw(
            st.sampled_from([r for r, w in self.world.renderers.items() if w.claims])
        )
        refs = data.draw(st.permutations(self.world.renderers[renderer].claims))
        return renderer, refs[: data.draw(st.integers(1, len(refs)))]

    # Loggers.

    def some_logger(self, data: st.DataObject, *phases: str) -> int:
        fitting = [n for n, r in enumerate(self.world.loggers) if not phases or r.phase in phases]
        return data.draw(st.sampled_from(fitting), label="logger")

    @precondition(is_any("starting"))
    @rule(data=st.data())
    def logger_is_ready(self, data):
        self.world.make_ready(self.some_logger(data, "starting"))

    @precondition(is_any("starting"))
    @rule(data=st.data())
    def logger_fails(self, data):
        logger = self.some_logger(data, "starting")
        self.world.feed(on.LoggerFailed(logger, "ImportError: no module named 'x'"))
        self.world.end(logger, "exit(1)")

    @precondition(is_any("starting", "ready"))
    @rule(data=st.data(), cause=st.sampled_from(["crash(SIGSEGV)", "exit(0)"]))
    def logger_ends(self, data, cause):
        self.world.end(self.some_logger(data, "starting", "ready"), cause)

    @precondition(has_window)
    @rule(data=st.data(), ends=st.booleans())
    def logger_begins(self, data, ends):
        """With a result, or with a flush; it may not survive it."""
        logger = self.some_busy_logger(data)
        reader = self.world.loggers[logger]
        # Who keeps slots tells the truth.
        fitting = reader.todo()[:1] if reader.keeps_slots else reader.window
        if fitting:
            reader.begin(data.draw(st.sampled_from(fitting)).ref)
        if ends:
            self.world.end(logger, "crash(SIGSEGV)")

    @precondition(has_window)
    @rule(data=st.data())
    def logger_begins_to_flush(self, data):
        self.world.loggers[self.some_busy_logger(data)].begin_flush()

    @precondition(has_window)
    @rule(data=st.data(), is_rung=st.booleans())
    def logger_releases(self, data, is_rung):
        """In any order, some of what it has; it may die before it rings."""
        logger = self.some_busy_logger(data)
        reader = self.world.loggers[logger]
        if fitting := reader.logged() if reader.keeps_slots else reader.window:
            reader.release(data.draw(st.lists(st.sampled_from(fitting), min_size=1)))
        if is_rung:
            if reader.keeps_slots:
                reader.rest()
            self.world.ring(logger)

    @precondition(has_keepers)
    @rule(data=st.data(), is_rung=st.booleans(), ends=st.sampled_from([False, False, True]))
    def keeper_logs(self, data, is_rung, ends):
        """Some of what it has, or just flushes; it keeps all of it."""
        fitting = [n for n, r in enumerate(self.world.loggers) if r.keeps_slots and r.window]
        logger = data.draw(st.sampled_from(fitting), label="logger")
        reader = self.world.loggers[logger]
        todo = reader.todo()
        for item in todo[: data.draw(st.integers(0, len(todo)), label="count")]:
            self.world.log(reader, item)
        reader.rest()
        if ends:
            self.world.end(logger, "crash(SIGSEGV)")
        elif is_rung:
            self.world.ring(logger)

    @rule()
    def keepers_log_all(self):
        for logger, reader in enumerate(self.world.loggers):
            if reader.keeps_slots:
                for item in reader.todo():
                    self.world.log(reader, item)
                self.world.ring(logger)

    def some_busy_logger(self, data: st.DataObject) -> int:
        busy = [n for n, r in enumerate(self.world.loggers) if r.window]
        return data.draw(st.sampled_from(busy), label="logger")

    @rule()
    def loggers_release_all(self):
        self.world.release_all()

    @rule(times=st.integers(1, 5))
    def loggers_work(self, times):
        """As they do, one result after the other, until one is not to be borne."""
        for _ in range(times):
            for logger, reader in enumerate(self.world.loggers):
                self.work(logger, reader)
            self.loggers_come_back()

    def work(self, logger, reader):
        for item in reader.todo():
            reader.begin(item.ref)
            match self.poison.get(item.key[1] % 4):
                case "crash":
                    self.world.end(logger, "crash(SIGSEGV)")
                    return
                case "raise":
                    self.raise_error(logger, item, 0)
                case "disk":
                    self.raise_error(logger, item, DISK_ERRORS[0])
                case _:
                    self.world.log(reader, item)
        if len(reader.logged()) >= KEPT_MAX:
            reader.release(reader.logged()[: KEPT_MAX - 1])
            reader.rest()
        self.world.ring(logger)

    def raise_error(self, logger, item, number):
        """Who keeps slots says that it is through with it first."""
        reader = self.world.loggers[logger]
        if reader.keeps_slots:
            item.is_logged = False
            reader.rest()
        self.world.raise_error(logger, item.ref, number)

    @rule()
    def loggers_come_back(self):
        world = self.world
        for logger, reader in enumerate(world.loggers):
            if reader.phase == "none" and not world.is_closed:
                world.wait(None)
            if reader.phase != "none" and (reader.is_killed or reader.is_closing):
                world.end(logger, "crash(SIGKILL)")
            elif reader.phase == "starting":
                world.make_ready(logger)

    @rule(data=st.data(), is_rung=st.booleans())
    def stray_write(self, data, is_rung):
        """A late, double or wrong release, also by a helper that outlived the logger."""
        logger = self.some_logger(data)
        slot = data.draw(st.integers(0, self.world.slot_count - 1))
        self.world.loggers[logger].ack[slot] = data.draw(
            st.integers(0, self.world.last_generation[slot] + 1)
        )
        if is_rung:
            self.world.ring(logger)

    @precondition(has_window)
    @rule(data=st.data(), number=st.sampled_from([0, 2, 0, *DISK_ERRORS[:1]]))
    def logger_raises(self, data, number):
        logger = self.some_busy_logger(data)
        reader = self.world.loggers[logger]
        fitting = reader.window
        if reader.keeps_slots:
            # Also one that it was about to release.
            fitting = [*reader.logged(), *reader.todo()[:1]]
        self.raise_error(logger, data.draw(st.sampled_from(fitting)), number)

    @precondition(has_window)
    @rule(data=st.data(), number=st.sampled_from([0, *DISK_ERRORS]))
    def logger_raises_for_all(self, data, number):
        """As for a flush that failed."""
        logger = self.some_busy_logger(data)
        reader = self.world.loggers[logger]
        for item in reader.logged() if reader.keeps_slots else list(reader.window):
            self.raise_error(logger, item, number)

    @rule(data=st.data(), number=st.sampled_from([0, *DISK_ERRORS]))
    def logger_raises_for_another_use(self, data, number):
        slot = data.draw(st.integers(0, self.world.slot_count - 1))
        generation = data.draw(st.integers(0, self.world.last_generation[slot] + 1))
        self.world.raise_error(self.some_logger(data), SlotRef(slot, generation), number)

    # The disk.

    @precondition(lambda self: self.world.disk.tasks)
    @rule(data=st.data(), is_well=st.sampled_from([True, True, False]))
    def disk_answers(self, data, is_well):
        count = len(self.world.disk.tasks[0].keys)
        corrupt = [] if is_well else data.draw(st.lists(st.integers(0, count - 1)))
        self.world.answer(is_well=is_well, corrupt=corrupt)

    @precondition(lambda self: self.world.disk.tasks)
    @rule()
    def disk_does_all(self):
        for _ in range(len(self.world.disk.tasks)):
            if self.world.disk.tasks:
                self.world.answer()

    @precondition(lambda self: self.world.disk.is_writing)
    @rule()
    def disk_is_silent(self):
        """Until it is given up."""
        for _ in range(SETTLING_ROUNDS):
            if not self.world.disk.is_writing:
                return
            self.world.wait(None)

    @precondition(lambda self: self.world.disk.cancelled)
    @rule(is_well=st.booleans())
    def disk_answers_late(self, is_well):
        self.world.answer_late(is_well=is_well)

    # Time and the end.

    @rule(passed_s=st.sampled_from([None, None, 0.0, 0.05, 1.0, 5.0, 20.0, 70.0]))
    def time_passes(self, passed_s):
        self.world.wait(passed_s)

    @precondition(lambda self: self.may_stop)
    @rule()
    def stop(self):
        self.world.stop()

    @precondition(lambda self: self.world.is_stopping)
    @rule()
    def stop_now(self):
        self.world.stop_now()

    def teardown(self):
        """Let everybody do his work: then every result has its outcome, and it is over."""
        world = self.world
        if world is None or not world.is_sound:
            return  # It was found wrong already; what follows would be noise.
        for renderer in list(world.renderers):
            world.leave(renderer)
        for _ in range(SETTLING_ROUNDS):
            if world.is_finished:
                break
            world.settle_a_little()
        assert world.is_finished
        assert world.supervisor.wake_at_s is None
        assert world.free_slots() == set(range(world.slot_count))
        for reader in world.loggers:
            assert all(item.place == "disk" for item in reader.open.values())


test_any_order_of_events_keeps_the_books = Moves.TestCase
Moves.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
