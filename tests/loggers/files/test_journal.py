"""The journal: what was appended is there after any death, and nothing that was not."""

import errno
import os
import resource
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond_loggers.files import journal as module
from millpond_loggers.files import locked_file
from millpond_loggers.files.journal import Journal, pack_record, read_journal
from millpond_loggers.files.names import open_folder

ABOUT = {"part": "part-000001.x", "about": [1, "two"]}


@pytest.fixture
def folder(tmp_path: Path):
    descriptor = open_folder(str(tmp_path))
    yield descriptor
    os.close(descriptor)


def opened(folder: int) -> Journal:
    return Journal(folder, "j", remedy="take another")


def begun(folder: int, *earlier: tuple[int, int]) -> Journal:
    journal = opened(folder)
    journal.begin(ABOUT, earlier)
    return journal


def packed(number: int, size: int = 100) -> bytes:
    return pack_record((7, number), [b"%d" % number, bytes(size)])


def contents(journal: Journal) -> list[tuple[tuple[int, int], list[bytes]]]:
    return [(key, [bytes(piece) for piece in pieces]) for key, pieces in journal.records()]


def test_a_new_one_is_empty_and_knows_nothing(folder: int) -> None:
    journal = opened(folder)
    assert (journal.about, journal.keys, journal.count, journal.size) == (None, [], 0, 0)
    assert journal.records() == []
    journal.close()


def test_what_was_appended_is_there_when_it_is_opened_again(folder: int) -> None:
    journal = begun(folder, (1, 2), (3, 4))
    journal.append([packed(1), packed(2)])
    journal.append([packed(3)])
    assert journal.count == 3
    size = journal.size
    journal.close()
    journal.close()
    again = opened(folder)
    assert again.about == ABOUT
    assert again.keys == [(1, 2), (3, 4), (7, 1), (7, 2), (7, 3)]
    assert (again.count, again.size) == (3, size)
    again.append([packed(4)])
    assert contents(again) == [((7, n), [b"%d" % n, bytes(100)]) for n in (1, 2, 3, 4)]
    again.close()


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        memoryview(b"abc"),
        np.float32(1.5).reshape(()),
        np.array(True),
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.full((2, 2), 1 - 2j, np.complex64),
    ],
)
def test_a_piece_may_be_bytes_or_an_array(folder: int, piece: Any) -> None:
    journal = begun(folder)
    journal.append([pack_record((1, 1), [piece, b"next"])])
    ((_, pieces),) = contents(journal)
    assert pieces == [piece.tobytes() if hasattr(piece, "tobytes") else piece, b"next"]
    journal.close()


def test_arrays_are_copied(folder: int) -> None:
    array = np.zeros(4)
    record = pack_record((1, 1), [array])
    array[:] = 9
    journal = begun(folder)
    journal.append([record])
    assert contents(journal) == [((1, 1), [bytes(32)])]
    journal.close()


def test_begin_puts_an_empty_one_in_place(folder: int, tmp_path: Path) -> None:
    journal = begun(folder)
    journal.append([packed(1)])
    old = journal.records()
    journal.begin({"part": "other"}, [(7, 1)])
    assert (journal.about, journal.count, journal.records()) == ({"part": "other"}, 0, [])
    assert bytes(old[0].pieces[0]) == b"1", "what was read lives on"
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    journal.append([packed(2)])
    journal.close()
    again = opened(folder)
    assert again.keys == [(7, 1), (7, 2)]
    again.close()


def test_no_other_process_has_it_meanwhile(
    folder: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locked_file, "LOCK_S", 0.0)
    journal = opened(folder)
    for _ in range(2):  # The one that `begin` puts in place is locked too.
        with pytest.raises(BlockingIOError, match="take another"):
            opened(folder)
        journal.begin(ABOUT, [])
    journal.close()
    opened(folder).close()


def test_a_torn_record_is_cut_off_wherever_it_ends(
    folder: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun(folder)
    journal.append([packed(1)])
    whole = journal.size
    journal.append([packed(2, size=8)])
    journal.close()
    content = (tmp_path / "j").read_bytes()
    for end in range(whole, len(content)):
        (tmp_path / "j").write_bytes(content[:end])
        again = opened(folder)
        assert [key for key, _ in contents(again)] == [(7, 1)]
        assert (tmp_path / "j").stat().st_size == whole
        again.append([packed(3)])
        assert [key for key, _ in contents(again)] == [(7, 1), (7, 3)]
        again.close()
    assert "end of journal cut off file=j" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["j"]


def test_a_damaged_one_is_copied_and_what_is_before_is_kept(
    folder: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = begun(folder)
    journal.append([packed(1)])
    whole = journal.size
    journal.append([packed(2), packed(3)])
    journal.close()
    good = (tmp_path / "j").read_bytes()
    for place in (whole, whole + 50):  # The magic, and within the pieces.
        bad = bytearray(good)
        bad[place] ^= 1
        (tmp_path / "j").write_bytes(bad)
        again = opened(folder)
        assert [key for key, _ in contents(again)] == [(7, 1)]
        assert (tmp_path / "j.damaged").read_bytes() == bad
        again.close()
    assert "journal is damaged, a copy is kept file=j copy=j.damaged" in caplog.text


@pytest.mark.parametrize("content", [b"other" * 20, packed(1), bytes(4096)])
def test_what_is_no_journal_is_copied_and_begun_anew(
    folder: int, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "j").write_bytes(content)
    journal = opened(folder)
    assert (journal.about, journal.count) == (None, 0)
    assert (tmp_path / "j.damaged").read_bytes() == content
    journal.begin(ABOUT, [])
    journal.append([packed(2)])
    assert [key for key, _ in contents(journal)] == [(7, 2)]
    journal.close()


def on_a_small_disk(test: Callable[..., None]) -> Callable[..., None]:
    """Files of this process may have 1,000 bytes: beyond that, writes are short, then fail.

    Not as a fixture: pytest itself writes to a file, perhaps, before a fixture ends.
    """

    @wraps(test)
    def limited(*args: Any, **kwargs: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            test(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, old)

    return limited


@on_a_small_disk
def test_records_that_do_not_fit_leave_no_trace(folder: int) -> None:
    journal = begun(folder)
    journal.append([packed(1)])
    size = journal.size
    with pytest.raises(OSError, match="too large") as raised:
        journal.append([packed(2), packed(3, size=2000)])
    assert raised.value.errno == errno.EFBIG
    assert (journal.size, journal.count) == (size, 1)
    journal.append([packed(4)])
    assert [key for key, _ in contents(journal)] == [(7, 1), (7, 4)]
    journal.close()


@on_a_small_disk
def test_what_cannot_be_cut_off_at_once_is_cut_off_later(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begun(folder)

    def refuse(*_: int) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "ftruncate", refuse)
        with pytest.raises(OSError, match="too large"):
            journal.append([packed(2), packed(3, size=2000)])
        with pytest.raises(OSError, match="no"):
            journal.append([packed(4)])
    journal.append([packed(5)])
    journal.close()
    again = opened(folder)
    assert again.keys == [(7, 5)]
    again.close()


@on_a_small_disk
def test_begin_that_fails_changes_nothing(folder: int, tmp_path: Path) -> None:
    journal = begun(folder)
    journal.append([packed(1)])
    with pytest.raises(OSError, match="too large"):
        journal.begin({"long": "x" * 2000}, [])
    assert (journal.about, journal.count) == (ABOUT, 1)
    journal.append([packed(2)])
    assert [key for key, _ in contents(journal)] == [(7, 1), (7, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["j"]
    journal.close()


def test_a_removed_one_is_gone(folder: int, tmp_path: Path) -> None:
    journal = begun(folder)
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_reading_changes_nothing(folder: int, tmp_path: Path) -> None:
    journal = begun(folder, (1, 1))
    journal.append([packed(1)])
    journal.close()
    content = (tmp_path / "j").read_bytes() + b"mpJ1 torn"
    (tmp_path / "j").write_bytes(content)
    with (tmp_path / "j").open("rb") as file:
        found = read_journal(file.fileno())
    assert (found.about, found.earlier, found.is_damaged) == (ABOUT, [(1, 1)], False)
    assert found.end == len(content) - len(b"mpJ1 torn")
    assert [record.key for record in found.records] == [(7, 1)]
    assert (tmp_path / "j").read_bytes() == content
