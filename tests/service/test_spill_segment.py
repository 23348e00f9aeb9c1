"""A segment file holds what was written to it, and nothing that was taken back."""

import os

import pytest

from millpond.spill_record import Kind, unpack_header
from millpond.spill_segment import (
    Segment,
    open_for_reading,
    segment_name,
    segment_number,
    sync_folder,
)


@pytest.fixture
def segment(tmp_path):
    made = Segment(tmp_path, 5)
    made.create(b"h" * 64)
    yield made
    made.seal()


def test_a_new_segment_has_its_head(segment, tmp_path):
    assert segment.path == tmp_path / "00000005.seg"
    assert segment.path.read_bytes() == b"h" * 64
    assert (segment.end, segment.is_open, segment.is_poisoned) == (64, True, False)


def test_a_file_that_is_there_is_not_touched(segment, tmp_path):
    with pytest.raises(FileExistsError):
        Segment(tmp_path, 5).create(b"other")
    (tmp_path / "00000006.seg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Segment(tmp_path, 6).create(b"other")
    assert segment.path.read_bytes() == b"h" * 64
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_cut_is_gone_and_the_next_takes_its_place(segment):
    segment.write(memoryview(b"kept"))
    segment.sync()
    segment.write(memoryview(b"taken back"))
    segment.cut(68)
    segment.write(memoryview(b"!"))
    assert segment.path.read_bytes() == b"h" * 64 + b"kept!"


def test_what_cannot_be_cut_is_marked(segment, tmp_path):
    segment.write(memoryview(b"x" * 200))
    # A descriptor of a file that may not be cut: opened for reading only.
    writable, segment._fd = segment._fd, os.open(segment.path, os.O_RDONLY)
    segment.cut(64)
    assert not segment.is_open
    assert segment.end == 264  # It still takes the room.
    assert os.pread(writable, 64, 64) == b"x" * 64  # The mark was refused, too.
    segment._fd = writable
    segment._mark_void(64)
    header = unpack_header(os.pread(writable, 64, 64), 5, 64)
    assert header is not None
    assert header.kind == Kind.VOID
    assert header.end == 256  # What is behind it is shorter than a header.


def test_a_sync_that_fails_poisons(segment):
    reading, writing = os.pipe()
    segment._fd, kept = writing, segment._fd
    with pytest.raises(OSError, match="Invalid argument"):
        segment.sync()
    assert segment.is_poisoned
    with pytest.raises(AssertionError):
        segment.sync()
    os.close(reading)
    os.close(kept)


def test_removing_can_be_refused(segment, tmp_path):
    assert segment.unlink()
    assert segment.unlink()
    assert not segment.is_open
    segment.path.mkdir()
    assert not segment.unlink()


def test_names_are_numbers():
    for number in (0, 1, 99_999_999, 100_000_000):
        assert segment_number(segment_name(number)) == number
    for name in ("1.seg", "00000001", "00000001.bin", "0000000²1.seg", "-0000001.seg", ".seg"):
        assert segment_number(name) is None


def test_reading_follows_no_link_and_waits_for_no_pipe(segment, tmp_path):
    (tmp_path / "link").symlink_to(segment.path)
    with pytest.raises(OSError, match="symbolic"):
        open_for_reading(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    os.close(open_for_reading(tmp_path / "pipe"))


def test_a_folder_that_is_missing_cannot_be_synced(tmp_path):
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
