"""Which arrays are images, and how their values become the bytes that picture formats hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

COLOUR_PLANES: Final = (3, 4)
LABELS_MAX: Final = 256
# So many values are made into bytes at a time that they stay in a core's own cache.
BLOCK_VALUES: Final = 1 << 15
# How far the three colours go from one label to the next; 1 is once around.
# Source: Martin Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences": the powers of
# 1/g, where g**4 = g + 1.  Every beginning of the sequence is spread evenly over the cube.
LABEL_STEPS: Final = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)

Array = NDArray[Any]


def image_layout(shape: tuple[int, ...]) -> Callable[[Array], Array] | None:
    """How to see an array of this shape as ``(H, W)`` or ``(H, W, C)``; None: it is no image.

    Height and width of an image are at least 2: ``(H, W)``, ``(1, H, W)``, ``(3 or 4, H, W)``,
    ``(H, W, 1)``, ``(H, W, 3 or 4)``; what could be two of them is the first.
    """
    match shape:
        case (height, width) if height >= 2 and width >= 2:
            return lambda array: array
        case (1, height, width) if height >= 2 and width >= 2:
            return lambda array: array[0]
        case (planes, height, width) if planes in COLOUR_PLANES and height >= 2 and width >= 2:
            return lambda array: np.moveaxis(array, 0, 2)
        case (height, width, 1) if height >= 2 and width >= 2:
            return lambda array: array[:, :, 0]
        case (height, width, planes) if planes in COLOUR_PLANES and height >= 2 and width >= 2:
            return lambda array: array
        case _:
            return None


def to_bytes(planes: Array) -> NDArray[np.uint8]:
    """The values of an image as bytes, in a new array of the same shape.

    Args:
        planes: Of any strides.  uint8: as they are.  bool: 0 and 255.  float: 0 to 1 becomes 0 to
            255, rounded to the nearest; what is beyond is clipped, NaN becomes 0.

    Raises:
        ValueError: Other values, for which there is no rule.
    """
    match planes.dtype.kind:
        case "b":
            made: NDArray[np.uint8] = planes.astype(np.uint8, order="C") * np.uint8(255)
            return made
        case "f":
            return _floats_to_bytes(planes)
        case "u" if planes.dtype == np.uint8:
            return np.array(planes, np.uint8, order="C")
    raise ValueError(f"{planes.dtype} is not bool, uint8 or float, so it has no bytes of its own")


@cache
def label_colours() -> NDArray[np.uint8]:
    """A colour for each label: (256, 3), uint8; 0 is black.

    They are the same in every run, no two are alike, and those of small numbers are far apart.
    """
    steps = np.arange(LABELS_MAX)[:, np.newaxis] * LABEL_STEPS
    colours: NDArray[np.uint8] = np.floor(256 * (steps % 1)).astype(np.uint8)
    return colours


def _floats_to_bytes(planes: Array) -> NDArray[np.uint8]:
    made = np.empty(planes.shape, np.uint8)
    if planes.flags.c_contiguous:
        values, target = planes.reshape(len(planes), -1, 1), made.reshape(len(planes), -1, 1)
    else:  # Plane by plane, for that is how they lie in memory.
        values, target = np.atleast_3d(planes), np.atleast_3d(made)
    height, width, count = values.shape
    rows = max(1, BLOCK_VALUES // width)
    block = np.empty((rows, width), np.result_type(planes, np.float32))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for plane in range(count):
            for top in range(0, height, rows):
                part = block[: min(rows, height - top)]
                # Unlike `clip`, this makes 0 of NaN.
                np.fmax(values[top : top + rows, :, plane], 0, out=part)
                np.fmin(part, 1, out=part)
                np.multiply(part, 255, out=part)
                np.rint(part, out=part)
                target[top : top + rows, :, plane] = part
    return made
