"""A file that one process at a time may have."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from millpond_loggers.files import locked_file
from millpond_loggers.files.locked_file import lock, open_locked
from millpond_loggers.files.names import open_folder

REMEDY = "take another file"


@pytest.fixture
def folder(tmp_path: Path):
    descriptor = open_folder(str(tmp_path))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked_file, "LOCK_S", 0.0)


def test_a_file_is_made_or_opened_as_it_is(folder: int, tmp_path: Path) -> None:
    os.close(open_locked(folder, "a", remedy=REMEDY))
    (tmp_path / "a").write_bytes(b"content")
    file = open_locked(folder, "a", remedy=REMEDY)
    assert os.read(file, 99) == b"content"
    os.write(file, b"s")
    os.close(file)
    assert (tmp_path / "a").read_bytes() == b"contents"


def test_who_comes_second_is_told_what_to_do(
    folder: int, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_locked(folder, "a", remedy=REMEDY)
    with pytest.raises(BlockingIOError, match=r"another logger .*; take another file") as raised:
        open_locked(folder, "a", remedy=REMEDY)
    assert (raised.value.errno, raised.value.filename) == (errno.EWOULDBLOCK, "a")
    os.close(first)
    os.close(open_locked(folder, "a", remedy=REMEDY))


def test_the_second_waits_for_the_first_to_finish(
    folder: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_locked(folder, "a", remedy=REMEDY)
    monkeypatch.setattr(locked_file.time, "sleep", lambda _: os.close(first))
    os.close(open_locked(folder, "a", remedy=REMEDY))
    assert [entry.getMessage() for entry in caplog.records] == [
        "file is locked, waiting file=a wait_s=5"
    ]


def test_a_file_that_was_replaced_meanwhile_is_not_the_one(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first puts a new file in place and goes: the second must have the new one."""
    first = open_locked(folder, "a", remedy=REMEDY)

    def replace_and_go(_: float) -> None:
        (tmp_path / "b").write_bytes(b"new")
        (tmp_path / "b").rename(tmp_path / "a")
        os.close(first)

    real_open = locked_file.open_beneath

    def open_then_replace(*arguments: object) -> int:
        file = real_open(*arguments)
        monkeypatch.setattr(locked_file, "open_beneath", real_open)
        replace_and_go(0)
        return file

    monkeypatch.setattr(locked_file, "open_beneath", open_then_replace)
    monkeypatch.setattr(locked_file.time, "sleep", lambda _: None)
    file = open_locked(folder, "a", remedy=REMEDY)
    assert os.read(file, 9) == b"new"
    os.close(file)


def test_a_removed_file_is_made_again(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = locked_file.open_beneath

    def open_then_remove(*arguments: object) -> int:
        file = real_open(*arguments)
        monkeypatch.setattr(locked_file, "open_beneath", real_open)
        (tmp_path / "a").unlink()
        return file

    monkeypatch.setattr(locked_file, "open_beneath", open_then_remove)
    monkeypatch.setattr(locked_file.time, "sleep", lambda _: None)
    os.close(open_locked(folder, "a", remedy=REMEDY))
    assert (tmp_path / "a").exists()


def test_symlinks_are_not_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        open_locked(folder, "a", remedy=REMEDY)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    """As a descriptor that cannot be locked."""
    path = os.open("/", os.O_PATH)
    with pytest.raises(OSError, match="Bad file"):
        fcntl.flock(path, fcntl.LOCK_EX)
    assert lock(path, "a")
    assert "file cannot be locked file=a" in caplog.text
    os.close(path)
