"""The part of the world that obeys: each command must be allowed by the books, and changes them."""

from __future__ import annotations

from typing import ClassVar

from supervisor_books import BATCH_BYTES, HANG_S, PROBE_S, Key, Reader, Task
from supervisor_checks import Checks

from millpond.core import commands as do
from millpond.core import events as on
from millpond.core.deliveries import Result
from millpond.core.slots import SlotRef

DELAY_S_MAX = 30.0


class Shell(Checks):
    """What carries the commands out."""

    NOTES: ClassVar = (
        do.RecordPublished,
        do.RecordFiltered,
        do.RecordDelivered,
        do.ReportRaised,
        do.ReportSuspended,
        do.ReportResumed,
    )

    def feed(self, event: on.Event) -> None:
        """Let an event happen, obey, and look at the books."""
        self.event = event
        self.is_sound = False
        self.is_shedding = self.is_giving_up = False
        self.is_disk_given_up = False
        asked_before = self.disk.last_token
        commands = self.supervisor.handle(event, self.now_s)
        self.hand_out()
        self.obey(commands)
        if self.is_disk_given_up:
            assert not self.disk.is_asked_for(asked_before), "some of it was not given up"
        self.check()
        self.is_sound = True

    def hand_out(self) -> None:
        """See who got what was published, and that nobody got anything else."""
        for key, ref in self.arriving:
            for team in self.teams:
                team.take(key, ref)
        self.arriving.clear()
        for reader in self.loggers:
            held = {item.ref for item in reader.open.values()}
            assert held.issuperset(reader.want.given)
            reader.want.given.clear()

    def obey(self, commands: list[do.Command]) -> None:
        spawned = []
        for command in commands:
            assert not self.is_finished or isinstance(command, do.TellClosing | do.EndRenderer)
            if not self.is_about_what_failed(command):
                self.put_back_what_failed()
            match command:
                case do.GrantSlots() | do.TellHolders() | do.TellClosing() | do.EndRenderer():
                    self.obey_about_renderers(command)
                case do.SendJobs(logger, results):
                    self.send(self.loggers[logger], results)
                case do.ReportDead(logger, results, reason, _):
                    self.bury(logger, results, reason)
                case do.Finish():
                    self.is_finished = True
                case _ if isinstance(command, self.NOTES):
                    self.note(command)
                case do.SpillResults() | do.BuryResults() | do.CancelKeeping() | do.ReplayResults():
                    self.obey_about_the_disk(command)
                case _:
                    spawned += self.obey_about_processes(command)
        self.put_back_what_failed()
        assert not self.expected, "something did not follow"
        for logger in spawned:
            self.feed(on.LoggerSpawned(logger, pid=4000 + logger))

    def note(self, command: do.Command) -> None:
        """What must follow from an event, follows; each is expected once."""
        match command:
            case do.RecordPublished(results):
                self.expected.remove(("published", keys_of(results)))
            case do.RecordFiltered(team, results):
                assert not any(kind == "published" for kind, *_ in self.expected), "it comes later"
                self.expected.remove(("filtered", team, keys_of(results)))
            case do.RecordDelivered(logger, results):
                self.expected.remove(("delivered", logger, keys_of(results)))
            case do.ReportRaised(logger, result, problem, again_s):
                assert "Traceback" in problem
                self.expected.remove(("raised", logger, result.key, again_s))
            case do.ReportSuspended(logger, problem, probe_s):
                assert (problem, probe_s) == ("OSError: no", PROBE_S) or "Traceback" in problem
                self.expected.remove(("suspended", logger))
            case do.ReportResumed(logger):
                self.expected.remove(("resumed", logger))

    def obey_about_renderers(self, command: do.Command) -> None:
        writer = self.renderers[command.renderer]
        match command:
            case do.GrantSlots(_, refs):
                assert refs
                assert not self.is_stopping
                assert not writer.is_ended
                self.take_free(refs)
                writer.claims += refs
            case do.TellHolders(_, text):
                assert writer.waits
                assert text
                return
            case do.TellClosing():
                assert self.is_stopping
                assert not writer.is_ended or self.is_closed
            case do.EndRenderer(_, problem):
                assert not writer.is_ended, "a renderer is ended once"
                assert bool(problem) == self.is_fault_expected
                writer.is_ended = True
        writer.waits = False

    def take_free(self, refs: list[SlotRef]) -> None:
        for ref in refs:
            assert ref.slot in self.free_slots(), "a slot is given away that somebody holds"
            assert ref.generation > self.last_generation[ref.slot]
            self.last_generation[ref.slot] = ref.generation

    def obey_about_processes(self, command: do.Command) -> list[int]:
        reader = self.loggers[command.logger]
        match command:
            case do.SpawnLogger(logger):
                assert reader.phase == "none"
                assert not self.is_closed
                reader.phase, reader.started_s = "starting", self.now_s
                reader.is_killed = reader.is_hung = reader.is_fatal = False
                return [logger]
            case do.CloseLogger():
                assert reader.phase != "none"
                assert not reader.is_closing
                reader.is_closing = True
            case do.KillLogger(_, why, dump):
                assert reader.phase != "none"
                assert why
                reader.is_killed = True
                reader.is_hung |= dump
                if why.startswith("no progress"):
                    assert reader.window
                    assert not reader.is_waiting, "it has nothing to do"
                    assert self.now_s >= reader.progress_s + HANG_S
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

    def send(self, reader: Reader, results: list[Result]) -> None:
        assert results
        assert reader.can_be_sent
        for result in results:
            item = reader.open[result.key]
            assert item.ref == SlotRef(result.slot, result.generation)
            reader.sent(item, self.now_s)

    # The disk.

    def obey_about_the_disk(self, command: do.Command) -> None:
        match command:
            case do.SpillResults(logger, token, results, home):
                self.spill(logger, token, results, home)
            case do.BuryResults(logger, token, results, reason, _, attempts):
                for result in results:
                    self.expected.remove(("bury", logger, result.key, reason, attempts))
                    self.loggers[logger].open[result.key].place = "dying"
                self.disk.ask(Task("bury", logger, token, keys_of(results)), self.now_s)
            case do.ReplayResults(logger, token, refs):
                self.replay(logger, token, refs)
            case do.CancelKeeping(token):
                assert isinstance(self.event, on.TimePassed)
                task = self.disk.give_up(token, self.now_s)
                self.is_disk_given_up = True
                if task.kind == "spill":
                    self.failing = task
                else:
                    self.loggers[task.logger].settle(task.keys[0], "dead")

    def spill(self, logger: int, token: int, results: list[Result], home: int) -> None:
        """What leaves, leaves for somebody's need, or because it is the end."""
        reader = self.loggers[logger]
        assert 0 < len(results) <= max(1, BATCH_BYTES // self.slot_bytes)
        is_needed = self.is_awaited() or self.is_low()
        is_allowed = self.may_spill(reader) or all(reader.open[one.key].raises for one in results)
        is_allowed = is_allowed and not self.disk.is_stuck
        if not (is_needed and is_allowed and all(map(self.may_be_had, results))):
            assert reader.spec.on_crash == "redeliver"
            self.is_giving_up = True
        for result in results:
            item = reader.open[result.key]
            assert item.place == "waits" or (item.place == "returned" and self.is_giving_up)
            assert item.ref == SlotRef(result.slot, result.generation)
            item.place, item.token = "leaving", token
        self.disk.ask(Task("spill", logger, token, keys_of(results), home), self.now_s)

    def may_be_had(self, result: Result) -> bool:
        """Whether its slot comes free by this, as far as is known here."""
        return result.slot not in self.taken_slots() and all(
            item.place == "leaving"
            or (item.place == "waits" and (reader.drops or item.raises or self.may_spill(reader)))
            for reader in self.loggers
            for held, item in reader.holders()
            if held == result.slot
        )

    def is_about_what_failed(self, command: do.Command) -> bool:
        return (
            isinstance(command, do.ReportDead)
            and command.reason == "spill_full"
            and self.failing is not None
            and command.logger == self.failing.logger
            and keys_of(command.results) == self.failing.keys
        )

    def put_back_what_failed(self) -> None:
        """What the disk did not take is dead, unless the renderers may wait for its logger."""
        if self.failing is None:
            return
        reader = self.loggers[self.failing.logger]
        assert not self.is_closed
        assert not reader.is_down
        assert reader.spec.when_full != "spill"
        assert not (self.was_starving and reader.is_surely_behind(self.failing.keys))
        for key in self.failing.keys:
            reader.open[key].place = "waits"
            reader.spill_rests_until_s = self.now_s + PROBE_S
        self.failing = None

    def replay(self, logger: int, token: int, refs: list[SlotRef]) -> None:
        reader = self.loggers[logger]
        assert refs
        assert reader.can_be_sent or reader.is_killed
        assert not self.is_closed
        assert not any(reader.at("coming"))
        self.take_free(refs)
        home = self.disk.homes[logger, token]
        keys, home[:] = home[: len(refs)], home[len(refs) :]
        assert len(keys) == len(refs), "more is read than is there"
        for key, ref in zip(keys, refs, strict=True):
            reader.open[key].place, reader.open[key].ref = "coming", ref
        self.disk.ask(Task("read", logger, token, keys, token, refs), self.now_s)

    def stay_on_disk(self) -> None:
        """The end: what was on its way back stays where it was."""
        for task in self.disk.tasks:
            if task.kind == "read":
                for key in task.keys:
                    item = self.loggers[task.logger].open[key]
                    item.place, item.ref = "disk", None

    # The dead.

    def bury(self, logger: int, results: list[Result], reason: str) -> None:
        """A result dies only for a cause: in hand at a death, lost by the disk, or in the way."""
        reader = self.loggers[logger]
        keys = keys_of(results)
        if self.failing is not None:
            # A healthy logger loses nothing by the disk, but what is in the way of the rest.
            is_in_the_way = self.may_have_starved and reader.is_behind(keys)
            may_not_wait = reader.is_down or reader.spec.when_full == "spill"
            self.is_giving_up |= not (may_not_wait or is_in_the_way)
            self.failing = None
        elif reason == "spill_full":
            assert self.disk.is_stuck
            assert reader.spills(self.now_s)
            self.shed(reader, results)
        elif reason == "spill_corrupt":
            assert isinstance(self.event, on.ResultsReplayed)
            assert keys == keys_of(self.event.corrupt)
        elif set(keys) <= self.doomed:
            self.doomed -= set(keys)
            assert reason == ("shutdown" if self.is_closed else reader.last_cause)
        else:
            self.drop(reader, results, reason)
        for key in keys:
            reader.settle(key, f"dead: {reason}")

    def drop(self, reader: Reader, results: list[Result], reason: str) -> None:
        if reason == "shutdown":
            assert reader.spec.on_crash == "drop"
            self.is_giving_up = True
            return
        assert reader.drops
        is_hung = reader.is_killed and reader.phase != "none"
        down = "disabled" if reader.is_fatal else "hang" if is_hung else reader.last_cause
        assert reason == (down if reader.is_down else "dropped")
        self.shed(reader, results)

    def shed(self, reader: Reader, results: list[Result]) -> None:
        assert self.is_awaited(), "nobody needs the slot"
        for result in results:
            assert reader.open[result.key].place == "waits"
            assert self.is_to_be_had(result.slot), "nobody gains by it"
        self.is_shedding = True


def keys_of(results: list[Result]) -> list[Key]:
    return [result.key for result in results]
