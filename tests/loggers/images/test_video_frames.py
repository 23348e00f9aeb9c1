"""The list of frames: read back as it was written, torn or not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond_loggers.images.video_frames import (
    Frame,
    files_of_all_instances,
    group_name,
    names_in,
    read_frames,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("id", ["000001", "", 'a"b', "../x", "😀" * 100, "a\nb"])
def test_a_line_is_read_back_as_it_was(tmp_path: Path, folder: int, id: str) -> None:
    frames = [Frame(id, "x-0001.mp4", number, "x", (2**40, number + 1)) for number in range(3)]
    (tmp_path / "frames.jsonl").write_bytes(b"".join(frame.to_line() for frame in frames))
    assert list(read_frames(folder, "frames.jsonl")) == frames


def test_half_a_surrogate_pair_is_spelt_out(tmp_path: Path, folder: int) -> None:
    (tmp_path / "frames.jsonl").write_bytes(Frame("a\udc80", "x", 0, "\ud800", (1, 1)).to_line())
    (frame,) = read_frames(folder, "frames.jsonl")
    assert (frame.id, frame.group) == ("a\\udc80", "\\ud800")


def test_a_torn_line_is_no_line_and_no_file_has_none(tmp_path: Path, folder: int) -> None:
    assert list(read_frames(folder, "frames.jsonl")) == []
    line = Frame("1", "x-0001.mp4", 0, "x", (1, 1)).to_line()
    for end in range(len(line)):
        (tmp_path / "frames.jsonl").write_bytes(line + line[:end])
        assert len(list(read_frames(folder, "frames.jsonl"))) == 1


@pytest.mark.parametrize("line", [b"x", b"[]", b'{"id": "1"}', b"\xff", b""])
def test_another_kind_of_file_is_told(tmp_path: Path, folder: int, line: bytes) -> None:
    good = Frame("1", "x-0001.mp4", 0, "x", (1, 1)).to_line()
    (tmp_path / "frames.jsonl").write_bytes(good + line + b"\n")
    with pytest.raises(ValueError, match=r"frames\.jsonl: line 2 says of no frame"):
        list(read_frames(folder, "frames.jsonl"))


def test_the_lists_of_all_instances_are_found(tmp_path: Path, folder: int) -> None:
    for name in (
        "frames.jsonl",
        "frames-2.jsonl",
        "frames-12.jsonl",
        "other.jsonl",
        "frames-x.jsonl",
    ):
        (tmp_path / name).touch()
    found = ["frames-12.jsonl", "frames-2.jsonl", "frames.jsonl"]
    assert files_of_all_instances(folder, "frames.jsonl") == found
    assert files_of_all_instances(folder, "frames-2.jsonl") == found
    assert len(names_in(folder)) == 5


@pytest.mark.parametrize(
    ("fields", "names", "expected"),
    [
        ({"model": "teapot"}, ["model"], "teapot"),
        ({"model": "a_b"}, ["model"], "a_b"),
        ({"model": "a", "environment": "b"}, ["environment", "model"], "b_a"),
        ({"model": "a_b", "environment": "c"}, ["model", "environment"], '["a_b","c"]'),
        ({"model": "a", "environment": "b_c"}, ["model", "environment"], '["a","b_c"]'),
        ({"render_args": {"zoom": 1.5}}, ["zoom"], "1.5"),
        ({"zoom": "field", "render_args": {"zoom": 1.5}}, ["zoom"], "field"),
        ({}, ["model"], "none"),
        ({"model": "\ud800_", "environment": ""}, ["model", "environment"], '["\\\\ud800_",""]'),
    ],
)
def test_groups_are_called_by_their_values(
    fields: dict[str, Any], names: list[str], expected: str
) -> None:
    assert group_name({"id": "1", "render_args": {}} | fields, names) == expected
