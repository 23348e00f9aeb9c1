"""A storage opened on every kind of run folder: nothing is forgotten, and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service.spill_cases import LAYOUT, OTHER_LAYOUT, keys, payload, result, segments
from service.storage_cases import (
    WATCHDOG_S,
    Opened,
    Past,
    config_for,
    dead_now,
    first_line,
    results,
    spill,
)

from millpond.core.commands import BuryResults, ReportDead
from millpond.core.events import KeepingFailed, ResultsKept
from millpond.core.ranges import ResultRanges
from millpond.dead_letters import dead_of, read_dead, retract
from millpond.ledger_previous import Previous

A, B = 0, 1


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@contextmanager
def opened(run: Path, *names: str, is_end: bool = True, **sections: Any) -> Iterator[Opened]:
    """A storage that comes to its end, or is left as a kill leaves it."""
    storage = Opened(config_for(run, names or ("a", "b"), **sections)).open()
    try:
        yield storage
    finally:
        storage.close(is_end=is_end)


async def until(condition: Callable[[], Any]) -> None:
    end_s = asyncio.get_running_loop().time() + WATCHDOG_S
    while not condition():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.002)


def damage(run: Path, name: str, key: tuple[int, int]) -> None:
    """Flip a byte in the arrays of a record."""
    for path in (run / "spill" / name).glob("*.seg"):
        raw = path.read_bytes()
        at = raw.find(payload(*key))
        if at >= 0:
            path.write_bytes(raw[: at + 3] + bytes([raw[at + 3] ^ 1]) + raw[at + 4 :])
            return
    raise AssertionError("no such record")


# What the last start left.


async def test_a_fresh_folder_has_nothing_and_gets_a_ledger(run: Path) -> None:
    with opened(run) as fresh:
        assert (fresh.waiting, fresh.channels, fresh.renderer_last) == ([0, 0], None, 0)
        line = first_line(run, 1)
        assert [logger["name"] for logger in line["loggers"]] == ["a", "b"]
        assert line["pending"] == {"a": [], "b": []}
        assert Path(line["spill"]) == run / "spill"
        assert Path(line["output_dir"]) == run
        assert Path(line["config"]) == run.parent / "pond.yaml"
    assert not (run / "spill").exists()
    assert dead_now(run) == {}
    assert Previous.read(run, []).is_closed


async def test_after_an_orderly_end_only_the_numbers_go_on(run: Path) -> None:
    past = Past(run, renderer=3)
    past.delivered("a", 1, 10)
    past.delivered("b", 1, 10)
    past.end()
    with opened(run) as now:
        assert (now.waiting, now.channels, now.renderer_last) == ([0, 0], None, 3)
        assert first_line(run, 2)["renderer_last"] == 3
    assert dead_now(run) == {}


async def test_what_a_killed_daemon_had_in_hand_is_listed_once_by_id(run: Path) -> None:
    past = Past(run)
    past.delivered("a", 1, 7)
    past.delivered("b", 1, 10)
    past.end(is_killed=True)
    for _ in range(2):
        with opened(run, is_end=False) as now:
            assert now.waiting == [0, 0]
        assert dead_now(run) == {("a", 1, n): "unaccounted" for n in (8, 9, 10)}
    assert [line.id for line in read_dead(run)] == ["1/8", "1/9", "1/10"]


@pytest.mark.parametrize("is_killed", [False, True])
async def test_what_is_in_a_spill_waits_and_comes_back_in_order(run: Path, is_killed: bool) -> None:
    past = Past(run)
    past.delivered("a", 1, 4)
    past.delivered("b", 1, 10)
    past.spilled("a", past.these(5, 10))
    past.end(is_killed=is_killed)
    with opened(run) as now:
        assert now.waiting == [6, 0]
        assert now.channels == LAYOUT.channels
        assert first_line(run, 2)["pending"] == {"a": [[1, 5, 10]], "b": []}
        came = await now.replay(A)
        assert keys(came) == [(1, n) for n in range(5, 11)]
        assert [one.id for one in came] == [f"1/{n}" for n in range(5, 11)]
        assert all(one.generation == 7 for one in came)
    assert dead_now(run) == {}


async def test_a_record_whose_outcome_is_known_is_not_delivered_again(run: Path) -> None:
    """A file goes when all of its records have their outcome: some stay behind for long."""
    past = Past(run)
    past.spilled("a", past.these(1, 10))
    past.delivered("b", 1, 10)
    past.end()
    second = Past(run, pending={"a": ResultRanges((1, n) for n in range(1, 11))}, published=0)
    second.delivered("a", 1, 3)
    second.ledger.prepare()
    second.dead("a", 4, 5)
    second.end(is_killed=True)
    with opened(run, is_end=False) as third:
        assert third.waiting == [5, 0]
        assert first_line(run, 3)["pending"]["a"] == [[1, 6, 10]]
    # The third knows 1 to 3 no more; they were not owed to anybody by then.
    with opened(run) as fourth:
        assert keys(await fourth.replay(A)) == [(1, n) for n in range(6, 11)]
    assert dead_now(run) == {("a", 1, 4): "exception", ("a", 1, 5): "exception"}


async def test_a_damaged_record_is_dead_and_the_others_wait(run: Path) -> None:
    past = Past(run)
    past.delivered("a", 1, 7)
    past.delivered("b", 1, 10)
    past.spilled("a", past.these(8, 10))
    past.end()
    damage(run, "a", (1, 9))
    for _ in range(2):
        with opened(run, is_end=False) as now:
            assert now.waiting == [2, 0]
    with opened(run) as now:
        assert keys(await now.replay(A)) == [(1, 8), (1, 10)]
    [line] = read_dead(run)
    assert (line.key, line.reason, line.id) == (("a", 1, 9), "spill_corrupt", "1/9")


async def test_records_of_other_channels_are_dead_and_kept_aside(run: Path) -> None:
    past = Past(run)
    past.delivered("a", 1, 8)
    past.delivered("b", 1, 10)
    past.spilled("a", past.these(9, 10), layout=OTHER_LAYOUT)
    past.end()
    for _ in range(2):
        with opened(run, is_end=False) as now:
            assert now.waiting == [0, 0]
    lines = list(read_dead(run))
    assert [(line.key, line.reason) for line in lines] == [
        (("a", 1, n), "spill_corrupt") for n in (9, 10)
    ]
    assert "other channels" in lines[0].problem
    assert segments(run / "spill" / "a" / "set-aside")


async def test_the_results_of_a_logger_that_is_gone_wait_for_it(run: Path) -> None:
    past = Past(run, ["a", "gone"])
    past.delivered("a", 1, 10)
    past.delivered("gone", 1, 6)
    past.spilled("gone", past.these(7, 9))
    past.end(is_killed=True)
    for number in (2, 3):
        with opened(run, "a", is_end=False) as now:
            assert now.waiting == [0]
            assert first_line(run, number)["pending"] == {"a": [], "gone": [[1, 7, 9]]}
        assert dead_now(run) == {("gone", 1, 10): "unaccounted"}
    with opened(run, "a", "gone") as again:
        assert keys(await again.replay(1)) == [(1, 7), (1, 8), (1, 9)]
    assert len(list(read_dead(run))) == 1


async def test_a_new_logger_is_owed_nothing_of_what_was_before(run: Path) -> None:
    past = Past(run, ["a"])
    past.delivered("a", 1, 9)
    past.end(is_killed=True)
    with opened(run, "a", "new") as now:
        assert now.waiting == [0, 0]
    assert dead_now(run) == {("a", 1, 10): "unaccounted"}


# Taken back.


async def test_dead_results_that_were_taken_back_come_behind_the_others(run: Path) -> None:
    past = Past(run)
    past.delivered("a", 1, 6)
    past.delivered("b", 1, 10)
    past.taken_back("a", 7, 8)
    past.spilled("a", past.these(9, 10))
    past.end()
    kept = run / "dead" / "a"
    assert len(list(kept.iterdir())) == 2
    with opened(run) as now:
        assert now.waiting == [4, 0]
        assert list(kept.iterdir()) == []  # Now the spill has them.
        came = await now.replay(A)
        assert keys(came) == [(1, 9), (1, 10), (1, 7), (1, 8)]
        assert [one.id for one in came] == ["1/9", "1/10", "1/7", "1/8"]
        assert came[2].frame[32:] == result(1, 7).frame[32:]
    assert dead_now(run) == {}


async def test_a_result_that_was_taken_back_may_be_of_any_earlier_start(run: Path) -> None:
    first = Past(run, published=2)
    first.delivered("b", 1, 2)
    first.dead("a", 1, 2, with_arrays=True)
    first.end()
    with opened(run, is_end=True):
        pass
    retract(run, [("a", 1, 2)])
    with opened(run) as now:
        assert keys(await now.replay(A)) == [(1, 2)]
    assert dead_now(run) == {("a", 1, 1): "exception"}


async def test_one_that_cannot_be_read_stays_taken_back(run: Path) -> None:
    past = Past(run, ["a"], published=2)
    past.taken_back("a", 1, 2)
    past.end()
    kept = sorted((run / "dead" / "a").iterdir())
    whole = kept[0].read_bytes()
    kept[0].write_bytes(whole[:100])
    with opened(run, "a", is_end=False) as now:
        assert keys(await now.replay(A)) == [(1, 2)]
    assert dead_now(run) == {}  # The operator sees it in the log, and as not delivered.
    assert kept[0].exists()
    kept[0].write_bytes(whole)
    with opened(run, "a") as now:
        assert keys(await now.replay(A)) == [(1, 2), (1, 1)]


async def test_one_of_other_channels_waits_for_these(run: Path) -> None:
    past = Past(run, ["a"], published=1)
    past.taken_back("a", 1, 1)
    past.end()
    other = Opened(config_for(run, ["a"]), layout=OTHER_LAYOUT).open()
    assert other.waiting == [0]
    other.close()
    with opened(run, "a") as now:
        assert keys(await now.replay(A)) == [(1, 1)]


async def test_what_is_taken_back_for_a_logger_that_is_gone_stays_so(run: Path) -> None:
    past = Past(run, ["a", "gone"], published=1)
    past.delivered("a", 1, 1)
    past.taken_back("gone", 1, 1)
    past.end(is_killed=True)
    for _ in range(2):
        with opened(run, "a", is_end=False) as now:
            assert now.waiting == [0]
    assert dead_now(run) == {}
    with opened(run, "a", "gone") as now:
        assert keys(await now.replay(1)) == [(1, 1)]


# A ledger that does not help.


def lose_ledger(run: Path) -> None:
    for path in (run / "ledger").iterdir():
        path.unlink()


def empty_ledger(run: Path) -> None:
    lose_ledger(run)
    (run / "ledger" / "000001.jsonl").write_bytes(bytes(4096))


def garble_ledger(run: Path) -> None:
    (run / "ledger" / "000001.jsonl").write_bytes(b'{"start": {"number": 1, "lo\xff\n"garbage"\n')


def lose_first_line(run: Path) -> None:
    path = run / "ledger" / "000001.jsonl"
    path.write_bytes(path.read_bytes().partition(b"\n")[2])


@pytest.mark.parametrize("harm", [lose_ledger, empty_ledger, garble_ledger, lose_first_line])
async def test_without_a_good_ledger_all_in_the_spills_is_delivered(
    run: Path, harm: Callable[[Path], None]
) -> None:
    past = Past(run, ["a", "b", "gone"], renderer=5)
    past.delivered("a", 1, 6)
    past.delivered("b", 1, 10)
    past.delivered("gone", 1, 9)
    past.spilled("a", past.these(7, 10))
    past.spilled("gone", past.these(10, 10))
    past.end()
    harm(run)
    with opened(run, is_end=False) as now:
        assert now.channels == LAYOUT.channels  # The spill tells them too.
        assert now.renderer_last >= 5
        assert now.waiting == [4, 0]
        assert keys(await now.replay(A)) == [(5, n) for n in range(7, 11)]
    with opened(run, "gone") as again:
        assert keys(await again.replay(0)) == [(5, 10)]
    assert dead_now(run) == {}


async def test_the_numbers_of_the_dead_and_of_those_taken_back_are_not_given_again(
    run: Path,
) -> None:
    first = Past(run, ["a"], renderer=7, published=1)
    first.dead("a", 1, 1, with_arrays=True)
    first.end()
    lose_ledger(run)
    with opened(run, "a") as now:
        assert now.renderer_last >= 7
    retract(run, [("a", 7, 1)])
    lose_ledger(run)
    with opened(run, "a") as now:
        assert now.renderer_last >= 7
        assert keys(await now.replay(A)) == [(7, 1)]


async def test_a_start_that_failed_does_not_bring_back_what_was_delivered(run: Path) -> None:
    """It was killed when its file was there, and its first line was not."""
    past = Past(run, ["a"])
    past.spilled("a", past.these(1, 10))
    past.end()
    second = Past(run, ["a"], pending={"a": ResultRanges(keys(past.these(1, 10)))}, published=0)
    second.delivered("a", 1, 9)
    second.end()
    with opened(run, "a", is_end=False) as third:
        assert third.waiting == [1]
    (run / "ledger" / "000004.jsonl").write_bytes(bytes(4096))
    with opened(run, "a") as fifth:
        assert keys(await fifth.replay(A)) == [(1, 10)]
    assert dead_now(run) == {}


async def test_what_the_list_does_not_take_is_owed_until_it_does(run: Path) -> None:
    past = Past(run, ["a"])
    past.delivered("a", 1, 8)
    past.end(is_killed=True)
    (run / "dead.jsonl").mkdir()
    child = run_child(KILLED_WITHOUT_LIST, run)
    assert child.endswith("\n[0] 2\n")
    (run / "dead.jsonl").rmdir()
    assert first_line(run, 2)["pending"] == {"a": [[1, 9, 10]]}
    with opened(run, "a") as now:
        assert now.waiting == [0]
    assert dead_now(run) == {("a", 1, 9): "unaccounted", ("a", 1, 10): "unaccounted"}


KILLED_WITHOUT_LIST = """
import asyncio, os, signal, sys
from pathlib import Path
import millpond.storage
from service.storage_cases import Opened, config_for

async def main():
    # Reading must not fail, or the daemon would not start at all.
    millpond.storage.dead_of = lambda run: {}
    millpond.storage.taken_back = lambda run: []
    now = Opened(config_for(Path(sys.argv[1]), ["a"])).open()
    print(now.waiting, now.storage.status()["unlisted"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def run_child(source: str, *arguments: object) -> str:
    child = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S * 2,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert "Traceback" not in child.stderr, child.stderr
    return child.stdout


async def test_a_ledger_that_cannot_be_begun_is_an_error(run: Path) -> None:
    (run / "ledger").write_text("no folder")
    now = Opened(config_for(run))
    with pytest.raises(OSError, match="ledger"):
        now.open()
    now.close()


# While the daemon runs.


async def test_results_go_to_the_disk_and_back_and_leave_nothing(run: Path) -> None:
    with opened(run) as now:
        storage = now.storage
        storage.renderer_joined(1, 4711)
        four = [one._replace(slot=n) for n, one in enumerate(results(1, 1, 4))]
        for one in four:
            now.write_slot(one.slot, one.key)
        storage.published(four)
        storage.delivered(B, four)
        storage.perform(spill(A, 9, four))
        assert await now.next_event() == ResultsKept(9)
        used = storage.status()["spill_bytes"]
        assert used["a"] > used["b"] == 0
        now.segment.slot(0)[:] = bytes(LAYOUT.payload_bytes)
        now.waiting[A] = 4
        back = await now.replay(A, token=9)
        assert keys(back) == keys(four)
        storage.delivered(A, back)
    assert not segments(run / "spill" / "a")
    previous = Previous.read(run, [])
    assert previous.is_closed
    assert all(len(previous.delivered[name]) == 4 for name in "ab")
    with opened(run) as later:
        assert later.waiting == [0, 0]
        assert later.renderer_last == 1
    assert dead_now(run) == {}


@pytest.mark.parametrize("is_end", [False, True])
async def test_what_was_read_back_and_has_no_outcome_waits_again(run: Path, is_end: bool) -> None:
    past = Past(run, ["a"], published=3)
    past.spilled("a", past.these(1, 3))
    past.end()
    with opened(run, "a", is_end=is_end) as now:
        one, two, three = await now.replay(A)
        now.storage.delivered(A, [one])
        now.storage.perform(ReportDead(A, [two], "dropped", ""))
    with opened(run, "a") as later:
        assert keys(await later.replay(A)) == [three.key]
    assert dead_now(run) == {("a", 1, 2): "dropped"}


async def test_a_burial_keeps_the_arrays_and_can_be_taken_back(run: Path) -> None:
    with opened(run) as now:
        storage = now.storage
        storage.renderer_joined(1, 4711)
        one = result(1, 1)._replace(slot=2)
        now.write_slot(2, one.key)
        storage.published([one])
        storage.delivered(A, [one])
        storage.perform(BuryResults(B, 3, [one], "exception", "ValueError: no", 5))
        assert await now.next_event() == ResultsKept(3)
    [line] = dead_of(run).values()
    assert (line.key, line.reason, line.attempts) == (("b", 1, 1), "exception", 5)
    retract(run, [line.key])
    with opened(run) as later:
        assert keys(await later.replay(B)) == [(1, 1)]
    assert dead_now(run) == {}


async def test_a_spill_that_is_full_keeps_nothing(run: Path) -> None:
    with opened(run, "a", disk={"spill_max": 64 * 1024}) as now:
        many = [result(1, n) for n in range(1, 300)]
        now.storage.perform(spill(A, 1, many))
        failed = await now.next_event()
        assert isinstance(failed, KeepingFailed)
        assert failed.token == 1
        assert "full" in failed.problem
    assert not segments(run / "spill" / "a")


async def test_a_spill_elsewhere_is_used_and_told(run: Path, tmp_path: Path) -> None:
    disk = {"spill_dir": str(tmp_path / "fast")}
    with opened(run, "a", disk=disk) as now:
        now.storage.renderer_joined(1, 1)
        one = result(1, 1)
        now.write_slot(0, one.key)
        now.storage.published([one])
        now.storage.perform(spill(A, 1, [one]))
        assert await now.next_event() == ResultsKept(1)
        assert Path(first_line(run, 1)["spill"]) == now.config.spill_path
    assert not (run / "spill").exists()
    with opened(run, "a", disk=disk) as later:
        assert keys(await later.replay(A)) == [(1, 1)]


async def test_the_status_says_what_the_disk_does_not_take(run: Path) -> None:
    with opened(run, "a") as now:
        assert now.storage.status() == {
            "spill_bytes": {"a": 0},
            "spill_max": now.config.disk.spill_max,
            "lost_before": 0,
            "unlisted": 0,
            "problem": "",
        }
        (run / "dead.jsonl").mkdir()
        now.storage.perform(ReportDead(A, results(1, 1, 3), "dropped", ""))
        await until(lambda: now.storage.status()["unlisted"] == 3)
        assert now.storage.status()["problem"] == "dead.jsonl cannot be written: Is a directory"
        (run / "dead.jsonl").rmdir()
        now.storage.renderer_joined(1, 4711)  # Whatever happens next tries it again.
        await until(lambda: now.storage.status()["unlisted"] == 0)
        assert now.storage.status()["problem"] == ""
    assert len(dead_now(run)) == 3


async def test_before_it_is_open_it_has_a_status_and_can_be_closed(run: Path) -> None:
    now = Opened(config_for(run))
    assert now.storage.status()["spill_bytes"] == {"a": 0, "b": 0}
    now.close()
    assert not (run / "ledger").exists()


# A kill between any two steps.


def test_a_kill_at_any_step_of_the_opening_loses_and_doubles_nothing(run: Path) -> None:
    report = json.loads(run_child(CRASHES, run))
    assert report["steps"] > 15  # Else it did not look at what it should.
    assert report["wrong"] == []


CRASHES = (Path(__file__).parent / "storage_crashes.py").read_text()
