"""A logger that writes each image of a result to ``images/<id>_<channel>.<extension>``.

A channel is an image by its shape, height and width being at least 2: ``(H, W)``, ``(1, H, W)``,
``(3 or 4, H, W)``, ``(H, W, 1)``, ``(H, W, 3 or 4)``; what could be two of them is the first.
Complex numbers are no image.

=================  =====================================  =======================================
values             one plane                              colour: three or four planes
=================  =====================================  =======================================
bool               PNG, 0 and 255                         PNG, 0 and 255
uint8              PNG                                    PNG
other integers     PNG of 8 or 16 bits, TIFF of int32     PNG if all are 0 to 255, else NPY
                   or NPY: the first that holds them all
float              TIFF of float32, or NPY if some        PNG: 0 to 1 becomes 0 to 255; what is
                   float64 would not be the same          beyond is clipped, NaN becomes 0
=================  =====================================  =======================================

So one plane (depth, segmentation) is always lossless.  NPY holds ``(H, W)`` or ``(H, W, C)``.
A file is whole under its name or not there; a result that comes again writes the same file again.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from millpond.errors import ConfigError
from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.names import file_name, open_folder, remove_leftovers, write_atomically

try:
    from PIL import Image
except ImportError as problem:
    raise ImportError('image logger needs Pillow: pip install "millpond[image]"') from problem

log = logging.getLogger(__name__)

FOLDER_NAME: Final = "images"
COLOUR_PLANES: Final = (3, 4)
EXTENSIONS: Final = ("png", "tiff", "npy")

_Array = NDArray[Any]


class ImageOptions(Options):
    """The options of the image logger."""

    # None: every channel that is an image.
    channels: list[str] | None = None
    # npy: every image as the numbers that it is, which is also the fastest.
    format: Literal["png", "npy"] = "png"
    # zlib's.  1 is several times faster than 6, and a few percent larger.
    compress_level: int = Field(1, ge=0, le=9)


@dataclass(frozen=True, slots=True)
class _Plan:
    channel: str
    to_planes: Callable[[_Array], _Array]  # To (H, W) or (H, W, C).


class ImageLogger(BaseLogger):
    """Writes the images; nothing is kept, each file is complete when `log` returns."""

    Options = ImageOptions

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Make the folder, and clear it of what a dead process left half written.

        Raises:
            OSError: There can be no folder ``images``, or it is a symlink.
        """
        super().__init__(root_dir, result_buffer, config)
        self._plans: list[_Plan] | None = None
        self._hashed_ends: tuple[str, ...] = ()
        self._folder = open_folder(root_dir, name=FOLDER_NAME)
        remove_leftovers(self._folder)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Write the images of one result.

        Raises:
            ConfigError: The option ``channels`` names one that is none, or is not an image.
            OSError: A file cannot be written; the result must be logged again.
        """
        if item is None:
            self.end()
            return
        # All are encoded before one is written, so that no error of the disk, whose traceback
        # holds the frames it passed, can hold an array.
        for suffix, content in self._encoded(item["result_ix"]):
            name = file_name(item["id"], suffix, hashed_ends=self._hashed_ends)
            write_atomically(self._folder, name, content)

    def flush(self) -> None:
        """Do nothing: every file is complete already."""

    def end(self) -> None:
        """Close the folder.  The second time does nothing."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _encoded(self, result_ix: int) -> list[tuple[str, bytes]]:
        """What follows the id in each file's name, and the content."""
        plans = self._plans
        if plans is None:
            plans = self._plans = self._make_plans()
        arrays = self.buffer[result_ix]
        files = []
        for plan in plans:
            planes = plan.to_planes(arrays[plan.channel])
            if self.options.format == "npy":
                extension, content = "npy", _npy(planes)
            else:
                extension, content = _encode(planes, self.options.compress_level)
            files.append((f"_{plan.channel}.{extension}", content))
        return files

    def _make_plans(self) -> list[_Plan]:
        images: dict[str, _Plan] = {}
        for name, (shape, dtype) in self.buffer.channels.items():
            to_planes = None if dtype.startswith("complex") else image_layout(shape)
            if to_planes is not None:
                images[name] = _Plan(name, to_planes)
        self._hashed_ends = _ambiguous_ends(list(images))
        wanted = images if self.options.channels is None else self.options.channels
        for name in wanted:
            if name not in images:
                is_known = name in self.buffer.channels
                raise ConfigError(
                    f"'{name}' is {'not an image' if is_known else 'no channel'}; "
                    f"the images are: {', '.join(images) or 'none'}",
                    key=f"{self.name}.options.channels",
                )
        if not images:
            log.warning("no channel is an image, so none is written logger=%s", self.name)
        return [images[name] for name in dict.fromkeys(wanted)]

    @staticmethod
    def is_recorded(
        root_dir: str, options: ImageOptions, channels: Channels
    ) -> Callable[[str], bool]:
        """What says of an id whether each of its images is there; nothing is changed."""
        images = [
            name
            for name, (shape, dtype) in channels.items()
            if not dtype.startswith("complex") and image_layout(shape)
        ]
        ends = _ambiguous_ends(images)
        wanted = images if options.channels is None else options.channels
        folder = Path(root_dir, FOLDER_NAME)

        def is_there(id: str, channel: str) -> bool:
            return any(
                (folder / file_name(id, f"_{channel}.{extension}", hashed_ends=ends)).is_file()
                for extension in EXTENSIONS
            )

        return lambda id: all(is_there(id, channel) for channel in wanted)


Logger = ImageLogger


def image_layout(shape: tuple[int, ...]) -> Callable[[_Array], _Array] | None:
    """How to see an array of this shape as ``(H, W)`` or ``(H, W, C)``; None: it is no image."""
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


def _ambiguous_ends(names: list[str]) -> tuple[str, ...]:
    """The ends of ids that could belong to a channel's name: ``_left`` of ``left_rgb``."""
    return tuple(
        "_" + longer.removesuffix("_" + shorter)
        for longer in names
        for shorter in names
        if longer.endswith("_" + shorter)
    )


def _encode(planes: _Array, compress_level: int) -> tuple[str, bytes]:
    """The extension and the content of the file for one image."""
    kind = planes.dtype.kind
    if kind == "b":
        return "png", _png(planes.astype(np.uint8) * np.uint8(255), compress_level)
    if planes.dtype == np.uint8:
        return "png", _png(planes, compress_level)
    is_colour = planes.ndim == 3
    if kind == "f":
        if is_colour:
            return "png", _png(_to_bytes(planes), compress_level)
        return _encode_depth(planes)
    low, high = int(planes.min()), int(planes.max())
    if low >= 0 and high <= 255:
        return "png", _png(planes.astype(np.uint8), compress_level)
    if low >= 0 and high <= 65_535 and not is_colour:
        return "png", _png(planes.astype(np.uint16), compress_level)
    if low >= -(2**31) and high < 2**31 and not is_colour:
        return "tiff", _tiff(planes.astype(np.int32))
    return "npy", _npy(planes)


def _encode_depth(plane: _Array) -> tuple[str, bytes]:
    # Overflow to inf, and NaNs, are just what the comparison is for.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = plane.astype(np.float32)
        is_same = plane.dtype != np.float64 or np.array_equal(single, plane, equal_nan=True)
    return ("tiff", _tiff(single)) if is_same else ("npy", _npy(plane))


def _to_bytes(planes: _Array) -> NDArray[np.uint8]:
    """Colours from 0 to 1 as bytes from 0 to 255."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        colours: _Array = np.clip(planes, 0, 1, dtype=np.result_type(planes, np.float32))
        colours *= 255
        np.rint(colours, out=colours)
        np.nan_to_num(colours, copy=False, nan=0)
    rounded: NDArray[np.uint8] = colours.astype(np.uint8)
    return rounded


def _png(planes: _Array, compress_level: int) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(planes))
    image.save(file, "PNG", compress_level=compress_level)
    return file.getvalue()


def _tiff(plane: _Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(file, "TIFF", compression="tiff_deflate")
    return file.getvalue()


def _npy(planes: _Array) -> bytes:
    file = io.BytesIO()
    np.save(file, planes, allow_pickle=False)
    return file.getvalue()
