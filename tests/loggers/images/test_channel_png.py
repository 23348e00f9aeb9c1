"""Which channels have a PNG, and that it holds what they hold."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from millpond.errors import ConfigError
from millpond_loggers.images.channel_png import plan_images

RANDOM = np.random.default_rng(0)
CHANNELS = {
    "rgb": ((3, 4, 5), "float32"),
    "mask": ((4, 5), "bool"),
    "labels": ((1, 4, 5), "int32"),
    "height": ((4, 5), "uint16"),
    "alpha": ((6, 5, 4), "uint8"),
    "depth": ((4, 5), "float32"),
    "wave": ((3, 4, 5), "complex64"),
    "loss": ((), "float32"),
    "row": ((20,), "uint8"),
}


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_by_default_those_whose_values_always_fit() -> None:
    assert list(plan_images(CHANNELS, None, key="k")) == ["rgb", "mask", "height", "alpha"]
    assert list(plan_images(CHANNELS, ["labels", "rgb"], key="k")) == ["labels", "rgb"]
    assert plan_images(CHANNELS, [], key="k") == {}


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("mask", RANDOM.random((4, 5)) > 0.5, lambda array: array * np.uint8(255)),
        ("height", RANDOM.integers(0, 65536, (4, 5), np.uint16), lambda array: array),
        ("labels", RANDOM.integers(0, 65536, (1, 4, 5), np.int32), lambda array: array[0]),
        ("alpha", RANDOM.integers(0, 256, (6, 5, 4), np.uint8), lambda array: array),
        (
            "rgb",
            RANDOM.random((3, 4, 5), np.float32),
            lambda array: np.rint(np.moveaxis(array, 0, 2) * 255).astype(np.uint8),
        ),
    ],
)
def test_the_values_are_kept(name: str, array: np.ndarray, expected: Any) -> None:
    found = read(plan_images(CHANNELS, [name], key="k")[name](array))
    assert np.array_equal(found, expected(array))


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (0, 65_536)])
def test_whole_numbers_that_do_not_fit_are_told(low: int, high: int) -> None:
    array = np.array([[low, high], [0, 0]], np.int64)
    encode = plan_images({"x": ((2, 2), "int64")}, ["x"], key="k")["x"]
    with pytest.raises(ValueError, match=rf"'x' has values from {low} to {high}; a PNG holds"):
        encode(array)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("depth", "has no PNG"),
        ("wave", "has no PNG"),
        ("loss", "has no PNG"),
        ("x", "is no channel"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_ones(name: str, problem: str) -> None:
    message = rf"p\.images: '{name}' {problem}; these have one: rgb, mask, labels, height, alpha"
    with pytest.raises(ConfigError, match=message):
        plan_images(CHANNELS, ["rgb", name], key="p.images")
    with pytest.raises(ConfigError, match="these have one: none"):
        plan_images({"loss": ((), "float32")}, ["loss"], key="k")
