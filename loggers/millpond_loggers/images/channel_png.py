"""Channels as PNG: one format for all images of a channel, whatever their values are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.errors import ConfigError
from millpond_loggers.audit import Channels
from millpond_loggers.images.encoders import encode_png
from millpond_loggers.images.pixels import image_layout, to_bytes

WHOLE_MAX: Final = 65_535
# Whole numbers that can be other than a PNG holds.
_OTHER_WHOLE: Final = frozenset({"int8", "int16", "int32", "uint32", "int64", "uint64"})

_Array = NDArray[Any]


def plan_images(
    channels: Channels, wanted: Sequence[str] | None, *, key: str
) -> dict[str, Callable[[_Array], bytes]]:
    """What makes a PNG of the array of each channel that is to be one.

    bool becomes 0 and 255, uint8 and uint16 stay what they are.  Colours of floats, 0 to 1, become
    bytes.  Other whole numbers become 16 bits, if they are from 0 to 65535: the encoder raises
    ValueError when one is not.  A single plane of floats, such as depth, has no PNG.

    Args:
        channels: Name to shape and dtype.
        wanted: Names; None: all whose values a PNG holds, whatever they are.
        key: The option that names them, for the error.

    Raises:
        ConfigError: One of the names is no channel, or has no PNG.
    """
    encoders = {}
    for name, (shape, dtype) in channels.items():
        encode = _encoder(name, shape, dtype)
        if encode is not None:
            encoders[name] = encode
    if wanted is None:
        is_other = {name: channels[name][1] in _OTHER_WHOLE for name in encoders}
        return {name: encode for name, encode in encoders.items() if not is_other[name]}
    for name in wanted:
        if name not in encoders:
            what = "has no PNG" if name in channels else "is no channel"
            raise ConfigError(
                f"'{name}' {what}; these have one: {', '.join(encoders) or 'none'}", key=key
            )
    return {name: encoders[name] for name in wanted}


def _encoder(channel: str, shape: tuple[int, ...], dtype: str) -> Callable[[_Array], bytes] | None:
    to_planes = image_layout(shape)
    if to_planes is None:
        return None
    if dtype in _OTHER_WHOLE:
        return lambda array: encode_png(_to_16_bits(channel, to_planes(array)))
    if dtype in {"uint8", "uint16"}:
        return lambda array: encode_png(to_planes(array))
    is_plane = to_planes(np.empty(shape, dtype)).ndim == 2
    if dtype.startswith("complex") or (dtype.startswith("float") and is_plane):
        return None
    return lambda array: encode_png(to_bytes(to_planes(array)))


def _to_16_bits(channel: str, planes: _Array) -> NDArray[np.uint16]:
    low, high = int(planes.min()), int(planes.max())
    if low < 0 or high > WHOLE_MAX:
        raise ValueError(
            f"channel '{channel}' has values from {low} to {high}; a PNG holds 0 to {WHOLE_MAX}. "
            "Take it out of the option `images`"
        )
    return planes.astype(np.uint16)
