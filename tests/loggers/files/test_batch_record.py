"""The record of what is in a row file: what it knows after a death at any byte."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond_loggers.files import batch_record
from millpond_loggers.files.batch_record import BatchRecord, record_name

U64 = st.integers(0, 2**64 - 1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def path(folder: int) -> Path:
    return Path(f"/proc/self/fd/{folder}").readlink() / record_name("rows")


def known(folder: int, size: int) -> list[Any]:
    record = BatchRecord(folder, "rows", size)
    record.close()
    return list(record.known)


def keys(*sequences: int) -> list[tuple[int, int]]:
    return [(7, sequence) for sequence in sequences]


def record_batches(folder: int, *batches: list[tuple[int, int]]) -> int:
    """As if rows of 10 bytes were written behind 100 others; the size of the file then."""
    record = BatchRecord(folder, "rows", 100)
    size = 100
    for batch in batches:
        record.begin(size, batch, [10] * len(batch))
        record.settle(len(batch))
        size += 10 * len(batch)
    record.close()
    return size


def test_nothing_is_made_before_there_is_something_to_record(folder: int) -> None:
    record = BatchRecord(folder, "rows", 0)
    assert record.known == {}
    record.leave(0)
    record.close()
    record.close()
    assert not path(folder).exists()


def test_the_size_of_the_file_says_which_rows_are_in_it(folder: int) -> None:
    size = record_batches(folder, keys(1, 2), keys(3), keys(4, 5, 6))
    assert known(folder, size) == keys(1, 2, 3, 4, 5, 6)
    assert known(folder, size + 1) == keys(1, 2, 3, 4, 5, 6)
    assert known(folder, size - 1) == keys(1, 2, 3, 4, 5)
    assert known(folder, size - 10) == keys(1, 2, 3, 4, 5)
    assert known(folder, size - 11) == keys(1, 2, 3, 4)
    assert known(folder, size - 30) == keys(1, 2, 3)


@pytest.mark.parametrize("size", [0, 129])
def test_a_file_that_is_shorter_than_it_was_knows_nothing(folder: int, size: int) -> None:
    record_batches(folder, keys(1, 2), keys(3), keys(4, 5, 6))
    assert known(folder, size) == []
    assert known(folder, 1000) == [], "and never again"


def test_a_batch_of_which_a_part_is_there_stays_so_when_others_follow(folder: int) -> None:
    size = record_batches(folder, keys(1, 2), keys(3, 4))
    record = BatchRecord(folder, "rows", size - 10)
    assert list(record.known) == keys(1, 2, 3)
    record.begin(size - 10, keys(4), [5])
    record.settle(0)  # It failed.
    record.begin(size - 10, keys(5), [7])
    record.close()
    assert known(folder, size) == keys(1, 2, 3, 5)


def test_what_is_known_survives_that_the_file_is_replaced(folder: int) -> None:
    size = record_batches(folder, keys(1, 2))
    record = BatchRecord(folder, "rows", size)
    record.leave(size)
    record.close()
    for new_size in (size, size + 1, 10 * size):
        assert known(folder, new_size) == keys(1, 2)


def test_a_record_torn_at_any_byte_knows_the_batches_before(folder: int) -> None:
    record_batches(folder, keys(1, 2))
    first = path(folder).read_bytes()
    size = record_batches(folder, keys(3, 4))  # From 100 on, in the place of others.
    path(folder).unlink()
    record_batches(folder, keys(1, 2), keys(3, 4))
    whole = path(folder).read_bytes()
    assert whole.startswith(first)
    for length in range(len(whole)):
        path(folder).write_bytes(whole[:length])
        expected = keys(1, 2) if length >= len(first) else []
        assert known(folder, size) == expected
        assert path(folder).stat().st_size == (len(first) if expected else 0)


def test_a_record_with_any_byte_changed_knows_nothing_that_is_not_so(folder: int) -> None:
    size = record_batches(folder, keys(1, 2), keys(3), keys(4))
    whole = path(folder).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path(folder).write_bytes(changed)
        assert keys(1, 2, 3, 4)[: len(found := known(folder, size))] == found
        assert len(found) < 4
        # And a batch of the same length does not bring back what stood behind it.
        record = BatchRecord(folder, "rows", size)
        record.begin(size, keys(9), [10])
        record.close()
        assert known(folder, size) == found


def test_a_long_record_is_replaced_by_a_short_one(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_record, "RECORD_BYTES_MAX", 2000)
    monkeypatch.setattr(batch_record, "KEYS_KEPT", 20)
    record = BatchRecord(folder, "rows", 100)
    longest = 0
    for number in range(1, 301):
        record.begin(100 + number, keys(number), [1])
        record.settle(1)
        longest = max(longest, path(folder).stat().st_size)
        assert len(record.known) <= 40
        assert keys(*range(max(1, number - 19), number + 1)) == list(record.known)[-20:]
        if number % 10 == 0:
            record.close()
            record = BatchRecord(folder, "rows", 101 + number)
    record.close()
    assert longest < 2100
    assert known(folder, 401)[-20:] == keys(*range(281, 301))
    assert [entry.name for entry in path(folder).parent.iterdir()] == [".rows.batch"]


def test_a_record_that_cannot_be_shortened_or_written_says_so_and_goes_on_later(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_record, "RECORD_BYTES_MAX", 100)
    size = record_batches(folder, keys(1, 2), keys(3, 4))
    record = BatchRecord(folder, "rows", size)
    with monkeypatch.context() as patch:
        patch.setattr(batch_record, "replace_atomically", full)
        record.begin(size, keys(5), [10])
        record.settle(1)
        patch.setattr(batch_record, "_write_at", full)
        with pytest.raises(OSError, match="full"):
            record.begin(size + 10, keys(6), [10])
    assert list(record.known) == keys(1, 2, 3, 4, 5)
    record.begin(size + 10, keys(7), [10])
    record.close()
    assert known(folder, size + 20) == keys(1, 2, 3, 4, 5, 7)


def test_a_symlink_or_a_folder_is_refused(folder: int, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    path(folder).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="rows") as caught:
        BatchRecord(folder, "rows", 0)
    assert caught.value.errno == errno.ELOOP
    path(folder).unlink()
    path(folder).mkdir()
    with pytest.raises(OSError, match="rows"):
        BatchRecord(folder, "rows", 0)
    assert (tmp_path / "outside").read_text() == "kept"


def test_what_is_no_record_is_replaced(folder: int) -> None:
    path(folder).write_bytes(b"a letter\n" * 100)
    assert known(folder, 100) == []
    size = record_batches(folder, keys(1))
    assert known(folder, size) == keys(1)


@given(st.lists(st.lists(st.tuples(U64, U64), unique=True, max_size=5), max_size=6))
def test_every_key_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    own = os.open(tmp_path_factory.mktemp("record"), os.O_RDONLY)
    try:
        size = record_batches(own, *batches)
        assert known(own, size) == list(dict.fromkeys(key for batch in batches for key in batch))
    finally:
        os.close(own)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")
