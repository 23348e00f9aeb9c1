"""What 3DB hands over, in millpond's words: channels, values of channels, items."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.client_values import channels_of, encode_job
from millpond.core.layout import Channel
from millpond.errors import InvalidResult

# Names that torch gives to dtypes, and numpy to others or to none.
TORCH_DTYPES: Final = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
_OURS: Final = ("id", "render_args", "result_ix")


def channels_of_3db(declared: Mapping[str, Any]) -> tuple[Channel, ...]:
    """Read ``{"rgb": [[3, 256, 256], "float32"]}``, with the dtypes that torch has.

    Raises:
        InvalidResult: A channel is not possible; the message says which and why.
    """
    if not isinstance(declared, Mapping):
        raise InvalidResult(f"declared outputs must map names to [shape, dtype], not {declared!r}")
    plain = {}
    for name, spec in declared.items():
        try:
            shape, dtype = spec
        except (TypeError, ValueError):
            raise InvalidResult(
                f"output {name!r} must be declared as [shape, dtype], not {spec!r}"
            ) from None
        known = str(dtype).removeprefix("torch.")
        plain[name] = (shape, TORCH_DTYPES.get(known, known))
    return channels_of(plain)


def shaped(value: Any, channel: Channel) -> Any:
    """The same value in the shape of its channel, if the two differ in axes of length 1 only.

    3DB's buffer takes them too: ``(1,)`` for a number, ``(256, 256)`` for ``(1, 256, 256)``.
    """
    shape = tuple(getattr(value, "shape", channel.shape))
    if shape == channel.shape or _squeezed(shape) != _squeezed(channel.shape):
        return value
    return value.reshape(channel.shape)


def job_of(item: Mapping[str, Any]) -> tuple[int, str, bytes]:
    """Read an item, as 3DB's policies log it.

    Args:
        item: ``id``, ``render_args``, whose keys may be (control, argument), ``result_ix``, and
            what else the loggers shall get.

    Returns:
        The slot, the id, and the JSON body: keys joined by dots, and null for what is no number.

    Raises:
        InvalidResult: Something is missing or is not possible.
    """
    try:
        id, render_args, slot = (item[name] for name in _OURS)
        slot = operator.index(slot)
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidResult(
            f"an item must have id, render_args and result_ix (a whole number): {error!r}"
        ) from None
    if not isinstance(render_args, Mapping):
        raise InvalidResult(f"render_args must map names to values, not be {render_args!r}")
    fields = {name: value for name, value in item.items() if name not in _OURS}
    return slot, id, encode_job(id, _plain(render_args), _plain(fields))


def _plain(value: Any) -> Any:
    """The same with names for keys, and None for what is infinite or no number."""
    if isinstance(value, Mapping):
        return {_name(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):  # Scalars and arrays of numpy and torch.
        array: NDArray[Any] = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return _plain(value.tolist())
    return value


def _name(key: Any) -> Any:
    return ".".join(map(str, key)) if isinstance(key, tuple) else key


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)
