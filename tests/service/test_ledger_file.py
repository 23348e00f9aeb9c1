"""Lines and words stored into mapped files: whole or not there, also on a full disk."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.ledger_file import LineFile, Marks, read_marks

EXTENT = mmap.ALLOCATIONGRANULARITY
LINES = st.lists(
    st.integers(1, EXTENT).map(lambda size: b"x" * (size - 1) + b"\n"), min_size=1, max_size=20
)


def content(path: Path) -> bytes:
    return path.read_bytes().partition(b"\0")[0]


def make(path: Path) -> LineFile:
    return LineFile(path, extent_bytes=EXTENT)


# Lines.


def test_a_line_is_in_the_file_before_anything_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = make(path)
    assert file.append(b"one\n")
    assert file.append(b"two\n")
    assert content(path) == b"one\ntwo\n"
    assert file.length == 8
    file.close()
    assert path.read_bytes() == b"one\ntwo\n"


@given(LINES)
def test_lines_of_any_length_cross_the_extents(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("run") / "lines"
    file = make(path)
    for number, line in enumerate(lines):
        file.make_room()
        assert file.append(line)
        assert content(path) == b"".join(lines[: number + 1])
    assert not file.needs_room or file.length > EXTENT - 1
    file.sync()
    file.close()
    assert path.read_bytes() == b"".join(lines)


def test_without_room_a_line_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = make(path)
    assert file.needs_room
    assert file.append(b"x" * (EXTENT - 3) + b"\n")
    assert not file.append(b"four\n")
    assert file.append(b"y\n")  # It fits exactly.
    assert not file.append(b"\n")
    file.make_room()
    assert not file.needs_room
    assert file.append(b"four\n")
    assert file.needs_room
    assert content(path).endswith(b"x\ny\nfour\n")
    file.close()
    assert path.stat().st_size == EXTENT + 5


def test_a_line_larger_than_an_extent_is_refused(tmp_path: Path) -> None:
    file = make(tmp_path / "lines")
    file.make_room()
    assert file.append(b"\n")
    assert not file.append(b"x" * (2 * EXTENT))
    assert file.append(b"x" * (2 * EXTENT - 2) + b"\n")
    file.close()


def test_a_file_or_link_that_is_there_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"keep")
    (tmp_path / "link").symlink_to(path)
    for name in ("lines", "link"):
        with pytest.raises(FileExistsError):
            LineFile(tmp_path / name)
        with pytest.raises(FileExistsError):
            Marks(tmp_path / name, 1)
    assert path.read_bytes() == b"keep"


FULL_DISK = """
import mmap, resource, sys
from pathlib import Path
from millpond.ledger_file import LineFile, Marks

EXTENT = mmap.ALLOCATIONGRANULARITY
folder = Path(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def attempt(deed):
    try:
        deed()
    except OSError as error:
        print(error.strerror, sorted(path.name for path in folder.iterdir()))

limit(EXTENT - 1)
attempt(lambda: LineFile(folder / "lines", extent_bytes=EXTENT))
attempt(lambda: Marks(folder / "marks", 1))
limit(EXTENT + 1)
file = LineFile(folder / "lines", extent_bytes=EXTENT)
attempt(file.make_room)
print(file.append(b"x" * (EXTENT - 1) + b"\\n"), file.append(b"later\\n"))
limit(hard)
file.make_room()
print(file.append(b"later\\n"))
file.close()
"""


def test_a_full_disk_is_an_error_and_never_a_signal(tmp_path: Path) -> None:
    """The limit of a file's size stands for the end of the disk."""
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.splitlines() == [
        "File too large []",
        "File too large []",
        "File too large ['lines']",
        "True False",
        "True",
    ]
    assert (tmp_path / "lines").read_bytes().endswith(b"x\nlater\n")


# Marks.


def test_rows_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    marks = Marks(path, 2, rows=3)
    first, second = marks.take_row(7), marks.take_row(9)
    assert first is not None
    assert second is not None
    marks.words[first + 1] = 2**64 - 1
    marks.words[second + 3] = 5
    assert read_marks(path) == [(7, 2**64 - 1, [0, 0]), (9, 0, [0, 5])]
    marks.free_row(first)
    assert read_marks(path) == [(9, 0, [0, 5])]
    assert marks.take_row(11) == first
    assert marks.take_row(12) is not None
    assert marks.take_row(13) is None
    assert sorted(read_marks(path)) == [(9, 0, [0, 5]), (11, 0, [0, 0]), (12, 0, [0, 0])]
    marks.close(remove=False)
    assert len(read_marks(path)) == 3


def test_marks_are_removed_when_they_are_not_needed(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks", 1)
    marks.close(remove=True)
    with pytest.raises(FileNotFoundError):
        read_marks(tmp_path / "marks")
    assert not list(tmp_path.iterdir())


def test_damaged_marks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    Marks(path, 2, rows=3).close(remove=False)
    whole = path.read_bytes()
    for damaged in (b"", whole[:31], whole[:-8], whole[:-3], b"X" + whole[1:], whole[:8] + b"\2"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"marks has|marks is no"):
            read_marks(path)
    for place in (16, 20, 23, 24, 31):  # The counts in the header.
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with pytest.raises(ValueError, match="its header belies"):
            read_marks(path)
