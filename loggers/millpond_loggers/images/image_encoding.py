"""How each channel is written as a picture: which encodings can hold it, and which one does.

What cannot be right is an error before the first result; what depends on the values (whole numbers
that are too large for a PNG) falls back on another lossless format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from millpond_loggers.extras import require
from millpond_loggers.images.encoders import (
    COMPRESS_LEVEL,
    JPEG_SIDE_MAX,
    QUALITY,
    WEBP_SIDE_MAX,
    encode_exr,
    encode_jpeg,
    encode_npy,
    encode_palette_png,
    encode_png,
    encode_tiff,
    encode_webp,
)
from millpond_loggers.images.pixels import image_layout, label_colours, to_bytes

Encoding = Literal["auto", "png", "palette", "jpeg", "webp", "tiff", "exr", "npy"]
EXTENSIONS: Final = ("png", "jpg", "webp", "tiff", "exr", "npy")
SIDES_MAX: Final = {"jpeg": JPEG_SIDE_MAX, "webp": WEBP_SIDE_MAX}

_Array = NDArray[Any]
Encode = Callable[[_Array], tuple[str, bytes]]
"""Makes the extension and the content of a file, of the array of a channel."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the encoders are told: quality 1 to 100, level of compression 0 to 9."""

    quality: int = QUALITY
    compress_level: int = COMPRESS_LEVEL


def is_image(shape: tuple[int, ...], dtype: str) -> bool:
    """Whether a channel is an image: by its shape, and not of complex numbers."""
    return not dtype.startswith("complex") and image_layout(shape) is not None


def plan_encoding(
    channel: str, shape: tuple[int, ...], dtype: str, encoding: Encoding, settings: Settings
) -> Encode:
    """What writes the images of a channel.

    Args:
        channel: Its name, for the error.
        shape: Of an image, see `is_image`.
        dtype: Its numpy name.
        encoding: How it shall be written.
        settings: For encoders that take some.

    Raises:
        ValueError: The encoding cannot hold such values; says which ones can.
        millpond.errors.ConfigError: The library of the encoding is not installed.
    """
    to_planes = image_layout(shape)
    assert to_planes is not None, shape
    model = to_planes(np.empty(shape, dtype))
    planes_count = model.shape[2] if model.ndim == 3 else 1
    possible = possible_encodings(np.dtype(dtype), planes_count)
    if encoding not in possible:
        planes = "one plane" if planes_count == 1 else f"{planes_count} planes"
        raise ValueError(
            f"channel '{channel}' ({dtype}, {planes}) cannot be written as {encoding}; "
            f"possible: {', '.join(possible)}"
        )
    if max(model.shape[:2]) > SIDES_MAX.get(encoding, max(model.shape)):
        raise ValueError(
            f"channel '{channel}' is {model.shape[1]} x {model.shape[0]} pixels; "
            f"{encoding} holds {SIDES_MAX[encoding]} on a side"
        )
    match encoding:
        case "jpeg" | "webp":
            require("PIL.Image", extra="image", what=f"encoding {encoding}")
        case "exr":
            require("OpenEXR", extra="exr", what="encoding exr")
    return lambda array: _encode(to_planes(array), encoding, settings)


def possible_encodings(dtype: np.dtype[Any], planes_count: int) -> list[Encoding]:
    """The encodings that can hold an image, in the order of `Encoding`."""
    is_float = dtype.kind == "f"
    is_bytes = dtype.kind == "b" or dtype == np.uint8 or (is_float and planes_count > 1)
    can = {
        "png": not is_float or planes_count > 1,
        "palette": not is_float and planes_count == 1,
        "jpeg": is_bytes and planes_count != 4,
        "webp": is_bytes,
        "exr": dtype in (np.float16, np.float32),
    }
    return [encoding for encoding in get_args(Encoding) if can.get(encoding, True)]


def _encode(planes: _Array, encoding: Encoding, settings: Settings) -> tuple[str, bytes]:
    level = settings.compress_level
    match encoding:
        case "jpeg":
            return "jpg", encode_jpeg(to_bytes(planes), quality=settings.quality)
        case "webp":
            return "webp", encode_webp(to_bytes(planes), quality=settings.quality)
        case "tiff":
            return "tiff", encode_tiff(_readable(planes), compress_level=level)
        case "exr":
            return "exr", encode_exr(planes)
        case "npy":
            return "npy", encode_npy(planes)
        case "palette" if planes.dtype.kind == "b" or _fits(planes, np.uint8):
            labels = planes.astype(np.uint8)
            return "png", encode_palette_png(labels, label_colours(), compress_level=level)
    if planes.dtype.kind == "f" and planes.ndim == 2:
        return _encode_depth(planes, level)
    if planes.dtype.kind in "bf":
        return "png", encode_png(to_bytes(planes), compress_level=level)
    return _encode_whole(planes, level)


def _encode_whole(planes: _Array, level: int) -> tuple[str, bytes]:
    """Whole numbers, in the smallest kind of file that holds them all."""
    if _fits(planes, np.uint8):
        return "png", encode_png(planes.astype(np.uint8, copy=False), compress_level=level)
    if planes.ndim == 2 and _fits(planes, np.uint16):
        return "png", encode_png(planes.astype(np.uint16, copy=False), compress_level=level)
    if planes.ndim == 2 and _fits(planes, np.int32):
        return "tiff", encode_tiff(planes.astype(np.int32), compress_level=level)
    return "npy", encode_npy(planes)


def _encode_depth(plane: _Array, level: int) -> tuple[str, bytes]:
    # Overflow to inf, and NaNs, are just what the comparison is for.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        single = plane.astype(np.float32, copy=False)
        is_same = plane.dtype != np.float64 or np.array_equal(single, plane, equal_nan=True)
    if is_same:
        return "tiff", encode_tiff(single, compress_level=level)
    return "npy", encode_npy(plane)


def _fits(planes: _Array, dtype: type[np.integer[Any]]) -> bool:
    """Whether every number of an array of whole numbers is one of this type too."""
    if planes.dtype == dtype:
        return True
    limits = np.iinfo(dtype)
    return int(planes.min()) >= limits.min and int(planes.max()) <= limits.max


def _readable(planes: _Array) -> _Array:
    """What programs that read TIFF know: no float16, which few of them do, and no bool."""
    if planes.dtype.kind == "b":
        return to_bytes(planes)
    return planes.astype(np.float32) if planes.dtype == np.float16 else planes
