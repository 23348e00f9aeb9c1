"""What an image is, and how values become bytes: the same for every logger of pictures."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from millpond_loggers.images.pixels import BLOCK_VALUES, image_layout, label_colours, to_bytes


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((2, 3), (2, 3)),
        ((1, 2, 3), (2, 3)),
        ((2, 3, 1), (2, 3)),
        ((1, 5, 3), (5, 3)),
        ((3, 5, 3), (5, 3, 3)),
        ((4, 5, 3), (5, 3, 4)),
        ((3, 5, 1), (3, 5)),
        ((5, 3, 4), (5, 3, 4)),
        ((), None),
        ((9,), None),
        ((1, 9), None),
        ((9, 1), None),
        ((2, 5, 5), None),
        ((3, 1, 9), None),
        ((1, 3, 5, 5), None),
    ],
)
def test_a_channel_is_an_image_by_its_shape(shape: Any, seen: Any) -> None:
    layout = image_layout(shape)
    assert (layout and layout(np.zeros(shape)).shape) == seen


def plain_to_bytes(values: np.ndarray) -> np.ndarray:
    """The rule, written down once more without any care for speed."""
    with np.errstate(all="ignore"):
        wide = values.astype(np.result_type(values, np.float32))
        return np.rint(np.clip(np.nan_to_num(wide, nan=0), 0, 1) * 255).astype(np.uint8)


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9),
        elements={"allow_nan": True, "allow_infinity": True},
    )
)
def test_floats_become_bytes_by_the_rule_however_they_lie(values: np.ndarray) -> None:
    expected = plain_to_bytes(values)
    for order in ("C", "F"):
        made = to_bytes(np.array(values, order=order))
        assert made.dtype == np.uint8
        assert made.flags.c_contiguous
        assert np.array_equal(made, expected)


@pytest.mark.parametrize("shape", [(300, 300, 3), (3, 300, 300), (2, BLOCK_VALUES + 1)])
def test_images_larger_than_a_block_are_whole(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape, np.float32) * 1.2 - 0.1
    assert np.array_equal(to_bytes(values), plain_to_bytes(values))
    turned = np.moveaxis(values, 0, -1)
    assert np.array_equal(to_bytes(turned), plain_to_bytes(turned))


def test_what_is_beyond_the_range_is_clipped_and_nan_is_black() -> None:
    values = np.array([[math.nan, math.inf, -math.inf, -0.0], [2.0, -1.0, 0.5, 1e-45]], np.float32)
    assert to_bytes(values).tolist() == [[0, 255, 0, 0], [255, 0, 128, 0]]


def test_bytes_stay_and_masks_are_black_and_white() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert to_bytes(values).tolist() == values.tolist()
    assert not np.shares_memory(to_bytes(values), values)
    assert to_bytes(np.eye(2, dtype=bool)).tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "complex64"])
def test_other_values_have_no_bytes(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"{dtype} is not bool, uint8 or float"):
        to_bytes(np.zeros((2, 2), dtype))


def test_labels_have_colours_that_are_easily_told_apart() -> None:
    colours = label_colours().astype(float)
    distances = np.linalg.norm(colours[:, np.newaxis] - colours, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert colours[0].tolist() == [0, 0, 0]
    assert distances.min() > 25
    assert distances[:21, :21].min() > 70
    assert np.diag(distances, 1).min() > 140


def test_labels_have_the_same_colours_for_ever() -> None:
    """Pictures of two runs, years apart, are compared by eye."""
    assert label_colours()[:4].tolist() == [
        [0, 0, 0],
        [209, 171, 140],
        [163, 87, 25],
        [117, 3, 166],
    ]
