"""The video logger: every result is one frame, and the list says which."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import orjson
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers import video_logger
from millpond_loggers.testing.abandoned import abandon_files
from millpond_loggers.video_logger import Logger, VideoLogger, VideoOptions

CHANNELS = {"loss": ((), "float32"), "rgb": ((3, 16, 16), "float32")}
STEPS = 10  # Shades that are told apart after the encoder had them.


class Run:
    """A logger and its buffer; `restart` is what a kill and a new start do."""

    def __init__(
        self, root: Path, channels: Any = CHANNELS, own: Any = None, **options: Any
    ) -> None:
        self.root = root
        self.buffer = MemoryBuffer(channels, 8)
        self.options = options
        self.own: dict[str, Any] = own or {}
        self.start()

    def start(self) -> None:
        own = {"name": "video", "options": self.options} | self.own
        self.logger = Logger(str(self.root), self.buffer, {"logger": own})

    def restart(self) -> None:
        abandon_files(self.root)
        self.start()

    def log(self, *numbers: int, flush: bool = True, **fields: Any) -> None:
        for number in numbers:
            shade = number % STEPS / STEPS
            key = (1, number + 1)
            self.logger.log(self.buffer.put(f"{number:06d}", rgb=shade, key=key, **fields))
            assert self.buffer.kept_count() == 0
        if flush:
            self.logger.flush()

    def recorded(self, **options: Any) -> dict[str, int]:
        checked = VideoOptions(**self.options | options)
        return dict(Logger.recorded(str(self.root), checked, CHANNELS))

    def end(self) -> None:
        self.logger.end()
        self.logger.log(None)
        check(self.root)


def lines(root: Path, name: str = "frames.jsonl") -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (root / "videos" / name).read_bytes().splitlines()]


def shades(path: Path) -> list[float]:
    with av.open(str(path)) as video:
        return [
            float(frame.to_ndarray(format="rgb24").mean()) / 255 for frame in video.decode(video=0)
        ]


def check(root: Path) -> None:
    """Every line's frame shows its result, no frame is without a line, nothing else is there."""
    shown = {path.name: shades(path) for path in (root / "videos").glob("*.mp4")}
    listed = dict.fromkeys(shown, 0)
    for path in (root / "videos").glob("frames*.jsonl"):
        for line in lines(root, path.name):
            shade = shown[line["file"]][line["frame"]]
            assert abs(shade - int(line["id"]) % STEPS / STEPS) < 0.04, line
            listed[line["file"]] += 1
    assert listed == {name: len(frames) for name, frames in shown.items()}
    others = [path.name for path in (root / "videos").iterdir() if path.name not in shown]
    assert all(name.lstrip(".").startswith("frames") for name in others), others


def videos(root: Path, pattern: str = "*.mp4") -> list[str]:
    return sorted(path.name for path in (root / "videos").glob(pattern))


def test_every_result_is_a_frame_in_order(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for number in range(0, 50, 5):
        run.log(*range(number, number + 5))
    run.end()
    assert videos(tmp_path) == ["rgb-0001.mp4"]
    assert [(line["id"], line["frame"]) for line in lines(tmp_path)] == [
        (f"{number:06d}", number) for number in range(50)
    ]
    assert run.recorded() == {f"{number:06d}": 1 for number in range(50)}


def test_each_group_has_its_video(tmp_path: Path) -> None:
    run = Run(tmp_path, group_by=["model", "zoom"])
    for number in range(12):
        run.log(number, model=f"m{number % 2}", render_args={"zoom": number % 3})
    run.log(12)
    run.end()
    assert videos(tmp_path) == sorted(
        [f"m{m}_{zoom}-0001.mp4" for m in range(2) for zoom in range(3)] + ["none_none-0001.mp4"]
    )
    assert {line["group"] for line in lines(tmp_path)} >= {"m0_0", "m1_2", "none_none"}


@pytest.mark.parametrize("group", ["../x", "", "a/b", "😀" * 99, "x" * 300, "\ud800", ".."])
def test_odd_groups_stay_in_the_folder(tmp_path: Path, group: str) -> None:
    run = Run(tmp_path, group_by=["model"])
    run.log(1, model=group)
    run.end()
    assert len(videos(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_full_video_is_done_and_the_next_one_begins(tmp_path: Path) -> None:
    run = Run(tmp_path, frames_max=4)
    run.log(*range(6))
    assert videos(tmp_path) == ["rgb-0001.mp4"]
    run.log(*range(6, 11))
    assert videos(tmp_path) == ["rgb-0001.mp4", "rgb-0002.mp4"]
    run.end()
    assert videos(tmp_path) == [f"rgb-000{number}.mp4" for number in (1, 2, 3)]


def test_more_groups_than_may_be_open_take_turns(tmp_path: Path) -> None:
    run = Run(tmp_path, group_by=["model"], open_max=2)
    for number in range(9):
        run.log(number, model=f"m{number % 3}", flush=number % 2 == 0)
    run.end()
    assert len(videos(tmp_path)) == 9


def test_what_was_flushed_is_there_after_a_kill_and_what_was_not_comes_again_once(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.log(*range(5))
    run.log(5, 6, flush=False)
    assert videos(tmp_path, "*.ts") == ["rgb-0001.ts"]
    assert len(shades(tmp_path / "videos" / "rgb-0001.ts")) == 5
    assert run.recorded() == {f"{number:06d}": 1 for number in range(5)}
    run.restart()
    assert videos(tmp_path, "*.ts") == []
    assert len(shades(tmp_path / "videos" / "rgb-0001.mp4")) == 5
    run.log(*range(3, 9))  # Also some of which the daemon did not know that they are recorded.
    run.end()
    assert videos(tmp_path) == ["rgb-0001.mp4", "rgb-0002.mp4"]
    assert run.recorded() == {f"{number:06d}": 1 for number in range(9)}


def test_frames_without_a_line_are_cut_off(tmp_path: Path, monkeypatch: Any) -> None:
    """A kill between the frames and their lines."""
    run = Run(tmp_path)
    run.log(0, 1)
    run.log(2, 3, flush=False)
    for part in run.logger._growing.values():
        part.write()
    assert len(shades(tmp_path / "videos" / "rgb-0001.ts")) == 4
    run.restart()
    run.log(2, 3)
    run.end()
    assert run.recorded() == {f"{number:06d}": 1 for number in range(4)}
    assert [len(shades(tmp_path / "videos" / name)) for name in videos(tmp_path)] == [2, 2]


def test_a_video_without_a_line_is_removed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log(0, flush=False)
    run.restart()
    assert videos(tmp_path, "*.ts") == []
    run.end()
    assert videos(tmp_path, "*.*") == ["frames.jsonl"]


def test_ids_that_are_the_same_are_frames_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(3):
        run.logger.log(run.buffer.put("000004", rgb=0.4))
    run.logger.flush()
    run.end()
    assert run.recorded() == {"000004": 3}


def test_an_empty_run_leaves_no_video(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.logger.flush()
    run.end()
    assert videos(tmp_path) == []
    assert run.recorded() == {}
    assert Logger.recorded(str(tmp_path / "other"), VideoOptions(), CHANNELS) == {}


def test_lines_of_a_video_that_is_gone_do_not_count(tmp_path: Path) -> None:
    run = Run(tmp_path, frames_max=2)
    run.log(*range(4))
    run.end()
    (tmp_path / "videos" / "rgb-0001.mp4").unlink()
    assert run.recorded() == {"000002": 1, "000003": 1}
    run.start()
    run.log(4)
    run.logger.end()
    assert videos(tmp_path) == ["rgb-0002.mp4", "rgb-0003.mp4"]


def test_frames_that_were_cut_off_do_not_count_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut may take what a kill leaves."""
    run = Run(tmp_path)
    run.log(0, 1, 2)
    path = tmp_path / "videos" / "rgb-0001.ts"
    path.write_bytes(path.read_bytes()[:-188])
    run.restart()
    assert [entry.getMessage() for entry in caplog.records] == [
        "rgb-0001.mp4 has 2 frames, 1 are lost"
    ]
    assert run.recorded() == {"000000": 1, "000001": 1}
    run.logger.end()


def test_processes_of_one_logger_keep_to_their_own(tmp_path: Path) -> None:
    runs = [Run(tmp_path, own={"instance": instance, "instances": 2}) for instance in (1, 2)]
    runs[0].log(0, 2)
    runs[1].log(1, 3)
    for run in runs:
        run.logger.end()
    check(tmp_path)
    assert videos(tmp_path) == ["rgb-1-0001.mp4", "rgb-2-0001.mp4"]
    assert runs[0].recorded(file="frames-2.jsonl") == {"000001": 1, "000003": 1}


def test_the_videos_of_a_process_that_is_not_started_again_are_finished_too(
    tmp_path: Path,
) -> None:
    """The configuration may say `instances: 1` the next time."""
    run = Run(tmp_path, own={"instance": 2, "instances": 2})
    run.log(1, 3)
    run.own = {}
    run.restart()
    run.log(2)
    run.end()
    assert videos(tmp_path) == ["rgb-0001.mp4", "rgb-2-0001.mp4"]


def test_a_video_that_another_process_is_making_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "rgb-0001.ts"
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run = Run(tmp_path)
        run.log(1)
        run.logger.end()
    assert path.exists()
    assert videos(tmp_path) == ["rgb-0002.mp4"]


def test_a_grown_file_that_cannot_be_read_stays_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.log(0, 1)
    path = tmp_path / "videos" / "rgb-0001.ts"
    run.restart()
    path.write_bytes(b"x" * 1000)
    (tmp_path / "videos" / "rgb-0001.mp4").unlink()
    run.restart()
    assert path.read_bytes() == b"x" * 1000
    assert any("rgb-0001.ts stays as it is" in entry.getMessage() for entry in caplog.records)
    run.logger.end()


LIMITED = """
import resource, sys
import numpy as np
from loggers.memory_buffer import MemoryBuffer
from millpond_loggers.testing.abandoned import abandon_files
from millpond_loggers.video_logger import Logger
buffer = MemoryBuffer({"rgb": ((3, 64, 64), "uint8")}, 8)
logger = Logger(sys.argv[1], buffer, {"logger": {"options": {"crf": 0}}})
noise = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
def log(*numbers):
    for number in numbers:
        logger.log(buffer.put(f"{number:06d}", rgb=noise[number], key=(1, number + 1)))
    logger.flush()
log(0)
size = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, size))
for _ in range(3):
    try:
        log(1, 2, 3)
    except OSError as problem:
        print(problem.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
log(1, 2, 3)
logger.end()
"""


def test_a_full_disk_takes_nothing_away_and_leaves_no_half_batch(tmp_path: Path) -> None:
    """Then the same results come again, and again, until there is room."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.split() == [str(errno.EFBIG)] * 3, done.stderr
    found = [(line["id"], line["frame"]) for line in lines(tmp_path)]
    assert found == [("000000", 0), ("000001", 0), ("000002", 1), ("000003", 2)]
    counts = [len(shades(tmp_path / "videos" / name)) for name in videos(tmp_path)]
    assert counts == [1, 3]
    assert videos(tmp_path, "*.ts") == []


def test_an_encoder_that_fails_costs_one_result_only(tmp_path: Path, monkeypatch: Any) -> None:
    run = Run(tmp_path)
    run.log(0, 1, flush=False)
    with monkeypatch.context() as patch:
        patch.setattr(type(next(iter(run.logger._growing.values()))), "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.logger.log(run.buffer.put("000002", rgb=0.2, key=(1, 3)))
    run.log(3)
    run.log(2)
    run.end()
    assert [line["id"] for line in lines(tmp_path)] == ["000000", "000001", "000003", "000002"]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 16, 16), "float32"), ((4, 16, 16), "float16"), ((16, 16, 3), "float64"),
        ((3, 15, 17), "uint8"), ((16, 16), "uint8"), ((1, 16, 16), "bool"),
    ],
)  # fmt: skip
def test_colours_and_planes_are_shown(tmp_path: Path, shape: Any, dtype: str) -> None:
    run = Run(tmp_path, {"x": (shape, dtype), "depth": ((16, 16), "float32")})
    run.logger.log(run.buffer.put("1", x=1 if dtype.startswith(("f", "b")) else 255))
    run.logger.end()
    assert shades(tmp_path / "videos" / "x-0001.mp4")[0] > 0.97


def test_colours_go_before_planes_and_the_channel_can_be_chosen(tmp_path: Path) -> None:
    channels = {"mask": ((8, 8), "bool"), "rgb": ((3, 8, 8), "uint8"), "x": ((3, 8, 8), "uint8")}
    for folder, expected in (({}, "rgb"), ({"channel": "x"}, "x"), ({"channel": "mask"}, "mask")):
        root = tmp_path / expected
        root.mkdir()
        run = Run(root, channels, **folder)
        run.logger.log(run.buffer.put("1"))
        run.logger.end()
        assert videos(root) == [f"{expected}-0001.mp4"]


@pytest.mark.parametrize(
    ("channels", "options", "problem"),
    [
        (CHANNELS, {"channel": "loss"}, r"video\.options\.channel: 'loss' cannot be shown: a video "
         r"needs .*there are: rgb"),
        (CHANNELS, {"channel": "nothing"}, r"'nothing' cannot be shown"),
        ({"depth": ((8, 8), "float32")}, {}, r"no channel can be shown: .*there are: none"),
        ({"labels": ((3, 8, 8), "int32")}, {}, r"no channel can be shown"),
        (CHANNELS, {"fps": 0}, "option 'fps'"),
        (CHANNELS, {"codec": "vp9"}, "option 'codec': 'vp9' is not 'auto', 'h264' or 'mpeg4'"),
        (CHANNELS, {"crf": 52}, "option 'crf'"),
        (CHANNELS, {"folder": "a/b"}, "option 'folder'"),
        (CHANNELS, {"fsp": 3}, "option 'fsp' is unknown"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_before_the_first_result(
    tmp_path: Path, channels: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        Run(tmp_path, channels, **options)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "videos").symlink_to(outside)
    with pytest.raises(OSError, match="videos"):
        Run(run)
    assert list(outside.iterdir()) == []


def test_an_id_is_listed_as_it_can_be_written() -> None:
    assert Logger.written_id("a\udc80", VideoOptions()) == "a\\udc80"


def test_the_module_exports_the_logger() -> None:
    assert Logger is VideoLogger
    assert Logger.libraries == ("av",)
    assert Logger.extra == "video"


def at_the_look_at_the_folder(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do something once, at the moment at which a logger that starts has seen what is there."""
    real = video_logger.names_in

    def look(folder: int) -> list[str]:
        found = list(real(folder))
        monkeypatch.undo()
        do()
        return found

    monkeypatch.setattr(video_logger, "names_in", look)


def test_frames_that_another_instance_writes_before_it_dies_are_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(tmp_path, own={"instance": 1, "instances": 2})
    first.log(*range(5))

    def goes_on_and_dies() -> None:
        first.log(*range(5, 10))
        for part in first.logger._growing.values():
            part.close()

    at_the_look_at_the_folder(monkeypatch, goes_on_and_dies)
    second = Run(tmp_path, own={"instance": 2, "instances": 2})
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert len(shades(video)) == len(lines(tmp_path, "frames-1.jsonl")) == 10
    second.logger.end()


def test_a_video_that_another_instance_ends_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(tmp_path, own={"instance": 1, "instances": 2}, frames_max=8)
    first.log(*range(5))
    at_the_look_at_the_folder(monkeypatch, lambda: first.log(*range(5, 10)))
    second = Run(tmp_path, own={"instance": 2, "instances": 2}, frames_max=8)
    second.logger.end()
    first.end()
    assert sorted(len(shades(path)) for path in (tmp_path / "videos").glob("*.mp4")) == [2, 8]


def test_a_video_is_locked_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(tmp_path, own={"instance": 1, "instances": 2}, frames_max=8)
    real = video_logger.finish

    def starts_another(*arguments: Any) -> int:
        monkeypatch.undo()
        Run(tmp_path, own={"instance": 2, "instances": 2}, frames_max=8).logger.end()
        return real(*arguments)

    monkeypatch.setattr(video_logger, "finish", starts_another)
    first.log(*range(8))
    first.end()
    assert sorted(len(shades(path)) for path in (tmp_path / "videos").glob("*.mp4")) == [8]
