"""What a renderer hands over, checked against the channels before anything is sent."""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import DTYPE_BYTES, Channel, channels_from_json
from millpond.core.wire import BODY_BYTES_MAX
from millpond.errors import InvalidResult

ID_BYTES_MAX: Final = 1024
DEPTH_MAX: Final = 16
SHOWN_MAX: Final = 80  # Characters of a wrong value in a message.
INT_MAX: Final = 2**63 - 1
# Made once: `json.dumps` with options makes one each time.
JOB_JSON: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# bool < integers < floats < complex: a scalar may go up, never down.
KIND_RANK: Final = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind in "ui":
        return np.iinfo(dtype).min, np.iinfo(dtype).max
    return float(np.finfo(dtype).min), float(np.finfo(dtype).max)


# Asked beforehand: numpy wraps or gives inf where a number does not fit (numpy 1 even for int).
RANGES: Final = {name: _range(np.dtype(name)) for name in DTYPE_BYTES}


def channels_of(declared: Mapping[str, Any]) -> tuple[Channel, ...]:
    """Read ``{"rgb": ((3, 256, 256), "float32")}``; a dtype may be anything that numpy knows.

    Raises:
        InvalidResult: A channel is not possible; the message says which and why.
    """
    if not isinstance(declared, Mapping):
        raise InvalidResult(f"channels must map names to (shape, dtype), not be {_shown(declared)}")
    plain: dict[str, Any] = {}
    for name, spec in declared.items():
        try:
            shape, dtype = spec
            lengths = [shape] if isinstance(shape, int) else [operator.index(n) for n in shape]
            # torch.float32 calls itself "torch.float32"; None would be float64 to numpy.
            by_name = dtype is None or "torch" in str(dtype)
            known = np.dtype(str(dtype).removeprefix("torch.") if by_name else dtype)
        except (TypeError, ValueError) as error:
            raise InvalidResult(
                f"channel {name!r} must be (shape, dtype), such as ((3, 256, 256), 'float32'), "
                f"not {_shown(spec)}: {error}"
            ) from None
        if not known.isnative:
            raise InvalidResult(f"channel {name!r}: {known} is not in this machine's byte order")
        plain[name] = [lengths, known.name]
    try:
        return channels_from_json(plain)
    except ValueError as error:
        raise InvalidResult(str(error)) from None


def unknown_channel(name: str, channels: Iterable[Channel]) -> InvalidResult:
    """The error about a name that is none of these channels."""
    known = list(channels)
    nearest = difflib.get_close_matches(str(name), [channel.name for channel in known], 1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return InvalidResult(f"no channel {name!r}{hint} the channels are {', '.join(map(str, known))}")


def write_value(array: NDArray[Any], slot: int, channel: Channel, value: Any) -> None:
    """Copy a value into its channel of a slot.

    Args:
        array: That channel of every slot; its first axis is the slot.
        slot: Which one.
        channel: What it must be.
        value: Numbers for scalar channels; else an array of exactly the channel's shape and
            dtype, of numpy, torch, or anything with ``__array__`` or ``__dlpack__``.

    Raises:
        InvalidResult: It does not fit; nothing was written.
    """
    is_scalar = channel.shape in ((), (1,))
    if is_scalar and type(value) in (float, int, bool):
        given_kind = "f" if type(value) is float else "i" if type(value) is int else "b"
        if KIND_RANK[given_kind] <= KIND_RANK[array.dtype.kind]:
            if not _is_in_range(value, channel.dtype):
                raise _misfit(channel, f"{_shown(value)}, which is out of its range")
            array[slot] = value
            return
    given = _as_array(channel, value)
    shape = given.shape
    if shape != channel.shape and not (is_scalar and shape in ((), (1,))):
        raise _misfit(channel, f"shape {shape} {given.dtype}")
    if given.dtype != array.dtype:
        if not is_scalar:
            raise _misfit(channel, f"shape {shape} {given.dtype}")
        if not _fits(given, array.dtype):
            got = f"{_shown(value)}, which is {given.dtype} and does not fit"
            hint = "; write bool(...)" if channel.dtype == "bool" else ""
            raise _misfit(channel, got + hint)
        given = given.astype(array.dtype)
    array[slot] = given.reshape(channel.shape)


def _fits(scalar: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if KIND_RANK.get(scalar.dtype.kind, 9) > KIND_RANK[dtype.kind]:
        return False
    return _is_in_range(scalar.item(), dtype.name)


def _is_in_range(value: complex, dtype: str) -> bool:
    low, high = RANGES[dtype]
    # What is infinite or no number stays so in every dtype that can hold it.
    return all(low <= part <= high or part - part != 0 for part in (value.real, value.imag))


def _as_array(channel: Channel, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    for step in ("detach", "cpu"):  # Tensors of torch that have gradients, or lie elsewhere.
        method = getattr(value, step, None)
        value = method() if callable(method) else value
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.asarray(np.from_dlpack(value))
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise _misfit(channel, f"{type(value).__name__} that is no array ({error})") from None


def _misfit(channel: Channel, got: str) -> InvalidResult:
    return InvalidResult(
        f"channel '{channel.name}': expected shape {channel.shape} {channel.dtype}, got {got}"
    )


def encode_job(id: str, render_args: Mapping[str, Any], fields: Mapping[str, Any] | None) -> bytes:
    """Make the JSON body of a job.

    Raises:
        InvalidResult: The id is no usable text, or something in it is not JSON.
    """
    if not isinstance(id, str) or not id:
        raise InvalidResult(f"id must be text of at least one character, not {_shown(id)}")
    if CONTROL_CHARACTERS.search(id):
        raise InvalidResult(f"id {_shown(id)} has control characters")
    for name, given in (("render_args", render_args), ("fields", fields or {})):
        if not isinstance(given, Mapping):
            raise InvalidResult(f"{name} must map names to values, not be {_shown(given)}")
    job: dict[str, Any] = {"id": id, "render_args": _plain(render_args, "render_args", 1)}
    for name, value in (fields or {}).items():
        if name in {"id", "render_args", "result_ix"}:
            raise InvalidResult(f"fields may not contain {name!r}: millpond gives it a meaning")
        job[_key(name, "fields")] = _plain(value, f"fields.{name}", 1)
    try:
        body = JOB_JSON.encode(job).encode()
        id_bytes = len(id.encode())
    except UnicodeEncodeError:
        raise InvalidResult(
            f"result {_shown(id)}: half a character (lone surrogate) in its text"
        ) from None
    if id_bytes > ID_BYTES_MAX:
        raise InvalidResult(f"id of {id_bytes} bytes, at most {ID_BYTES_MAX} are possible")
    if len(body) > BODY_BYTES_MAX:
        raise InvalidResult(
            f"result '{id}': id, render_args and fields are {len(body)} bytes as JSON, at most "
            f"{BODY_BYTES_MAX} are possible; put large data into a channel"
        )
    return body


def _shown(value: Any) -> str:
    """A value as it stands in a message: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # An int of more digits than Python writes, perhaps deep inside.
        return f"<{type(value).__name__}, too long to show>"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidResult(f"{where}: key {_shown(key)} is no text")
    return key


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it as it is: the common case, and quick."""
    kind = type(value)
    if kind is float:
        return bool(value - value == 0.0)
    if kind is int:
        return bool(-INT_MAX - 1 <= value <= INT_MAX)
    return kind is str or kind is bool or value is None


def _plain(value: Any, where: str, depth: int) -> Any:
    """The same value of plain Python types, so that JSON can hold it."""
    if _is_plain(value):
        return value
    kind = type(value)
    if kind is float:
        raise InvalidResult(f"{where} is {value}: JSON has no such number; use None or text")
    if kind is int:
        raise InvalidResult(f"{where} is {_shown(value)}: it does not fit 64 bits; use text")
    if depth > DEPTH_MAX:
        raise InvalidResult(f"{where} is nested more than {DEPTH_MAX} levels deep")
    if isinstance(value, Mapping):
        return {
            _key(k, where): v if _is_plain(v) else _plain(v, f"{where}.{k}", depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if hasattr(value, "tolist"):  # Scalars and small arrays of numpy and torch.
        plain = value.tolist()
        if type(plain) is not kind:  # It is for numpy's longdouble, which Python does not have.
            return _plain(plain, where, depth + 1)
    if isinstance(value, str):  # Subclasses, enumerations among them, whose str() is their name.
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return _plain(int(value) if isinstance(value, int) else float(value), where, depth + 1)
    raise InvalidResult(f"{where} is a {kind.__name__}: JSON holds numbers, text, lists and maps")
