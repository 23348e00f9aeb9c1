"""What must be true of the world around a supervisor after each event, by the books alone."""

from __future__ import annotations

from supervisor_books import Disk, Item, Key, Reader, Task, Writer
from supervisor_teams import Team

from millpond.core import events as on
from millpond.core.supervisor import Supervisor


class Checks:
    """Compares the supervisor with the books."""

    slot_count: int
    slot_bytes: int
    exit_when_done: bool
    loggers: list[Reader]
    teams: list[Team]
    disk: Disk
    renderers: dict[int, Writer]
    joined_count: int
    last_generation: list[int]
    published: list[Key]
    now_s: float
    drain_deadline_s: float
    event: on.Event | None
    is_sound: bool
    is_stopping: bool
    is_closed: bool
    is_finished: bool
    is_fault_expected: bool
    is_shedding: bool
    is_giving_up: bool
    expected: list[tuple]
    failing: Task | None
    doomed: set[Key]
    may_have_starved: bool
    was_starving: bool
    supervisor: Supervisor

    def is_awaited(self) -> bool:
        """Whether a renderer waits for a slot, or a logger for one to read back into."""
        if any(writer.waits for writer in self.renderers.values()):
            return True
        return any(
            reader.can_be_sent and not reader.busy and any(reader.at("disk"))
            for reader in self.loggers
        )

    def taken_slots(self) -> set[int]:
        """Those that somebody else than a logger holds, or that are filled from the disk."""
        taken = {ref.slot for writer in self.renderers.values() for ref in writer.claims}
        for reader in self.loggers:
            taken |= {item.ref.slot for item in reader.at("coming")}
        return taken

    def free_slots(self) -> set[int]:
        held = self.taken_slots()
        for reader in self.loggers:
            held |= {slot for slot, _ in reader.holders()}
        return set(range(self.slot_count)) - held

    def reserve(self) -> int:
        """The most free slots that the renderers leave to loggers that read back."""
        most = max(1, self.slot_count // 8)
        reading = [r for r in self.loggers if r.can_be_sent]
        wanted = (min(most, sum(1 for _ in r.at("disk"))) for r in reading)
        return min(sum(wanted), self.slot_count // 4)

    def is_low(self) -> bool:
        """Whether so few slots are free that some should leave ahead of need."""
        return len(self.free_slots()) < self.slot_count // 4 + self.reserve()

    def is_to_be_had(self, slot: int) -> bool:
        """Whether nobody holds it but loggers that must give it; some may have done so already."""
        return slot not in self.taken_slots() and all(
            item.place == "leaving" or (item.place == "waits" and self.gives(reader, item))
            for reader in self.loggers
            for held, item in reader.holders()
            if held == slot
        )

    def gives(self, reader: Reader, item: Item) -> bool:
        return reader.drops or self.may_spill(reader, is_sure=True) or self.rests(reader, item)

    def rests(self, reader: Reader, item: Item) -> bool:
        """Whether it is tried again later, and need not lie in a slot until then."""
        is_willing = reader.is_disk_willing(self.now_s, is_disk_stuck=self.disk.is_stuck)
        return item.due_s > self.now_s and is_willing

    def may_spill(self, reader: Reader, *, is_sure: bool = False) -> bool:
        is_stuck = self.disk.is_stuck
        return reader.may_spill(self.now_s, is_disk_stuck=is_stuck, is_sure=is_sure)

    def places_of(self, slot: int) -> set[str]:
        return {item.place for r in self.loggers for held, item in r.holders() if held == slot}

    def check_nobody_waits_in_vain(self) -> None:
        waiting = sum(writer.waits for writer in self.renderers.values())
        held = [slot for slot in range(self.slot_count) if self.places_of(slot)]
        leaving = sum(self.places_of(slot) <= {"leaving", "dying"} for slot in held)
        waits = [slot for slot in held if self.places_of(slot) == {"waits"}]
        to_be_had = [slot for slot in waits if self.is_to_be_had(slot)]
        if waiting > leaving and not self.is_stopping:
            assert not to_be_had, "a renderer waits although a slot is to be had"
        free = self.free_slots()
        is_much = len(free) > self.reserve()
        assert not (self.is_shedding and is_much), "results were shed for slots that nobody takes"
        assert not (waiting and is_much), "a renderer waits although a slot is free"
        wake_at_s = self.supervisor.wake_at_s
        if self.disk.is_writing:
            assert wake_at_s is not None
            assert wake_at_s <= self.disk.patience_s, "the disk gets more time than it should"
        for reader in self.loggers:
            if self.now_s < reader.spill_rests_until_s and not self.is_closed:
                assert wake_at_s is not None
                assert wake_at_s <= reader.spill_rests_until_s
            if reader.starves and not self.is_closed:
                assert not free, "a slot is free, and nothing is read back"
                assert leaving or not to_be_had, "nothing is read back although a slot is to be had"

    def is_drained(self) -> bool:
        return all(reader.is_drained for reader in self.loggers)

    def note_end(self) -> None:
        """Find out, without asking the supervisor, whether it should be stopping now."""
        connected = [writer for writer in self.renderers.values() if not writer.is_ended]
        if self.exit_when_done and self.joined_count and not connected and self.is_drained():
            self.is_stopping = True
        if self.is_stopping:
            is_late = isinstance(self.event, on.TimePassed) and self.now_s >= self.drain_deadline_s
            self.is_closed |= self.is_drained() or is_late
        if self.is_closed:
            self.stay_on_disk()

    def check(self) -> None:
        supervisor = self.supervisor
        supervisor.check_invariants()
        self.note_end()
        assert supervisor.is_stopping == self.is_stopping
        assert supervisor.slots.free_count == len(self.free_slots())
        self.check_nobody_waits_in_vain()
        assert not self.is_giving_up or self.is_closed, "it was neither needed nor the end"
        is_full = not self.free_slots()
        self.may_have_starved = is_full and any(reader.may_starve for reader in self.loggers)
        self.was_starving = is_full and any(reader.starves for reader in self.loggers)
        for team, filtered in zip(self.teams, supervisor.routes.filtered, strict=True):
            team.check(self.published)
            assert filtered == len(team.filtered)
        for reader, record in zip(self.loggers, supervisor.loggers, strict=True):
            if not self.is_closed:
                reader.check(self.now_s)
            told = record.statistics()
            dead = sum(outcome != "delivered" for outcome in reader.outcomes.values())
            assert told["published"] == len(reader.outcomes) + len(reader.open)
            assert told["delivered"] == len(reader.outcomes) - dead
            assert told["dead"] == dead
            assert told["queued"] == sum(
                1 for _ in reader.at("waits", "returned", "leaving", "dying")
            )
            assert told["in_window"] == len(reader.window)
            assert told["spilled"] == sum(1 for _ in reader.at("disk", "coming"))
            assert told["is_suspended"] == reader.is_disk_bad
        if self.is_closed:
            self.check_end()

    def check_end(self) -> None:
        """Nothing waits for what will not come."""
        assert all(writer.is_ended or not writer.claims for writer in self.renderers.values())
        is_over = all(reader.phase == "none" for reader in self.loggers)
        is_written = all(not any(reader.at("leaving", "dying")) for reader in self.loggers)
        assert self.is_finished == (is_over and is_written)
        for reader in self.loggers:
            assert not any(reader.at("coming"))
            assert reader.phase != "none" or not any(reader.at("waits", "window", "returned"))
