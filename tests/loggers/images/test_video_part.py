"""A growing video: cut anywhere, it keeps its frames."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from millpond_loggers.images import video_part
from millpond_loggers.images.video_part import VideoPart, VideoSettings, finish, frames_in, raw_name

H264 = VideoSettings(24, "h264", 18)
NAME = "x-0001.mp4"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def picture(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Soft colours that move: every frame differs from its neighbours."""
    across = np.arange(width)[np.newaxis, :, np.newaxis]
    phase = 0.3 * number + np.arange(height)[:, np.newaxis, np.newaxis] / 9 + [0, 2, 4]
    return (127 + 100 * np.sin(across / 7 + phase)).astype(np.uint8)


def grow(folder: int, count: int, settings: VideoSettings = H264, name: str = NAME) -> list[int]:
    """Write so many frames; the sizes of the file after each."""
    part = VideoPart(folder, name, settings)
    sizes = []
    for number in range(count):
        assert part.add(picture(number)) == number
        part.write()
        part.settle()
        sizes.append(os.stat(raw_name(name), dir_fd=folder).st_size)
    part.close()
    part.close()
    return sizes


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def check(frames: list[np.ndarray], count: int) -> None:
    assert len(frames) == count
    for number, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - picture(number)).mean() < 6


@pytest.mark.parametrize("codec", ["auto", "h264", "mpeg4"])
@pytest.mark.parametrize("fps", [0.5, 24, 29.97])
def test_a_video_shows_what_was_added_at_its_rate(
    tmp_path: Path, folder: int, codec: Any, fps: float
) -> None:
    settings = VideoSettings(fps, codec, 10)
    grow(folder, 60, settings)
    check(frames_of(tmp_path / raw_name(NAME)), 60)
    assert finish(folder, NAME, 60, settings) == 60
    check(frames_of(tmp_path / NAME), 60)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    with av.open(str(tmp_path / NAME)) as video:
        stream = video.streams.video[0]
        assert stream.frames == 60
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.codec_context.name == ("mpeg4" if codec == "mpeg4" else "h264")


def test_every_frame_is_in_the_file_as_soon_as_it_was_written(tmp_path: Path, folder: int) -> None:
    """What is behind a whole number of frames is torn off, wherever a kill has torn it."""
    sizes = grow(folder, 12)
    content = (tmp_path / raw_name(NAME)).read_bytes()
    assert sizes == sorted(set(sizes))
    for count in (1, 2, 7, 12):
        rest = content[sizes[count - 1] : sizes[min(count, 11)]]
        for torn_bytes in sorted({0, 1, 100, 188, 200, len(rest)}):
            whole = content[: sizes[count - 1]] + rest[:torn_bytes]
            (tmp_path / raw_name(NAME)).write_bytes(whole)
            assert finish(folder, NAME, count, H264) == count
            check(frames_of(tmp_path / NAME), count)
            (tmp_path / NAME).unlink()


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_frames_are_counted_while_a_video_grows_and_when_it_is_done(
    tmp_path: Path, folder: int, codec: Any
) -> None:
    settings = VideoSettings(24, codec, 20)
    assert frames_in(folder, NAME) == 0
    grow(folder, 0, settings)
    assert frames_in(folder, NAME) == 0
    (tmp_path / raw_name(NAME)).unlink()
    grow(folder, 7, settings)
    assert frames_in(folder, NAME) == 7
    finish(folder, NAME, 5, settings)
    assert frames_in(folder, NAME) == 5
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:100])
    assert frames_in(folder, NAME) == 0


def test_frames_that_are_not_there_are_not_counted(tmp_path: Path, folder: int) -> None:
    grow(folder, 3)
    assert finish(folder, NAME, 5, H264) == 3
    assert len(frames_of(tmp_path / NAME)) == 3


def test_a_video_without_frames_is_none(tmp_path: Path, folder: int) -> None:
    grow(folder, 0)
    assert finish(folder, NAME, 0, H264) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"x" * 5000])
def test_what_is_no_video_is_told_and_stays(tmp_path: Path, folder: int, content: bytes) -> None:
    (tmp_path / raw_name(NAME)).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        finish(folder, NAME, 1, H264)
    assert [path.name for path in tmp_path.iterdir()] == [raw_name(NAME)]


def test_what_was_undone_is_not_in_the_video(tmp_path: Path, folder: int) -> None:
    part = VideoPart(folder, NAME, H264)
    for number in range(5):
        part.add(picture(number))
        if number in {2, 4}:
            part.write()
        if number == 2:
            part.settle()
    part.undo()
    assert (part.frames, part.written) == (3, 3)
    part.write()
    part.close()
    check(frames_of(tmp_path / raw_name(NAME)), 3)


@pytest.mark.parametrize("name", [NAME, raw_name(NAME)])
def test_no_video_is_written_over(tmp_path: Path, folder: int, name: str) -> None:
    (tmp_path / name).write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        VideoPart(folder, NAME, H264)
    assert (tmp_path / name).read_bytes() == b"kept"


@pytest.mark.parametrize("keeps", [True, False])
def test_a_video_that_another_process_takes_for_a_dead_ones_is_not_begun(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    others = []
    lock_it = video_part.lock

    def lock_second(file: int, name: str) -> bool:
        """As if another one had looked for dead ones between the making and the lock."""
        other = os.open(name, os.O_RDWR, dir_fd=folder)
        assert lock_it(other, name)
        if keeps:
            others.append(other)
        else:
            os.unlink(name, dir_fd=folder)
            os.close(other)
        return lock_it(file, name)

    monkeypatch.setattr(video_part, "lock", lock_second)
    with pytest.raises(FileExistsError, match="another process"):
        VideoPart(folder, NAME, H264)
    monkeypatch.undo()
    for other in others:
        os.unlink(raw_name(NAME), dir_fd=folder)
        os.close(other)
    grow(folder, 2)


@pytest.mark.parametrize("shape", [(33, 48), (32, 47), (33, 47), (2, 2), (3, 3)])
def test_odd_sizes_get_one_more_row_or_column(
    tmp_path: Path, folder: int, shape: tuple[int, int]
) -> None:
    part = VideoPart(folder, NAME, H264)
    part.add(picture(0, *shape))
    part.write()
    part.close()
    (frame,) = frames_of(tmp_path / raw_name(NAME))
    assert frame.shape == (shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, 3)
    if min(shape) > 3:
        assert np.abs(frame[: shape[0], : shape[1]].astype(int) - picture(0, *shape)).mean() < 6


def test_a_smaller_factor_keeps_more(tmp_path: Path, folder: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for codec in ("h264", "mpeg4"):
        sizes = []
        for crf in (1, 25, 51):
            part = VideoPart(folder, f"{codec}-{crf}-0001.mp4", VideoSettings(24, codec, crf))
            part.add(noise)
            part.write()
            part.close()
            sizes.append((tmp_path / f"{codec}-{crf}-0001.ts").stat().st_size)
        assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]


@pytest.mark.parametrize(
    ("fps", "rate"), [(24, Fraction(24)), (0.1, Fraction(1, 10)), (29.97, Fraction(2997, 100))]
)
def test_rates_are_fractions(fps: float, rate: Fraction) -> None:
    assert VideoSettings(fps, "h264", 20).rate == rate
