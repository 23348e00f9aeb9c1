"""Names: an id never becomes a path, and no two ids share a file."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millpond_loggers.files.names import (
    ID_BYTES_MAX,
    file_name,
    open_beneath,
    open_folder,
    remove_leftovers,
    write_atomically,
)

# Alphabets that find what is near the edge: separators, escapes, hex digits, any Unicode.
IDS = st.one_of(
    st.text(st.characters(), max_size=400),
    st.text("aA0._-%/\\~ é\0", max_size=12),
    st.text("ab", min_size=150, max_size=200),
    st.text("😀a", min_size=30, max_size=60),
    st.from_regex(r"[a-z._%-]{0,8}-[0-9a-f]{16}", fullmatch=True),
)
NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-%")


@pytest.fixture
def folder(tmp_path: Path):
    descriptor = open_folder(str(tmp_path))
    yield descriptor
    os.close(descriptor)


@settings(deadline=None)
@given(IDS)
@example("")
@example(".")
@example("..")
@example("../../x")
@example("/etc/passwd")
@example("a/b")
@example("-rf")
@example("x" * 300)
@example("\0")
@example("\ud800")
def test_every_id_gives_one_safe_component(id: str) -> None:
    name = file_name(id, "")
    assert name
    assert set(name) <= NAME
    assert name[0] not in ".-"
    assert len(name) <= ID_BYTES_MAX
    assert file_name(id, "_rgb.png") == name + "_rgb.png"


@settings(deadline=None)
@given(IDS, IDS)
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assert (file_name(one, "") == file_name(other, "")) == (one == other)


@settings(deadline=None)
@given(IDS)
def test_an_id_that_copies_the_name_of_another_gets_its_own(id: str) -> None:
    name = file_name(id, "")
    if name != id:
        assert file_name(name, "") != name


@settings(deadline=None)
@given(st.text("ABCxyz019_", min_size=1).flatmap(lambda s: st.just(s + ".-ok")))
def test_a_plain_id_is_its_own_name(id: str) -> None:
    if len(id) <= ID_BYTES_MAX:
        assert file_name(id, "") == id


@pytest.mark.parametrize("length", [179, 180, 181, 182, 300])
def test_long_ids_that_differ_at_the_end_differ(length: int) -> None:
    one, other = "x" * length + "a", "x" * length + "b"
    assert file_name(one, "") != file_name(other, "")
    assert len(file_name(one, "")) <= ID_BYTES_MAX


def test_a_cut_never_splits_an_escape() -> None:
    for blanks in range(4):
        name = file_name("x" * blanks + "é" * 100, "")
        head, _, _ = name.rpartition("-")
        assert all(piece[:2] in {"C3", "A9"} for piece in head.split("%")[1:])
        assert all(len(piece) == 2 for piece in head.split("%")[1:])


def test_readable_ids_stay_readable() -> None:
    assert file_name("000123", ".png") == "000123.png"
    assert file_name("a b/c", "").startswith("a%20b%2Fc-")
    assert file_name(".hidden", "").startswith("%2Ehidden-")


def test_an_end_that_could_be_part_of_the_suffix_is_hashed() -> None:
    ends = ("_left",)
    assert file_name("x_left", "_rgb.png", hashed_ends=ends) != "x_left_rgb.png"
    assert file_name("x", "_left_rgb.png", hashed_ends=ends) == "x_left_rgb.png"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\0b", "x" * 256])
def test_what_is_no_plain_name_is_not_opened(folder: int, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"not a plain|longer than"):
        open_beneath(folder, name, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(ValueError, match=r"not a plain|longer than"):
        write_atomically(folder, name, b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_symlink_is_not_followed(folder: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match="link") as caught:
        open_beneath(folder, "link", os.O_WRONLY | os.O_CREAT)
    assert caught.value.errno == errno.ELOOP
    write_atomically(folder, "link", b"new")
    assert outside.read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_named_pipe_is_refused_at_once(folder: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular"):
        open_beneath(folder, "pipe", os.O_RDWR)
    with pytest.raises(OSError, match="pipe"):
        open_beneath(folder, "pipe", os.O_WRONLY)


def test_a_folder_that_is_a_symlink_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_text("")
    for name in ("images", "file"):
        with pytest.raises(OSError, match=name):
            open_folder(str(tmp_path), name=name)


def test_a_file_is_replaced_whole_and_nothing_is_left(folder: int, tmp_path: Path) -> None:
    write_atomically(folder, "a.png", b"old")
    write_atomically(folder, "a.png", b"new content")
    write_atomically(folder, "x" * 255, b"long")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "x" * 255]
    assert (tmp_path / "a.png").read_bytes() == b"new content"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    script = (
        "import os, resource, sys\n"
        "from millpond_loggers.files.names import open_folder, write_atomically\n"
        "folder = open_folder(sys.argv[1])\n"
        "write_atomically(folder, 'a', b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_atomically(folder, 'a', b'x' * 2000)\n"
        "except OSError as problem:\n"
        "    print(problem.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == errno.EFBIG
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_only_what_dead_processes_left_is_removed(folder: int, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f".a.png.tmp-{dead.pid}", f".b.tmp-{os.getpid()}", ".c.tmp-9999999999"]
    kept = [".a.png.tmp-1", ".hidden", "a.tmp-1", ".x.tmp-abc", "a.png"]
    for name in gone + kept:
        (tmp_path / name).write_text("")
    assert remove_leftovers(folder) == len(gone)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
