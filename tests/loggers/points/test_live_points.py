"""Points: what is taken out of a result, and what is refused."""

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers.points.live_points import LiveOptions, PointReader

CHANNELS = {
    "depth": ((1, 4, 6), "float32"),
    "rgb": ((3, 4, 6), "float32"),
    "loss": ((), "float32"),
    "prediction": ((1,), "int64"),
    "is_correct": ((), "bool"),
    "phase": ((), "complex64"),
    "features": ((8,), "float32"),
}


def reader(buffer: MemoryBuffer, **options) -> PointReader:
    return PointReader("board", LiveOptions(**options), buffer)


def test_every_real_scalar_every_bool_and_the_first_colours_are_taken_by_default() -> None:
    buffer = MemoryBuffer(CHANNELS)
    item = buffer.put("a", {"zoom": 2}, loss=0.5, prediction=7, is_correct=True, model="teapot")
    point = reader(buffer).read(item, 0)
    assert point.scalars == {"loss": 0.5, "prediction": 7.0, "is_correct": 1.0}
    assert point.flags == {"is_correct": True}
    assert point.groups == {"model": "teapot"}
    assert {name: array.shape for name, array in point.pictures.items()} == {"rgb": (4, 6, 3)}
    assert (point.id, point.step) == ("a", 0)


def test_a_point_refers_to_no_shared_memory() -> None:
    buffer = MemoryBuffer({**CHANNELS, "bytes": ((4, 6, 3), "uint8"), "mask": ((4, 6), "bool")})
    points = reader(buffer, images=["bytes", "rgb", "depth", "mask"])
    point = points.read(buffer.put("a"), 0)
    assert len(point.pictures) == 4
    assert buffer.kept_count() == 0


def test_render_args_can_be_groups() -> None:
    buffer = MemoryBuffer(CHANNELS)
    item = buffer.put("a", {"floor": 3, "none": None})
    assert reader(buffer, groups=["floor", "none", "absent"]).read(item, 1).groups == {"floor": "3"}


def test_pictures_are_sampled_and_end() -> None:
    buffer = MemoryBuffer(CHANNELS)
    points = reader(buffer, image_every=3, image_count_max=2)
    shown = [step for step in range(20) if points.read(buffer.put("a"), step).pictures]
    assert shown == [0, 3]


def test_a_large_picture_is_thinned_out() -> None:
    buffer = MemoryBuffer({"rgb": ((3, 100, 33), "float32")})
    picture = reader(buffer, image_side_max=20).read(buffer.put("a"), 0).pictures["rgb"]
    assert picture.shape == (20, 7, 3)


@pytest.mark.parametrize(
    ("dtype", "values", "shown"),
    [
        ("float32", [0.5, 2.5, np.nan, np.inf], [0, 255, 0, 255]),  # Depth, from near to far.
        ("float32", [7, 7, 7, 7], [0, 0, 0, 0]),
        ("float32", [np.nan] * 4, [0, 0, 0, 0]),
        ("int32", [0, 1, 17, 255], [0, 1, 17, 255]),
        ("int32", [-5, 0, 5, 505], [0, 2, 5, 255]),
        ("bool", [0, 1, 1, 0], [0, 255, 255, 0]),
        ("uint8", [0, 1, 2, 255], [0, 1, 2, 255]),
    ],
)
def test_one_plane_is_made_visible(dtype: str, values: list, shown: list) -> None:
    buffer = MemoryBuffer({"plane": ((2, 2), dtype)})
    item = buffer.put("a", plane=np.array(values).reshape(2, 2))
    picture = reader(buffer, images=["plane"]).read(item, 0).pictures["plane"]
    assert picture.dtype == np.uint8
    assert picture.ravel().tolist() == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scalars": ["rgb"]}, "'rgb' is not a channel of one real number; possible are: loss, "),
        ({"scalars": ["phase"]}, "'phase' is not a channel of one real number"),
        ({"accuracy": ["loss"]}, "'loss' is not a channel of one bool; possible are: is_correct"),
        ({"images": ["features"]}, "'features' is not an image; possible are: depth, rgb"),
        ({"images": ["rgbb"]}, "'rgbb' is not a channel; possible are: depth, rgb"),
    ],
)
def test_a_channel_that_cannot_be_shown_is_refused_by_name(options: dict, message: str) -> None:
    (option,) = options
    with pytest.raises(ConfigError, match=message) as raised:
        reader(MemoryBuffer(CHANNELS), **options)
    assert str(raised.value).startswith(f"board.options.{option}")
