"""The image logger: every image in a file of its own, planes without loss."""

import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer
from PIL import Image

from millpond.errors import ConfigError
from millpond_loggers.files.id_folder import subfolder
from millpond_loggers.files.names import file_name
from millpond_loggers.image_logger import ImageLogger, ImageOptions, Logger

RANDOM = np.random.default_rng(0)
FORMATS = {".jpg": "JPEG"}


def record(
    run: Path, values: dict[str, np.ndarray], id: str = "1", **options: Any
) -> dict[str, np.ndarray]:
    """Log one result, and read every file back by its name."""
    buffer = MemoryBuffer({name: (array.shape, array.dtype.name) for name, array in values.items()})
    logger = Logger(str(run), buffer, {"logger": {"name": "image", "options": options}})
    logger.log(buffer.put(id, **values))
    logger.flush()
    found = {path.name: read(path) for path in (run / "images").rglob("*.*")}
    logger.end()
    logger.log(None)
    assert buffer.kept_count() == 0
    assert buffer.freed == []
    assert buffer.registered == 1
    return found


def read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".exr":
        return np.zeros(0)  # What is in it, the tests of the encoders say.
    with Image.open(path) as image:
        assert image.format == FORMATS.get(path.suffix, path.suffix[1:].upper())
        return np.array(image)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "bool", "int64"])
@pytest.mark.parametrize("planes", [3, 4])
@pytest.mark.parametrize("is_first", [True, False])
def test_colours_are_written_as_png(
    tmp_path: Path, dtype: str, planes: int, is_first: bool
) -> None:
    colours = RANDOM.integers(0, 256, (6, 5, planes), np.uint8)
    match np.dtype(dtype).kind:
        case "b":
            values, colours = colours > 99, np.where(colours > 99, 255, 0).astype(np.uint8)
        case "f":
            values = (colours / 255).astype(dtype)
        case _:
            values = colours.astype(dtype)
    found = record(tmp_path, {"rgb": np.moveaxis(values, 2, 0) if is_first else values})
    assert list(found) == ["1_rgb.png"]
    assert same(found["1_rgb.png"], colours)


def test_colours_beyond_the_range_are_clipped_and_nan_is_black(tmp_path: Path) -> None:
    values = np.zeros((3, 2, 4), np.float32)
    values[0] = [[math.nan, math.inf, -math.inf, -0.0], [2.0, -1.0, 0.5, 1e-45]]
    found = record(tmp_path, {"rgb": values, "all_nan": np.full((3, 2, 2), np.nan, np.float64)})
    assert found["1_rgb.png"][:, :, 0].tolist() == [[0, 255, 0, 0], [255, 0, 128, 0]]
    assert not found["1_all_nan.png"].any()


@pytest.mark.parametrize(
    ("dtype", "limits", "extension", "stored"),
    [
        ("uint8", (0, 255), "png", "uint8"),
        ("int32", (0, 255), "png", "uint8"),
        ("int64", (0, 256), "png", "uint16"),
        ("uint16", (0, 65535), "png", "uint16"),
        ("int8", (-1, 127), "tiff", "int32"),
        ("int32", (-1, 5), "tiff", "int32"),
        ("uint32", (0, 65536), "tiff", "int32"),
        ("int64", (-(2**31), 2**31 - 1), "tiff", "int32"),
        ("int64", (-(2**31) - 1, 0), "npy", "int64"),
        ("uint32", (0, 2**31), "npy", "uint32"),
        ("uint64", (0, 2**64 - 1), "npy", "uint64"),
    ],
)
@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (4, 5, 1)])
def test_whole_numbers_are_written_without_loss(
    tmp_path: Path, *, dtype: str, limits: tuple[int, int], extension: str, stored: str, shape: Any
) -> None:
    values = RANDOM.integers(*limits, (4, 5), dtype, endpoint=True)
    values[0, 0], values[3, 4] = limits
    found = record(tmp_path, {"segmentation": values.reshape(shape)})
    assert same(found[f"1_segmentation.{extension}"], values.astype(stored))


def test_a_mask_is_black_and_white(tmp_path: Path) -> None:
    values = np.eye(4, dtype=bool)
    found = record(tmp_path, {"mask": values})
    assert same(found["1_mask.png"], np.where(values, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_depths_are_written_without_loss(tmp_path: Path, dtype: str) -> None:
    values = RANDOM.normal(size=(4, 5)).astype(np.float16).astype(dtype)
    values[0] = [math.nan, math.inf, -math.inf, -0.0, 6e-8]
    values[0, 4] = np.float16(6e-8)
    found = record(tmp_path, {"depth": values})
    assert same(found["1_depth.tiff"], values.astype(np.float32))
    assert same(record(tmp_path, {"x": np.full((2, 2), np.nan, dtype)})["1_x.tiff"],
                np.full((2, 2), np.nan, np.float32))  # fmt: skip


@pytest.mark.parametrize("value", [0.1, 1e300, 5e-324])
def test_float64_that_float32_cannot_hold_keeps_its_type(tmp_path: Path, value: float) -> None:
    values = np.full((4, 5), value)
    values[1, 1] = math.nan
    found = record(tmp_path, {"depth": values})
    assert list(found) == ["1_depth.npy"]
    assert same(found["1_depth.npy"], values)


def test_other_whole_colours_keep_their_type(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65536, (3, 4, 5), np.uint16)
    values[0, 0, 0] = 300
    found = record(tmp_path, {"rgb": values})
    assert same(found["1_rgb.npy"], np.ascontiguousarray(np.moveaxis(values, 0, 2)))


def test_the_encoding_npy_keeps_all_numbers(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
    found = record(tmp_path, {"rgb": values}, encoding="npy")
    assert same(found["1_rgb.npy"], np.ascontiguousarray(np.moveaxis(values, 0, 2)))


def test_only_images_are_written_and_only_those_asked_for(tmp_path: Path) -> None:
    values = {
        "rgb": np.zeros((3, 4, 4), np.uint8),
        "depth": np.zeros((4, 4), np.float32),
        "loss": np.zeros((), np.float32),
        "wave": np.zeros((4, 4), np.complex64),
    }
    assert set(record(tmp_path, values)) == {"1_rgb.png", "1_depth.tiff"}
    other = tmp_path / "other"
    other.mkdir()
    assert set(record(other, values, channels=["depth", "depth"])) == {"1_depth.tiff"}
    for name, problem in (("loss", "not an image"), ("wave", "not an image"), ("x", "no channel")):
        message = rf"image\.options\.channels: '{name}' is {problem}; the images are: rgb, depth"
        with pytest.raises(ConfigError, match=message):
            record(tmp_path, values, channels=["rgb", name])


def test_no_image_at_all_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert record(tmp_path, {"loss": np.zeros(())}) == {}
    assert [entry.getMessage() for entry in caplog.records] == [
        "no channel is an image, so none is written"
    ]


@pytest.mark.parametrize(
    "options",
    [{"compress_level": 10}, {"quality": 0}, {"threads": 0}, {"subfolders": 4}, {"chanels": []}],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Logger(str(tmp_path), MemoryBuffer({}), {"logger": {"options": options}})


def test_the_level_of_compression_is_an_option(tmp_path: Path) -> None:
    sizes = []
    for level in (0, 9):
        record(tmp_path, {"rgb": np.zeros((3, 32, 32), np.uint8)}, compress_level=level)
        sizes.append((tmp_path / "images" / "1_rgb.png").stat().st_size)
    assert sizes[0] > 3072 > sizes[1]


@pytest.mark.parametrize("id", ["../../x", "/etc/x", "", "..", "a\0b", "😀" * 100, "-x", "\ud800"])
def test_odd_ids_stay_in_the_folder(tmp_path: Path, id: str) -> None:
    long_name = "c" * 64
    found = record(tmp_path, {long_name: np.zeros((2, 2), np.int16) - 1}, id=id)
    assert list(found) == [file_name(id, f"_{long_name}.tiff")]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_ids_and_channels_that_join_to_one_name_have_two_files(tmp_path: Path) -> None:
    values = {"rgb": np.zeros((2, 2), np.uint8), "left_rgb": np.ones((2, 2), np.uint8)}
    record(tmp_path, values, id="x")
    found = record(tmp_path, values, id="x_left")
    assert len(found) == 4
    assert found["x_left_rgb.png"].all()


def test_a_result_that_comes_again_writes_the_same_file(tmp_path: Path) -> None:
    values = {"rgb": RANDOM.random((3, 4, 4), np.float32)}
    record(tmp_path, values)
    content = (tmp_path / "images" / "1_rgb.png").read_bytes()
    record(tmp_path, values)
    assert (tmp_path / "images" / "1_rgb.png").read_bytes() == content


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (outside / "file").write_text("kept")
    (run / "images" / "1_rgb.png").symlink_to(outside / "file")
    record(run, {"rgb": np.zeros((2, 2), np.uint8)})
    assert (outside / "file").read_text() == "kept"
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "images").symlink_to(outside)
    with pytest.raises(OSError, match="images"):
        record(linked, {"rgb": np.zeros((2, 2), np.uint8)})
    assert [path.name for path in outside.iterdir()] == ["file"]


LIMITED = """
import resource, sys
import numpy as np
from loggers.memory_buffer import MemoryBuffer
from millpond_loggers.image_logger import Logger
buffer = MemoryBuffer({"rgb": ((64, 64), "uint8"), "other": ((64, 64), "uint8")}, 8)
options = {"compress_level": 0, "threads": int(sys.argv[2])}
logger = Logger(sys.argv[1], buffer, {"logger": {"options": options}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    items = [buffer.put(str(number)) for number in range(8)]
    if logger.log_many:
        logger.log_many(items)
    else:
        logger.log(items[0])
except OSError as problem:
    print(problem.errno, buffer.kept_count())
logger.end()
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_disk_leaves_no_half_file_and_no_array_in_the_error(
    tmp_path: Path, threads: int
) -> None:
    done = run_python(LIMITED, str(tmp_path), str(threads))
    assert done.stdout.split() == [str(errno.EFBIG), "0"]
    assert list((tmp_path / "images").iterdir()) == []


def test_what_a_dead_process_left_is_removed_at_the_start(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f".1_rgb.png.tmp-{dead.pid}").write_bytes(b"half")
    assert list(record(tmp_path, {"rgb": np.zeros((2, 2), np.uint8)})) == ["1_rgb.png"]


def start(folder: Path, channels: dict[str, Any], **options: Any) -> tuple[Logger, MemoryBuffer]:
    buffer = MemoryBuffer(channels, 64)
    return Logger(str(folder), buffer, {"logger": {"name": "image", "options": options}}), buffer


@pytest.mark.parametrize("threads", [2, 5])
def test_many_results_at_once_are_written_and_no_array_is_kept(
    tmp_path: Path, threads: int
) -> None:
    """A thread must have let go of an array before anyone could ask who has it."""
    logger, buffer = start(tmp_path, {"rgb": ((3, 8, 8), "float32"), "mask": ((8, 8), "bool")},
                           threads=threads)  # fmt: skip
    for batch in range(30):
        numbers = range(batch * 40, batch * 40 + 40)
        logger.log_many([buffer.put(str(number), rgb=number / 1200) for number in numbers])
        assert buffer.kept_count() == 0
    logger.end()
    logger.end()
    assert len(list((tmp_path / "images").iterdir())) == 2 * 1200
    for number in (0, 600, 1199):
        expected = np.full((8, 8, 3), round(255 * number / 1200), np.uint8)
        assert same(read(tmp_path / "images" / f"{number}_rgb.png"), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_of_two_results_with_one_id_the_later_one_stays(tmp_path: Path, threads: int) -> None:
    logger, buffer = start(tmp_path, {"rgb": ((3, 64, 64), "uint8")}, threads=threads)
    items = [buffer.put("1", rgb=number) for number in range(9)]
    if threads > 1:
        logger.log_many(items)
    else:
        assert logger.log_many is None
        for item in items:
            logger.log(item)
    logger.end()
    assert read(tmp_path / "images" / "1_rgb.png").min() == 8


def test_what_goes_wrong_in_a_thread_is_raised_and_holds_no_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, buffer = start(tmp_path, {"rgb": ((3, 64, 64), "uint8")}, threads=2)
    item = buffer.put("1")
    with monkeypatch.context() as patch:
        patch.setattr("millpond_loggers.images.image_encoding.encode_png", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            logger.log_many([item])
    assert buffer.kept_count() == 0
    logger.log_many([item])
    logger.end()
    assert (tmp_path / "images" / "1_rgb.png").exists()


def test_each_channel_has_the_encoding_that_was_asked_for(tmp_path: Path) -> None:
    values = {
        "rgb": np.full((3, 16, 16), 0.5, np.float32),
        "mask": np.ones((16, 16), bool),
        "labels": np.full((1, 16, 16), 5, np.int32),
        "depth": np.ones((16, 16), np.float32),
        "normal": np.ones((3, 16, 16), np.float32),
    }
    encoding = {"rgb": "jpeg", "labels": "palette", "normal": "exr", "mask": "webp"}
    found = record(tmp_path, values, encoding=encoding)
    names = {"1_rgb.jpg", "1_mask.webp", "1_labels.png", "1_depth.tiff", "1_normal.exr"}
    assert set(found) == names
    assert np.abs(found["1_rgb.jpg"].astype(int) - 128).max() < 3
    assert (found["1_labels.png"] == 5).all()
    assert found["1_mask.webp"].min() > 250


def test_one_word_is_the_encoding_of_all_and_a_star_that_of_the_others(tmp_path: Path) -> None:
    values = {"rgb": np.zeros((3, 4, 4), np.uint8), "other": np.zeros((3, 4, 4), np.uint8)}
    assert set(record(tmp_path, values, encoding="jpeg")) == {"1_rgb.jpg", "1_other.jpg"}
    other = tmp_path / "other"
    other.mkdir()
    found = record(other, values, encoding={"rgb": "png", "*": "npy"})
    assert set(found) == {"1_rgb.png", "1_other.npy"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "npy"}, r"there is no option 'format': write `encoding: npy`"),
        ({"encoding": "gif"}, r"option 'encoding': 'gif' is not 'auto', 'png', 'palette', 'jpeg'"),
        ({"encoding": {"rgb": "gif"}}, r"option 'encoding\.rgb': 'gif' is not 'auto', 'png'"),
        ({"encoding": ["png"]}, r"option 'encoding': \['png'\] is not a valid dictionary"),
        ({"encoding": {"lgb": "png"}}, r"image\.options\.encoding: 'lgb' is no channel"),
        ({"encoding": {"loss": "png"}}, r"'loss' is not an image; the images are: rgb, depth"),
        ({"encoding": "jpeg"}, r"channel 'depth' \(float32, one plane\) cannot be written "
         r"as jpeg; possible: auto, tiff, exr, npy"),
    ],
)  # fmt: skip
def test_wrong_encodings_are_told_before_the_first_result(
    tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    channels = {
        "rgb": ((3, 4, 4), "float32"),
        "depth": ((4, 4), "float32"),
        "loss": ((), "float32"),
    }
    with pytest.raises(ConfigError, match=problem):
        start(tmp_path, channels, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_channel_that_is_not_wanted_need_not_fit_the_encoding(tmp_path: Path) -> None:
    values = {"rgb": np.zeros((3, 4, 4), np.float32), "depth": np.zeros((4, 4), np.float32)}
    assert set(record(tmp_path, values, channels=["rgb"], encoding="jpeg")) == {"1_rgb.jpg"}


@pytest.mark.parametrize("digits", [1, 3])
def test_files_can_be_spread_over_subfolders(tmp_path: Path, digits: int) -> None:
    values = {"rgb": np.zeros((4, 4), np.uint8)}
    for id in ("a", "b", "../x"):
        record(tmp_path, values, id, subfolders=digits)
        name = file_name(id, "_rgb.png")
        assert (tmp_path / "images" / subfolder(id, digits) / name).is_file()


def test_what_is_recorded_is_found_whatever_the_options_were(tmp_path: Path) -> None:
    channels = {"rgb": ((3, 4, 4), "float32"), "depth": ((4, 4), "float32"), "loss": ((), "u1")}
    values = {"rgb": np.zeros((3, 4, 4), np.float32), "depth": np.zeros((4, 4), np.float32)}
    record(tmp_path, values, "a")
    record(tmp_path, values, "b", encoding={"rgb": "webp", "depth": "exr"}, subfolders=2)
    record(tmp_path, values, "c", channels=["rgb"], encoding="jpeg", subfolders=1)
    for options in ({}, {"subfolders": 3}, {"encoding": "npy"}):
        is_there = Logger.is_recorded(str(tmp_path), ImageOptions(**options), channels)
        assert [is_there(id) for id in "abcd"] == [True, True, False, False]
    is_there = Logger.is_recorded(str(tmp_path), ImageOptions(channels=["rgb"]), channels)
    assert [is_there(id) for id in "abcd"] == [True, True, True, False]


def test_the_module_exports_the_logger() -> None:
    assert Logger is ImageLogger


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )


def test_two_loggers_have_folders_of_their_own(tmp_path: Path) -> None:
    assert record(tmp_path, {"rgb": np.zeros((3, 4, 4), np.uint8)}, folder="wrong") == {}
    assert [path.name for path in (tmp_path / "wrong").iterdir()] == ["1_rgb.png"]
    options = ImageOptions(folder="wrong")
    is_there = ImageLogger.is_recorded(str(tmp_path), options, {"rgb": ((3, 4, 4), "uint8")})
    assert is_there("1")
    assert not is_there("2")
