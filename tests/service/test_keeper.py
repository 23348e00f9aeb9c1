"""The keeper's thread: in the order of asking, told on the loop, and never waited for too long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from service.spill_cases import BIG, LAYOUT, keys, payload, result
from service.storage_cases import WATCHDOG_S, arrays_in, results, spill

from millpond.core.commands import BuryResults, ReplayResults, ReportDead, SpillResults
from millpond.core.deliveries import Result
from millpond.core.events import Event, KeepingFailed, ResultsKept, ResultsReplayed
from millpond.core.slots import SlotRef
from millpond.core.wire import FrameReader
from millpond.dead_letters import DeadLetters, dead_of, load_letter
from millpond.keeper import Keeper
from millpond.spill import SpillStore

A, B = 0, 1


class Desk:
    """A keeper of two loggers, and what it tells, each with the thread that heard it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Event | tuple[int, list[Result]]] = []
        self.bugs: list[BaseException] = []
        self.threads: set[str] = set()
        self.memory = bytearray(LAYOUT.segment_bytes)
        self.stores = [
            SpillStore(folder / "spill" / name, LAYOUT, size_max_bytes=BIG) for name in "ab"
        ]
        self.letters = DeadLetters(folder, LAYOUT, arrays_bytes_max=BIG)
        self.keeper = Keeper(
            asyncio.get_running_loop(),
            dispatch=self.hear,
            fail=self.bugs.append,
            recorded=self.recorded,
            names=["a", "b"],
            stores=self.stores,
            letters=self.letters,
            slot_memory=self.slot,
            slot_bytes=LAYOUT.payload_bytes,
        )

    def hear(self, event: Event) -> None:
        self.threads.add(threading.current_thread().name)
        self.told.append(event)

    def recorded(self, what: tuple[int, Sequence[Result]]) -> None:
        self.threads.add(threading.current_thread().name)
        self.told.append((what[0], list(what[1])))

    def slot(self, slot: int) -> memoryview:
        start = slot * LAYOUT.slot_bytes
        return memoryview(self.memory)[start : start + LAYOUT.payload_bytes]

    def publish(self, first: int, last: int) -> list[Result]:
        """Results in slots from 0 on, with their arrays."""
        published = [one._replace(slot=n) for n, one in enumerate(results(1, first, last))]
        for one in published:
            self.slot(one.slot)[:] = payload(*one.key)
        return published

    def hold(self) -> threading.Event:
        """Keep the thread from all that is asked after this, until the event is set."""
        go = threading.Event()
        self.keeper.ask(lambda: go.wait(WATCHDOG_S) and None)
        return go

    async def hear_all(self) -> list[Event | tuple[int, list[Result]]]:
        """All that is told of what was asked by now."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.keeper.ask(lambda: loop.call_soon_threadsafe(done.set) and None)
        async with asyncio.timeout(WATCHDOG_S):
            await done.wait()
        told, self.told = self.told, []
        return told


@pytest.fixture
async def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    assert desk.keeper.close(WATCHDOG_S)
    desk.letters.close()
    for store in desk.stores:
        store.close()


async def test_results_are_on_the_disk_before_it_says_so_and_come_back_in_other_slots(
    desk: Desk,
) -> None:
    three = desk.publish(1, 3)
    desk.keeper.spill(spill(A, 7, three))
    # The ledger is told first: the slots are free for others with the event.
    assert await desk.hear_all() == [(A, three), ResultsKept(7)]
    assert desk.keeper.spill_bytes["a"] > desk.keeper.spill_bytes["b"] == 0
    desk.memory[:] = bytes(len(desk.memory))
    places = [SlotRef(3, 41), SlotRef(0, 42), SlotRef(2, 43)]
    desk.keeper.replay(ReplayResults(A, 7, places))
    [event] = await desk.hear_all()
    assert isinstance(event, ResultsReplayed)
    assert (event.logger, event.token, event.corrupt) == (A, 7, [])
    assert keys(event.results) == keys(three)
    for place, one in zip(places, event.results, strict=True):
        assert (one.slot, one.generation) == place
        assert arrays_in(desk.slot(place.slot)) == arrays_in(payload(*one.key))
        # The frame that the logger gets names the new use of a slot, and the old result.
        [frame] = FrameReader(len(one.frame)).feed(one.frame)
        assert (frame.slot, frame.generation, frame.renderer, frame.sequence) == (*place, *one.key)
        assert frame.body == result(*one.key).frame[32:]
    assert desk.threads == {threading.main_thread().name}
    assert desk.bugs == []


async def test_a_record_that_was_damaged_is_told_with_its_slot(desk: Desk) -> None:
    three = desk.publish(1, 3)
    desk.keeper.spill(spill(A, 7, three))
    await desk.hear_all()
    [path] = (desk.folder / "spill" / "a").glob("*.seg")
    raw = bytearray(path.read_bytes())
    raw[raw.index(payload(1, 2))] ^= 1
    path.write_bytes(raw)
    desk.keeper.replay(ReplayResults(A, 7, [SlotRef(n, 9) for n in range(3)]))
    [event] = await desk.hear_all()
    assert isinstance(event, ResultsReplayed)
    assert keys(event.results) == [(1, 1), (1, 3)]
    [bad] = event.corrupt
    assert (bad.slot, bad.generation, bad.key) == (1, 9, (1, 2))


async def test_what_the_disk_does_not_take_has_failed_with_the_reason(desk: Desk) -> None:
    (desk.folder / "spill").write_text("no folder")
    desk.keeper.spill(spill(A, 7, desk.publish(1, 2)))
    [event] = await desk.hear_all()
    assert isinstance(event, KeepingFailed)
    assert event.token == 7
    assert event.problem
    assert desk.bugs == []  # The next one may fare better.
    (desk.folder / "spill").unlink()
    two = desk.publish(1, 2)
    desk.keeper.spill(spill(A, 8, two))
    assert await desk.hear_all() == [(A, two), ResultsKept(8)]


async def test_batches_that_wait_are_written_together_and_told_one_by_one(desk: Desk) -> None:
    go = desk.hold()
    four = desk.publish(1, 4)
    for token, one in enumerate(four, 10):
        desk.keeper.spill(spill(A if token < 12 else B, token, [one]))
    go.set()
    assert await desk.hear_all() == [
        (A, four[:1]), ResultsKept(10), (A, four[1:2]), ResultsKept(11),
        (B, four[2:3]), ResultsKept(12), (B, four[3:]), ResultsKept(13),
    ]  # fmt: skip
    for token, one in enumerate(four, 10):
        logger = A if token < 12 else B
        desk.keeper.replay(ReplayResults(logger, token, [SlotRef(0, 5)]))
        [event] = await desk.hear_all()
        assert isinstance(event, ResultsReplayed)
        assert keys(event.results) == [one.key]


async def test_one_that_was_cancelled_does_not_take_its_neighbours_along(desk: Desk) -> None:
    go = desk.hold()
    three = desk.publish(1, 3)
    for token, one in enumerate(three, 10):
        desk.keeper.spill(spill(A, token, [one]))
    desk.keeper.cancel(11)
    go.set()
    told = await desk.hear_all()
    assert [event.token for event in told if isinstance(event, ResultsKept)] == [10, 12]
    assert [event.token for event in told if isinstance(event, KeepingFailed)] == [11]
    assert desk.stores[A].records == 2


async def test_what_was_cancelled_before_its_turn_is_not_kept(desk: Desk) -> None:
    go = desk.hold()
    desk.keeper.spill(spill(A, 7, desk.publish(1, 2)))
    desk.keeper.cancel(7)
    desk.memory[:] = bytes(len(desk.memory))  # The slots have other results by now.
    go.set()
    told = await desk.hear_all()
    assert [type(event) for event in told] == [KeepingFailed]
    assert not list((desk.folder / "spill").rglob("*.seg"))


async def test_what_was_cancelled_after_its_turn_and_before_its_answer_is_undone(
    desk: Desk,
) -> None:
    desk.keeper.spill(spill(A, 6, desk.publish(1, 1)))
    desk.keeper.spill(SpillResults(A, 7, desk.publish(2, 3), home=6))  # Behind the first.
    is_done = threading.Event()
    desk.keeper.ask(is_done.set)
    assert is_done.wait(WATCHDOG_S)  # And the loop has heard nothing yet.
    assert desk.stores[A].records == 3
    desk.keeper.cancel(7)
    await desk.hear_all()
    assert desk.stores[A].records == 1
    # What comes behind the first later is read after it.
    desk.keeper.spill(SpillResults(A, 8, desk.publish(4, 4), home=6))
    desk.keeper.replay(ReplayResults(A, 6, [SlotRef(0, 5)]))
    await desk.hear_all()
    desk.keeper.replay(ReplayResults(A, 6, [SlotRef(0, 6)]))
    [event] = await desk.hear_all()
    assert isinstance(event, ResultsReplayed)
    assert keys(event.results) == [(1, 4)]


async def test_what_a_logger_waits_for_is_read_before_anything_else(desk: Desk) -> None:
    desk.keeper.spill(spill(A, 7, desk.publish(1, 1)))
    await desk.hear_all()
    go = desk.hold()
    two = desk.publish(2, 3)
    desk.keeper.spill(spill(B, 8, two[1:]))
    desk.keeper.replay(ReplayResults(A, 7, [SlotRef(3, 5)]))
    go.set()
    told = await desk.hear_all()
    assert [type(event) for event in told] == [ResultsReplayed, tuple, ResultsKept]


async def test_a_burial_keeps_the_arrays_of_the_slot_as_it_is(desk: Desk) -> None:
    [one] = desk.publish(1, 1)
    desk.keeper.bury(BuryResults(B, 5, [one], "exception", "ValueError: no", 5), ())
    assert await desk.hear_all() == [(B, [one]), ResultsKept(5)]
    [line] = dead_of(desk.folder).values()
    assert (line.key, line.id) == (("b", 1, 1), "1/1")
    assert (line.reason, line.problem, line.attempts) == ("exception", "ValueError: no", 5)
    assert line.arrays is not None
    job, arrays = load_letter(desk.folder / line.arrays)
    assert job == one.frame[32:]
    found = [arrays[channel.name].tobytes() for channel in LAYOUT.channels]
    assert found == arrays_in(payload(1, 1))


async def test_a_cancelled_burial_is_listed_without_the_arrays_of_another_result(
    desk: Desk,
) -> None:
    go = desk.hold()
    [one] = desk.publish(1, 1)
    desk.keeper.bury(BuryResults(B, 5, [one], "exception", "", 5), ())
    desk.keeper.cancel(5)
    go.set()
    await desk.hear_all()
    [line] = dead_of(desk.folder).values()
    assert line.arrays is None


async def test_the_dead_that_were_read_back_leave_the_spill_when_they_are_listed(
    desk: Desk,
) -> None:
    two = desk.publish(1, 2)
    desk.keeper.spill(spill(A, 7, two))
    await desk.hear_all()
    desk.keeper.replay(ReplayResults(A, 7, [SlotRef(0, 5), SlotRef(1, 5)]))
    await desk.hear_all()
    (desk.folder / "dead.jsonl").mkdir()  # So that no line can be written.
    desk.keeper.bury(ReportDead(A, two[:1], "dropped", ""), [two[0].key])
    assert await desk.hear_all() == []  # Nobody may believe that it is recorded.
    (desk.folder / "dead.jsonl").rmdir()
    desk.keeper.bury(ReportDead(A, two[1:], "dropped", ""), [two[1].key])
    assert await desk.hear_all() == [(A, [two[1]._replace(frame=b"")])]  # The id is enough.
    assert keys(dead_of(desk.folder).values()) == keys(two)  # Both lines, in their order.
    desk.stores[A].close()
    # The record of the first is still there: the next start sees that it is dead.
    again = SpillStore(desk.folder / "spill" / "a", LAYOUT, size_max_bytes=BIG)
    assert (1, 1) in keys(again.recover().results)
    again.close()


async def test_settled_records_go(desk: Desk) -> None:
    two = desk.publish(1, 2)
    desk.keeper.spill(spill(A, 7, two))
    await desk.hear_all()
    desk.keeper.replay(ReplayResults(A, 7, [SlotRef(0, 5), SlotRef(1, 5)]))
    desk.keeper.settle(A, keys(two))
    await desk.hear_all()
    desk.stores[A].close()
    assert not list((desk.folder / "spill").rglob("*.seg"))


async def test_jobs_are_done_one_after_the_other_in_their_order(desk: Desk) -> None:
    done: list[int] = []
    for number in range(100):
        desk.keeper.ask(lambda number=number: done.append(number))  # type: ignore[misc]
    await desk.hear_all()
    assert done == list(range(100))


async def test_a_failing_disk_is_logged_and_a_bug_of_ours_is_told(desk: Desk) -> None:
    def fail_disk() -> None:
        raise OSError(5, "Input/output error")

    desk.keeper.ask(fail_disk)
    await desk.hear_all()
    assert desk.bugs == []
    desk.keeper.ask([].pop)
    await desk.hear_all()
    assert [type(bug) for bug in desk.bugs] == [IndexError]
    desk.bugs.clear()


async def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    go = desk.hold()
    assert not desk.keeper.close(0.01)
    go.set()
    assert desk.keeper.close(WATCHDOG_S)


async def test_what_was_asked_is_done_before_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.keeper.spill(spill(A, 7, desk.publish(1, 3)))
    assert desk.keeper.close(WATCHDOG_S)
    assert desk.stores[A].records == 3
    desk.stores[A].close()


def test_a_loop_that_is_closed_hears_nothing_and_nothing_breaks(tmp_path: Path) -> None:
    async def begin() -> tuple[Desk, threading.Event]:
        desk = Desk(tmp_path)
        go = desk.hold()
        desk.keeper.spill(spill(A, 7, desk.publish(1, 3)))
        return desk, go

    desk, go = asyncio.run(begin())
    go.set()
    assert desk.keeper.close(WATCHDOG_S)
    assert desk.stores[A].records == 3
    desk.stores[A].close()
