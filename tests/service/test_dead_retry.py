"""Dead results that are taken back, from the list of the dead into a spill."""

from __future__ import annotations

from pathlib import Path

import pytest
from service.spill_cases import BIG, LAYOUT, OTHER_LAYOUT, make_store, result
from service.storage_cases import arrays_in, letters_of, results

from millpond.dead_letters import DeadLetters, dead_of, retract
from millpond.dead_retry import put_into_spill, taken_back
from millpond.spill import RECOVERED_TOKEN


def bury(run: Path, last: int, *, with_arrays: bool = True) -> None:
    letters = DeadLetters(run, LAYOUT, arrays_bytes_max=BIG)
    given = letters_of(results(1, 1, last), with_arrays=with_arrays)
    assert letters.bury("a", given, reason="exception", problem="no")
    letters.close()


def back_keys(run: Path) -> list[tuple[int, int]]:
    return [one.key for one in taken_back(run)]


def test_without_a_list_nothing_was_taken_back(tmp_path: Path) -> None:
    assert back_keys(tmp_path) == []


def test_what_was_taken_back_is_so_while_its_arrays_are_there(tmp_path: Path) -> None:
    bury(tmp_path, 3)
    assert back_keys(tmp_path) == []
    retract(tmp_path, [("a", 1, 1), ("a", 1, 3), ("b", 1, 2)])
    first, third = taken_back(tmp_path)
    assert (first.key, third.key) == ((1, 1), (1, 3))
    assert (first.line.logger, first.line.id) == ("a", "1/1")
    first.arrays.unlink()
    assert back_keys(tmp_path) == [(1, 3)]
    bury(tmp_path, 3)  # It died again.
    assert back_keys(tmp_path) == []
    retract(tmp_path, [("a", 1, 3)])
    assert back_keys(tmp_path) == [(1, 3)]


def test_without_kept_arrays_there_is_nothing_to_try_again(tmp_path: Path) -> None:
    bury(tmp_path, 1, with_arrays=False)
    retract(tmp_path, [("a", 1, 1)])
    assert back_keys(tmp_path) == []


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        back_keys(tmp_path)


def test_the_spill_gets_the_arrays_and_the_job_as_they_were(tmp_path: Path) -> None:
    bury(tmp_path, 2)
    retract(tmp_path, dead_of(tmp_path))
    store = make_store(tmp_path / "spill" / "a")
    store.recover()
    for one in taken_back(tmp_path):
        assert put_into_spill(one, store, LAYOUT) == ""
        assert one.arrays.exists()  # Until the ledger knows of it.
    slots = [bytearray(LAYOUT.payload_bytes) for _ in range(2)]
    replayed = store.read(RECOVERED_TOKEN, [memoryview(slot) for slot in slots])
    assert [(one.renderer, one.sequence, one.id) for one in replayed] == [
        (1, 1, "1/1"),
        (1, 2, "1/2"),
    ]
    assert [one.frame[32:] for one in replayed] == [result(1, n).frame[32:] for n in (1, 2)]
    for slot, letter in zip(slots, letters_of(results(1, 1, 2), with_arrays=True), strict=True):
        assert arrays_in(slot) == arrays_in(letter.payload)
    store.close()


def test_arrays_of_other_channels_are_told_and_not_written(tmp_path: Path) -> None:
    bury(tmp_path, 1)
    retract(tmp_path, dead_of(tmp_path))
    store = make_store(tmp_path / "spill" / "a")
    [one] = taken_back(tmp_path)
    problem = put_into_spill(one, store, OTHER_LAYOUT)
    assert problem == "its arrays do not fit the channel rgb (3, 6) float32"
    assert store.records == 0
    store.close()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\0" * 100])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    bury(tmp_path, 1)
    retract(tmp_path, dead_of(tmp_path))
    [one] = taken_back(tmp_path)
    one.arrays.write_bytes(content)
    store = make_store(tmp_path / "spill" / "a")
    assert put_into_spill(one, store, LAYOUT)
    assert store.records == 0
    store.close()


def test_a_spill_that_is_full_is_told(tmp_path: Path) -> None:
    bury(tmp_path, 1)
    retract(tmp_path, dead_of(tmp_path))
    [one] = taken_back(tmp_path)
    store = make_store(tmp_path / "spill" / "a", size_max_bytes=100)
    assert "full" in put_into_spill(one, store, LAYOUT)
    store.close()
