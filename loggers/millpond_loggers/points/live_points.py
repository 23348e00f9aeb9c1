"""What a dashboard is shown of a result: its numbers, whether it is right, now and then a picture.

Shared by the loggers for TensorBoard, MLflow and Weights & Biases.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from millpond.errors import ConfigError
from millpond_loggers.base import Options, ResultBuffer
from millpond_loggers.images.pixels import image_layout, to_bytes
from millpond_loggers.points.running_accuracy import group_name

COLOUR_PLANES: Final = (3, 4)

_Array = NDArray[Any]


class LiveOptions(Options):
    """The options that the dashboards have in common."""

    scalars: list[str] | None = Field(
        None, description="Channels drawn as curves; null is every channel of one real number."
    )
    accuracy: list[str] | None = Field(
        None, description="Channels whose share of true values is drawn; null is every bool scalar."
    )
    groups: list[str] = Field(
        ["environment", "model"],
        description="Fields or render args whose values each get an accuracy of their own.",
    )
    group_count_max: int = Field(
        20, ge=0, le=1000, description="Values of each group that get one; others count in all."
    )
    images: list[str] | None = Field(
        None, description="Channels shown as pictures; null is the first with colours, [] is none."
    )
    image_every: int = Field(
        100, ge=1, description="Results from one picture to the next; the first one has one."
    )
    image_count_max: int = Field(50, ge=0, description="Pictures of a channel in the whole run.")
    image_side_max: int = Field(
        512, ge=16, description="Pixels of the longer side; larger pictures are thinned out."
    )


@dataclass(frozen=True, slots=True)
class Point:
    """What is shown of one result; holds copies only.

    Attributes:
        key: Which result it is: `ResultBuffer.key_of`.
        id: Its id.
        step: Its place on the axis: the running number of results, from 0.
        time_s: When it was logged, in seconds since 1970.
        scalars: Channel to number.
        flags: Channel to whether it is right.
        groups: Field to value, for the accuracies.
        pictures: Channel to (height, width) or (height, width, 3 or 4), uint8.
    """

    key: tuple[int, int]
    id: str
    step: int
    time_s: float
    scalars: dict[str, float]
    flags: dict[str, bool]
    groups: dict[str, str]
    pictures: dict[str, NDArray[np.uint8]]


class PointReader:
    """Takes the points out of results.

    Args:
        name: The logger's, for messages.
        options: What to take.
        buffer: Where the results are.

    Raises:
        ConfigError: An option names a channel that is not there, or is of another kind.
    """

    def __init__(self, name: str, options: LiveOptions, buffer: ResultBuffer) -> None:
        self._name = name
        self._options = options
        self._buffer = buffer
        channels = buffer.channels
        self._indices = {
            channel: (0,) * len(shape)
            for channel, (shape, dtype) in channels.items()
            if len(shape) <= 1 and math.prod(shape) == 1 and not dtype.startswith("complex")
        }
        flags = [channel for channel in self._indices if channels[channel][1] == "bool"]
        layouts = {
            channel: layout
            for channel, (shape, dtype) in channels.items()
            if not dtype.startswith("complex") and (layout := image_layout(shape)) is not None
        }
        first = next((name for name in layouts if _is_colour(channels[name][0])), None)
        self._scalars = self._chosen("scalars", self._indices, list(self._indices))
        self._flags = self._chosen("accuracy", flags, flags)
        images = self._chosen("images", layouts, [] if first is None else [first])
        self._layouts = {channel: layouts[channel] for channel in images}

    def read(self, item: dict[str, Any], step: int) -> Point:
        """The point of one result.

        Args:
            item: As `log` gets it.
            step: Its place on the axis.
        """
        arrays = self._buffer[item["result_ix"]]
        numbers = {name: arrays[name][index] for name, index in self._indices.items()}
        arguments = item["render_args"]
        values = ((field, item.get(field, arguments.get(field))) for field in self._options.groups)
        pictures = {}
        if self._has_pictures(step):
            for name, layout in self._layouts.items():
                pictures[name] = _thinned(layout(arrays[name]), self._options.image_side_max)
        return Point(
            self._buffer.key_of(item["result_ix"]),
            item["id"],
            step,
            time.time(),
            {name: float(numbers[name]) for name in self._scalars},
            {name: bool(numbers[name]) for name in self._flags},
            {group_name(field): group_name(value) for field, value in values if value is not None},
            pictures,
        )

    def _has_pictures(self, step: int) -> bool:
        number, rest = divmod(step, self._options.image_every)
        return rest == 0 and number < self._options.image_count_max

    def _chosen(self, option: str, possible: Sequence[str] | Any, default: list[str]) -> list[str]:
        wanted: list[str] | None = getattr(self._options, option)
        for channel in wanted or ():
            if channel not in possible:
                what = _KINDS[option] if channel in self._buffer.channels else "a channel"
                raise ConfigError(
                    f"'{channel}' is not {what}; possible are: {', '.join(possible) or 'none'}",
                    key=f"{self._name}.options.{option}",
                )
        return default if wanted is None else list(dict.fromkeys(wanted))


_KINDS: Final = {
    "scalars": "a channel of one real number",
    "accuracy": "a channel of one bool",
    "images": "an image",
}


def _is_colour(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and bool({shape[0], shape[2]} & set(COLOUR_PLANES))


def _thinned(planes: _Array, side_max: int) -> NDArray[np.uint8]:
    """A picture to look at, not to measure: bytes, a copy, not larger than asked for."""
    stride = -(-max(planes.shape[:2]) // side_max)
    planes = planes[::stride, ::stride]
    is_float = planes.dtype.kind == "f"
    if planes.dtype in (np.uint8, np.bool_) or (is_float and planes.ndim == 3):
        return to_bytes(planes)
    values = planes.astype(np.float64)
    seen = values[np.isfinite(values)]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 0.0)
    if is_float or low < 0 or high > 255:
        # Depth, or labels beyond a byte: from the least to the largest, black to white.
        with np.errstate(over="ignore", invalid="ignore"):
            values = (values - low) / ((high - low) or 1)
        return to_bytes(values)
    return values.astype(np.uint8)
