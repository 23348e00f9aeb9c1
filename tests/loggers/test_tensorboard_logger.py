"""The TensorBoard logger, read back as TensorBoard does."""

import io
from pathlib import Path

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer
from PIL import Image

from millpond.errors import ConfigError
from millpond_loggers.tensorboard_logger import Logger, TensorBoardLogger

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")

CHANNELS = {
    "rgb": ((3, 8, 8), "float32"),
    "loss": ((), "float32"),
    "is_correct": ((), "bool"),
}


def start(root: Path, buffer: MemoryBuffer, *, instance: int = 1, instances: int = 1, **options):
    own = {"name": "board", "options": options, "instance": instance, "instances": instances}
    return Logger(str(root), buffer, {"logger": own})


def load(folder: Path):
    """As TensorBoard reads a run: every file, in its order."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    run = accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0})
    run.Reload()
    return run


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in load(folder).Scalars(tag)]


def test_tensorboard_shows_curves_accuracies_and_pictures(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, image_every=2)
    assert isinstance(logger, TensorBoardLogger)
    for number in range(4):
        rgb = np.full((3, 8, 8), number / 4, np.float32)
        model = "cup" if number < 2 else "teapot"
        logger.log(
            buffer.put(f"{number}", rgb=rgb, loss=number, is_correct=number != 1, model=model)
        )
    logger.flush()
    logger.end()
    logger.end()
    run = load(tmp_path / "tensorboard" / "board")
    assert run.Tags()["scalars"] == [
        "loss",
        "is_correct",
        "accuracy/is_correct",
        "accuracy/is_correct/model/cup",
        "accuracy/is_correct/model/teapot",
    ]
    assert [(event.step, event.value) for event in run.Scalars("loss")] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    assert [event.value for event in run.Scalars("accuracy/is_correct")] == pytest.approx(
        [1, 1 / 2, 2 / 3, 3 / 4]
    )
    assert [event.step for event in run.Scalars("accuracy/is_correct/model/teapot")] == [2, 3]
    pictures = run.Images("rgb")
    assert [picture.step for picture in pictures] == [0, 2]
    decoded = np.asarray(Image.open(io.BytesIO(pictures[1].encoded_image_string)))
    assert decoded.shape == (8, 8, 3)
    assert set(decoded.ravel().tolist()) == {128}
    assert buffer.kept_count() == 0


def test_points_are_in_the_file_when_flush_returns(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer)
    for number in range(3):
        logger.log(buffer.put(f"{number}", loss=number))
        logger.flush()
        assert len(points(tmp_path / "tensorboard" / "board", "loss")) == number + 1
    logger.end()


def test_nan_and_inf_are_points_too(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer)
    for value in (np.nan, np.inf, -np.inf):
        logger.log(buffer.put("a", loss=value))
    logger.end()
    values = [value for _, value in points(tmp_path / "tensorboard" / "board", "loss")]
    assert np.isnan(values[0])
    assert values[1:] == [np.inf, -np.inf]


def test_a_restart_goes_on_in_a_new_file_without_a_point_twice(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    for numbers in ([1, 2], [2, 3], [1, 2, 3, 4]):
        logger = start(tmp_path, buffer)
        for number in numbers:
            logger.log(buffer.put(f"{number}", key=(1, number), loss=number))
        logger.flush()
        logger.end()
    folder = tmp_path / "tensorboard" / "board"
    assert points(folder, "loss") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 3


def test_a_failed_write_is_told_and_its_points_come_later(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer)
    logger.log(buffer.put("1", key=(1, 1), loss=1))
    blocker = tmp_path / "tensorboard" / "board" / "events.out.tfevents.0000000001"
    blocker.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        logger.flush()
    blocker.unlink()
    for number in (1, 2):
        logger.log(buffer.put(f"{number}", key=(1, number), loss=number))
    logger.end()
    assert points(tmp_path / "tensorboard" / "board", "loss") == [(0, 1), (1, 2)]
    assert not (tmp_path / "elsewhere").exists()


def test_each_instance_has_a_run_of_its_own(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    loggers = [start(tmp_path, buffer, instance=n, instances=2, folder="tb") for n in (1, 2)]
    for number, logger in enumerate(loggers):
        logger.log(buffer.put(f"{number}", loss=number))
        logger.end()
    assert points(tmp_path / "tb" / "board-1", "loss") == [(0, 0)]
    assert points(tmp_path / "tb" / "board-2", "loss") == [(0, 1)]


def test_a_wrong_option_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"board\.options\.images: 'loss' is not an image"):
        start(tmp_path, MemoryBuffer(CHANNELS), images=["loss"])
    assert not list(tmp_path.rglob("*tfevents*"))


def test_without_pictures_and_groups_only_numbers_are_written(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[], groups=[], scalars=["loss"])
    logger.log(buffer.put("a", model="teapot"))
    logger.log(None)
    run = load(tmp_path / "tensorboard" / "board")
    assert run.Tags()["scalars"] == ["loss", "accuracy/is_correct"]
    assert run.Tags()["images"] == []
