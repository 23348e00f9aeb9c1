"""The world around a supervisor, as a model: renderers, loggers, a disk, and the shell.

It obeys the commands and keeps its own books, which share no code with the core.  Whatever does
not agree with the books is an assertion.  The moves are made by the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from supervisor_books import (
    CRASHES_MAX,
    DISK_ERRORS,
    HANG_S,
    KEEP_S,
    PROBE_S,
    RAISES_MAX,
    RETRY_S,
    Disk,
    Item,
    Key,
    Reader,
    Task,
    Wanted,
    Writer,
)
from supervisor_shell import Shell
from supervisor_teams import Team, TeamSpec

from millpond.core import events as on
from millpond.core.deliveries import Result
from millpond.core.progress import IDLE
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

DRAIN_S = 10.0
START_S = 60.0
LATE_S = 1.0
RECOVERED = 7  # A renderer of an earlier daemon.
FIRST_RENDERER = 11
TASKS_MAX = 200  # More than this world can have for a disk that does its work.


class World(Shell):
    """Everything around the supervisor.

    Args:
        slot_count: How many slots there are.
        specs: The loggers, each with its processes.
        slot_bytes: Bytes of one slot.
        exit_when_done: As for the supervisor.
    """

    def __init__(
        self,
        slot_count: int,
        specs: Sequence[TeamSpec],
        *,
        slot_bytes: int,
        exit_when_done: bool,
    ) -> None:
        self.slot_count = slot_count
        self.slot_bytes = slot_bytes
        self.exit_when_done = exit_when_done
        self.loggers: list[Reader] = []
        self.teams: list[Team] = []
        self.disk = Disk()
        self.renderers: dict[int, Writer] = {}
        self.joined_count = 0
        self.last_generation = [0] * slot_count
        self.published: list[Key] = []
        self.arriving: list[tuple[Key, SlotRef]] = []  # By the event.
        self.now_s = 1000.0
        self.is_sound = False  # Whether the last event agreed with the books.
        self.is_stopping = self.is_closed = self.is_finished = False
        self.drain_deadline_s = float("inf")
        self.event: on.Event | None = None
        self.is_fault_expected = False
        self.is_shedding = self.is_giving_up = False
        self.expected: list[tuple] = []  # Commands that must follow from the event.
        self.failing: Task | None = None  # What the disk did not take: dead, or put back?
        self.doomed: set[Key] = set()  # They die with their logger.
        self.may_have_starved = self.was_starving = False  # A logger, after the last event.
        for spec in specs:
            self.add_team(spec)
        self.supervisor = Supervisor(
            SlotTable(
                slot_count,
                want=[reader.want for reader in self.loggers],
                ack=[reader.ack for reader in self.loggers],
            ),
            slot_bytes=slot_bytes,
            loggers=[reader.spec for reader in self.loggers],
            teams=[n for n, team in enumerate(self.teams) for _ in team.members],
            filters={n: team.filter for n, team in enumerate(self.teams) if team.wants},
            drain_s=DRAIN_S,
            keep_s=KEEP_S,
            recovered=[len(reader.open) for reader in self.loggers],
            exit_when_done=exit_when_done,
            chance=lambda: 0.5,
        )
        self.obey(self.supervisor.start(self.now_s))

    def add_team(self, spec: TeamSpec) -> None:
        team = Team([], spec.wants)
        for count in spec.recovered:
            ack, want = [0] * (self.slot_count + 1), Wanted(self.slot_count)
            reader = Reader(spec.spec, ack, want, spec.keeps_slots)
            first = len(team.recovered) + 1
            keys = [(RECOVERED, sequence) for sequence in range(first, first + count)]
            reader.open = {key: Item(key, None, "disk") for key in keys}
            self.disk.homes[len(self.loggers), 0] = list(keys)
            self.loggers.append(reader)
            team.members.append(reader)
            team.recovered += keys
        self.teams.append(team)

    # What renderers do.

    def join(self) -> None:
        number = FIRST_RENDERER + self.joined_count
        self.joined_count += 1
        self.renderers[number] = Writer()
        self.feed(on.RendererJoined(number, pid=number))

    def want(self, renderer: int) -> None:
        writer = self.renderers[renderer]
        writer.waits = not (writer.is_ended or self.is_stopping)
        self.feed(on.SlotWanted(renderer))

    def publish(self, renderer: int, refs: list[SlotRef], **fault: int) -> None:
        """Several results, the last of which may be wrong; nothing is taken after that."""
        writer = self.renderers[renderer]
        results = []
        for sequence, ref in enumerate(refs, writer.sequence + 1):
            results.append(Result(*ref, renderer, sequence, f"{renderer}-{sequence}", b"frame"))
        if fault:
            results[-1] = results[-1]._replace(**fault)
            refs = refs[:-1]
        if not writer.is_ended:
            writer.claims = [ref for ref in writer.claims if ref not in refs]
            writer.sequence += len(refs)
            keys = [result.key for result in results[: len(refs)]]
            self.published += keys
            self.arriving = list(zip(keys, refs, strict=True))
            if keys:
                self.expected.append(("published", keys))
            for number, team in enumerate(self.teams):
                if unwanted := [key for key in keys if not team.is_wanted(key)]:
                    self.expected.append(("filtered", number, unwanted))
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
            reader.phase, reader.ack[-1], reader.started = "ready", IDLE, None
        self.feed(on.LoggerReady(logger))

    def take_released(self, logger: int) -> None:
        reader = self.loggers[logger]
        keys = reader.settle_released()
        if not keys:
            return
        reader.progressed(self.now_s)
        if not reader.window:
            reader.requeue_returned()
        self.expected.append(("delivered", logger, keys))
        if reader.is_disk_bad:
            reader.is_disk_bad = False
            self.expected.append(("resumed", logger))

    def ring(self, logger: int) -> None:
        self.take_released(logger)
        self.loggers[logger].rang(self.now_s)
        self.feed(on.DoorbellRang(logger))

    def raise_error(self, logger: int, ref: SlotRef, number: int) -> None:
        reader = self.loggers[logger]
        item = reader.find(ref)
        if item is not None:
            reader.came_back(item, "returned")
            reader.progressed(self.now_s)
            item.was_raised = True
            reader.note_kept()
            if number in DISK_ERRORS:
                self.note_failed_disk(logger)
            else:
                self.note_raised(logger, item)
        self.feed(on.LoggerRaised(logger, *ref, "Traceback ...\nOSError: no", number))

    def note_failed_disk(self, logger: int) -> None:
        reader = self.loggers[logger]
        if self.is_closed:
            return
        if reader.suspended_until_s is None:
            reader.suspended_until_s = self.now_s + PROBE_S
        if not reader.is_disk_bad:
            reader.is_disk_bad = True
            self.expected.append(("suspended", logger))
        if not reader.window:
            reader.requeue_returned()

    def note_raised(self, logger: int, item: Item) -> None:
        item.raises += 1
        if item.raises >= RAISES_MAX:
            attempts = item.raises + item.crashes
            self.expected.append(("bury", logger, item.key, "exception", attempts))
        elif not self.is_closed:
            again_s = RETRY_S[item.raises - 1]
            item.place, item.due_s = "waits", self.now_s + again_s
            self.expected.append(("raised", logger, item.key, again_s))

    def end(self, logger: int, cause: str) -> None:
        reader = self.loggers[logger]
        self.take_released(logger)
        cause = "hang" if reader.is_hung else cause
        reader.phase, reader.last_cause = "none", cause
        reader.spill_rests_until_s = 0.0
        culprit = reader.find(reader.started)
        rest = [*reader.window, *reader.at("returned")]
        if reader.spec.on_crash == "drop":
            self.doomed = {item.key for item in rest}
        else:
            for item in list(reader.window):
                reader.came_back(item, "waits")
            reader.resume()
            if culprit is not None and not self.is_closed:
                self.note_crash(logger, culprit, cause)
        reader.suspended_until_s = None
        self.feed(on.LoggerExited(logger, cause))
        assert not reader.window
        assert not self.doomed
        assert self.is_closed or self.supervisor.wake_at_s is not None

    def note_crash(self, logger: int, culprit: Item, cause: str) -> None:
        culprit.crashes += 1
        if culprit.crashes >= CRASHES_MAX:
            attempts = culprit.raises + culprit.crashes
            self.expected.append(("bury", logger, culprit.key, cause, attempts))

    def log(self, reader: Reader, item: Item) -> None:
        """It goes well; who keeps slots does not release it yet."""
        reader.begin(item.ref)
        if reader.keeps_slots:
            reader.keep(item)
        else:
            reader.release([item])

    def release_all(self) -> None:
        for logger, reader in enumerate(self.loggers):
            for item in reader.todo():
                self.log(reader, item)
            reader.release(reader.logged())
            self.ring(logger)

    # What the disk does.

    def answer(self, *, is_well: bool = True, corrupt: Sequence[int] = ()) -> None:
        """It has done what it was asked for first, or failed at it."""
        task = self.disk.answer(self.now_s)
        reader = self.loggers[task.logger]
        if task.kind == "read":
            self.answer_read(task, corrupt)
        elif task.kind == "bury":
            for key in task.keys:
                reader.settle(key, "dead")
            self.feed(on.ResultsKept(task.token) if is_well else self.failure(task.token))
        elif is_well:
            for key in task.keys:
                reader.open[key].place, reader.open[key].ref = "disk", None
            self.disk.homes.setdefault((task.logger, task.home), []).extend(task.keys)
            self.feed(on.ResultsKept(task.token))
        else:
            self.failing = task
            self.feed(self.failure(task.token))

    def answer_late(self, *, is_well: bool) -> None:
        """It answers what was cancelled meanwhile: nothing follows."""
        token = self.disk.cancelled.pop(0)
        self.disk.is_stuck = False
        self.feed(on.ResultsKept(token) if is_well else self.failure(token))

    def failure(self, token: int) -> on.KeepingFailed:
        return on.KeepingFailed(token, "no space left on device")

    def answer_read(self, task: Task, corrupt: Sequence[int]) -> None:
        reader = self.loggers[task.logger]
        good, bad = [], []
        for index, (key, ref) in enumerate(zip(task.keys, task.refs, strict=True)):
            is_bad = index in corrupt
            (bad if is_bad else good).append(Result(*ref, *key, f"{key[0]}-{key[1]}", b"frame"))
            if not (is_bad or self.is_closed):
                reader.open[key].place = "waits"
        self.feed(on.ResultsReplayed(task.logger, task.token, good, bad))
        assert self.is_closed or not any(result.key in reader.open for result in bad)

    # Time and the end.

    def wait(self, passed_s: float | None) -> None:
        """Let time pass, or whatever the supervisor waits for when it is None."""
        wake_at_s = self.supervisor.wake_at_s
        if passed_s is None:
            passed_s = 0.0 if wake_at_s is None else max(0.0, wake_at_s - self.now_s)
        self.now_s += passed_s
        is_late = wake_at_s is not None and self.now_s - wake_at_s > LATE_S
        for patient, patience_s in [
            *((reader, HANG_S) for reader in self.loggers),
            (self.disk, KEEP_S),
        ]:
            if is_late:  # The machine was paused.
                patient.patience_s = max(patient.patience_s, self.now_s + patience_s)
        for reader in self.loggers:
            if reader.is_waiting:  # As long as it likes.
                reader.patience_s = max(reader.patience_s, self.now_s + HANG_S)
            if reader.suspended_until_s is not None and reader.suspended_until_s <= self.now_s:
                reader.resume()
        self.feed(on.TimePassed())
        assert self.supervisor.wake_at_s is None or self.supervisor.wake_at_s > self.now_s
        for reader in self.loggers:
            late_s = self.now_s - (reader.started_s + START_S)
            if reader.phase == "starting" and late_s > LATE_S:
                reader.started_s = self.now_s
            elif reader.phase == "starting" and late_s >= 0:
                assert reader.is_killed or reader.is_closing
            if reader.phase == "ready" and reader.window and not self.is_closed:
                assert reader.is_killed or self.now_s < reader.patience_s, "a hang is not seen"
        if self.disk.is_writing:
            assert self.now_s < self.disk.patience_s, "the disk may not hold it"

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
        while self.disk.cancelled:
            self.answer_late(is_well=True)
        for _ in range(TASKS_MAX):
            if self.disk.tasks:
                self.answer()
        assert not self.disk.tasks, "the disk is asked for more and more"
        for logger, reader in enumerate(self.loggers):
            for item in reader.todo():
                self.log(reader, item)
            self.ring(logger)
        if not self.is_drained():
            self.release_all()  # What others must get may need the slots that are only kept.
        for logger, reader in enumerate(self.loggers):
            if reader.phase != "none" and (reader.is_killed or reader.is_closing):
                reader.release(reader.logged())
                self.end(logger, "exit(0)")
            elif reader.phase == "starting":
                self.make_ready(logger)
        if self.is_finished or self.disk.tasks:
            return
        if any(not r.is_drained or r.phase != "ready" for r in self.loggers):
            self.wait(None)
        else:
            kept = {slot for reader in self.loggers for slot, _ in reader.holders()}
            assert self.free_slots() | kept == set(range(self.slot_count))
            self.stop()
            assert all(r.is_closing for r in self.loggers), "it waits for what is only kept"
