"""What is open in a folder is taken away, as the death of a process does; the rest is not."""

import fcntl
import os
from pathlib import Path

from millpond_loggers.testing.abandoned import abandon_files


def test_what_waits_to_be_written_is_lost_and_does_no_harm(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file:
        file.write("written\n")
        file.flush()
        file.write("waiting\n")
        assert abandon_files(tmp_path) == 1
    assert (tmp_path / "a").read_text() == "written\n"


def test_locks_end(tmp_path: Path) -> None:
    old = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    new = os.open(tmp_path / "a", os.O_RDWR)
    fcntl.flock(old, fcntl.LOCK_EX)
    abandon_files(tmp_path)
    later = os.open(tmp_path / "a", os.O_RDWR)
    fcntl.flock(later, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for descriptor in (old, new, later):
        os.close(descriptor)


def test_folders_are_taken_and_others_are_left(tmp_path: Path) -> None:
    for name in ("in", "inside"):
        (tmp_path / name).mkdir()
    folder = os.open(tmp_path / "in", os.O_RDONLY)
    with (tmp_path / "inside" / "b").open("w") as other:
        assert abandon_files(tmp_path / "in") == 1
        other.write("kept")
    os.close(folder)
    assert (tmp_path / "inside" / "b").read_text() == "kept"
    assert abandon_files(tmp_path / "in") == 0
