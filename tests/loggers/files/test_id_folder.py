"""Files by id: whole or absent, and never too many in one folder."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from millpond_loggers.files.id_folder import IdFolder, subfolder


def test_without_digits_all_files_are_in_the_folder(tmp_path: Path) -> None:
    folder = IdFolder(str(tmp_path), "images")
    folder.write("1", "1.png", b"content")
    folder.close()
    folder.close()
    assert (tmp_path / "images" / "1.png").read_bytes() == b"content"


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_files_are_spread_evenly_over_the_subfolders(digits: int) -> None:
    counts = Counter(subfolder(f"{number:06d}", digits) for number in range(200 * 16**digits // 10))
    assert len(counts) == 16**digits
    assert all(len(name) == digits for name in counts)
    assert max(counts.values()) < 60


@pytest.mark.parametrize("id", ["1", "", "../../x", "\ud800", "x" * 300])
def test_an_id_is_always_in_its_subfolder(tmp_path: Path, id: str) -> None:
    for content in (b"one", b"two"):
        folder = IdFolder(str(tmp_path), "images", digits=2)
        folder.write(id, "x.png", content)
        folder.close()
        assert (tmp_path / "images" / subfolder(id, 2) / "x.png").read_bytes() == content
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_the_subfolders_stay_the_same_for_ever() -> None:
    """`verify` looks there for files of years ago."""
    assert [subfolder(id, 3) for id in ("000001", "")] == ["3a9", "ad2"]
    assert subfolder("000001", 0) == ""


def test_what_a_dead_process_left_is_removed_where_files_are_written(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    inner = tmp_path / "images" / subfolder("1", 2)
    inner.mkdir(parents=True)
    leftovers = [inner / f".1.png.tmp-{dead.pid}", tmp_path / "images" / f".2.png.tmp-{dead.pid}"]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    folder = IdFolder(str(tmp_path), "images", digits=2)
    folder.write("1", "1.png", b"whole")
    folder.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["1.png"]


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / subfolder("1", 1)).symlink_to(outside)
    folder = IdFolder(str(tmp_path), "images", digits=1)
    with pytest.raises(OSError, match=subfolder("1", 1)):
        folder.write("1", "1.png", b"content")
    folder.close()
    assert list(outside.iterdir()) == []
