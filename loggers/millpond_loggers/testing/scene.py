"""The results that the suite gives to a logger: of known numbers, and of every odd kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from millpond.core.layout import Channel

# What renderers may call a result: anything but control characters.
ODD_IDS: Final = (
    "../../x",
    "/etc/passwd",
    ".",
    "..",
    " ",
    ".hidden",
    "-rf",
    "--",
    "=1+1",
    "@x",
    "a/b\\c",
    "a,b;c",
    'say "hi"',
    "'",
    "%2e%2e",
    "con",
    "NUL.txt",
    "x" * 300,
    "ü" * 500,
    "schön",
    "😀",
    "\u202egnp.exe",
    "\u2028",
    "{{id}}",
    "$(id)",
    "null",
    "nan",
    "1e5",
    "000001",
    "1",
    "A",
    "a",
)
ODD_NUMBERS: Final = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308)
ODD_ARGUMENTS: Final[Sequence[Mapping[str, Any]]] = (
    {},
    {"zoom": 1.5, "": 2, "id": "mine", "loss": -1},
    {"zoom": "wide", "text": 'a "b", \n\r\n c', "list": [1, [2.5, None]], "map": {"a": {"b": 1}}},
    {"zoom": None, "camera.zoom": True, "=cmd": "=cmd", "ü 😀": "\u2028", "big": 2**63 - 1},
    {"x" * 200: "y" * 5000, "zoom": [], "nul": "\0"},
)


def id_of(number: int) -> str:
    """The id of a result of which nothing is odd."""
    return f"{number:06d}"


def arguments_of(number: int) -> dict[str, Any]:
    """Its render arguments; now and then there is one more."""
    names = ("zoom", "camera.x", "light", "late")
    return dict.fromkeys(names[: 1 + number // 5], number / 10)


def arrays_of(channels: Sequence[Channel], number: int) -> dict[str, Any]:
    """Its arrays: scalars are its number, as far as they can; images are noise between 0 and 1."""
    chance = np.random.default_rng(number)
    return {channel.name: _value(channel, number, chance) for channel in channels}


def odd_arrays_of(channels: Sequence[Channel], value: float) -> dict[str, Any]:
    """The value everywhere where it is possible, 0 elsewhere."""
    return {
        channel.name: np.full(channel.shape, value, channel.dtype)
        for channel in channels
        if channel.dtype.startswith(("float", "complex")) and _fits(value, channel.dtype)
    }


def _value(channel: Channel, number: int, chance: np.random.Generator) -> Any:
    dtype = np.dtype(channel.dtype)
    if math.prod(channel.shape) == 1:
        scalar = (
            number % 2 == 1
            if dtype.kind == "b"
            else number % 100
            if dtype.itemsize == 1
            else number
        )
        return np.full(channel.shape, scalar, dtype)
    if dtype.kind in "fc":
        return chance.random(channel.shape).astype(dtype)
    return chance.integers(0, 2 if dtype.kind == "b" else 100, channel.shape).astype(dtype)


def _fits(value: float, dtype: str) -> bool:
    part = "float32" if dtype == "complex64" else "float64" if dtype == "complex128" else dtype
    return not math.isfinite(value) or abs(value) <= float(np.finfo(part).max)
