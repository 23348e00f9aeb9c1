"""Event files: TensorBoard's framing, one file for each start, torn ends cut off."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from millpond_loggers.points.curve import Row, Standing
from millpond_loggers.points.live_points import Point

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from millpond_loggers.points.event_files import EventFiles

FIRST = "events.out.tfevents.0000000001"
SECOND = "events.out.tfevents.0000000002"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    folder = os.open(tmp_path, os.O_RDONLY)
    yield folder
    os.close(folder)


def row(step: int, *, picture: np.ndarray | None = None) -> Row:
    pictures = {} if picture is None else {"rgb": picture}
    point = Point((1, step), f"{step}", step, 1000.0 + step, {}, {}, {}, pictures)
    return Row(point, {"loss": step / 2})


def events(path: Path) -> list[Event]:
    """Read independently of what wrote it, checksums and all."""
    content, found = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        body = content[12 : 12 + length]
        assert int.from_bytes(content[12 + length : 16 + length], "little") == masked_crc32c(body)
        found.append(Event.FromString(body))
        content = content[16 + length :]
    return found


def write(files: EventFiles, rows: list[Row], place: dict[str, int]) -> dict[str, int]:
    after = files.prepare(rows, place)
    files.write(rows)
    return after


def test_a_file_begins_with_its_version_and_holds_the_points(folder: int, tmp_path: Path) -> None:
    files = EventFiles(folder)
    assert files.recorded(Standing()) == 0
    place = write(files, [row(0), row(1)], {})
    place = write(files, [row(2)], place)
    files.close()
    assert place == {"file": 1, "bytes": (tmp_path / FIRST).stat().st_size}
    first, *others = events(tmp_path / FIRST)
    assert first.file_version == "brain.Event:2"
    assert [(event.step, event.wall_time) for event in others] == [(0, 1000), (1, 1001), (2, 1002)]
    assert [event.summary.value[0].simple_value for event in others] == [0, 0.5, 1]


def test_a_picture_is_a_png_of_its_planes(folder: int, tmp_path: Path) -> None:
    pictures = [np.full((2, 3), 9, np.uint8), np.full((2, 3, 3), 9, np.uint8)]
    files = EventFiles(folder)
    files.recorded(Standing())
    write(files, [row(n, picture=picture) for n, picture in enumerate(pictures)], {})
    files.close()
    grey, colour = (event.summary.value[1].image for event in events(tmp_path / FIRST)[1:])
    assert (grey.height, grey.width, grey.colorspace, colour.colorspace) == (2, 3, 1, 3)
    assert colour.encoded_image_string.startswith(b"\x89PNG")


def test_nothing_is_made_before_the_first_point(folder: int, tmp_path: Path) -> None:
    EventFiles(folder).recorded(Standing())
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_not_whole_is_cut_off(folder: int, tmp_path: Path) -> None:
    files = EventFiles(folder)
    files.recorded(Standing())
    place = write(files, [row(0)], {})
    whole = (tmp_path / FIRST).read_bytes()
    after = write(files, [row(1)], place)
    added = [({}, {})]
    for size in range(len(whole), after["bytes"]):
        os.truncate(tmp_path / FIRST, size)
        standing = Standing(1, {}, place, added, after)
        assert EventFiles(folder).recorded(standing) == 0
        assert (tmp_path / FIRST).read_bytes() == whole
    write(files, [row(1)], place)
    files.close()
    assert EventFiles(folder).recorded(Standing(1, {}, place, added, after)) == 1


def test_a_new_start_makes_a_file_that_is_read_after_the_others(
    folder: int, tmp_path: Path
) -> None:
    files = EventFiles(folder)
    files.recorded(Standing())
    place = write(files, [row(0)], {})
    files.close()
    again = EventFiles(folder)
    assert again.recorded(Standing(0, {}, {}, [({}, {})], place)) == 1
    write(again, [row(1)], place)
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [FIRST, SECOND]
    assert [event.step for event in events(tmp_path / SECOND)[1:]] == [1]


def test_a_file_that_was_begun_and_holds_nothing_known_is_removed(
    folder: int, tmp_path: Path
) -> None:
    (tmp_path / FIRST).write_bytes(b"x" * 10)
    (tmp_path / SECOND).write_bytes(b"torn")
    standing = Standing(3, {}, {"file": 1, "bytes": 10}, [({}, {})], {"file": 2, "bytes": 50})
    assert EventFiles(folder).recorded(standing) == 0
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]


@pytest.mark.parametrize("name", [FIRST, "events.out.tfevents.1763816527.host"])
def test_files_of_someone_else_are_not_touched(folder: int, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{name} is not a file of this logger"):
        EventFiles(folder).recorded(Standing())
    assert (tmp_path / name).read_bytes() == b"x"
