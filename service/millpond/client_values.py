"""What a renderer hands over, checked against the channels before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import Channel, channels_from_json
from millpond.core.wire import BODY_BYTES_MAX
from millpond.errors import InvalidResult

ID_BYTES_MAX: Final = 1024
DEPTH_MAX: Final = 16
INT_MAX: Final = 2**63 - 1
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# bool < integers < floats < complex: a scalar may go up, never down.
KIND_RANK: Final = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def channels_of(declared: Mapping[str, Any]) -> tuple[Channel, ...]:
    """Read ``{"rgb": ((3, 256, 256), "float32")}``; a dtype may be anything that numpy knows.

    Raises:
        InvalidResult: A channel is not possible; the message says which and why.
    """
    plain: dict[str, Any] = {}
    for name, spec in declared.items():
        try:
            shape, dtype = spec
            lengths = [shape] if isinstance(shape, int) else [int(length) for length in shape]
            # torch.float32 calls itself "torch.float32".
            known = np.dtype(str(dtype).removeprefix("torch.") if "torch" in str(dtype) else dtype)
        except (TypeError, ValueError) as error:
            raise InvalidResult(
                f"channel {name!r} must be (shape, dtype), such as ((3, 256, 256), 'float32'), "
                f"not {spec!r}: {error}"
            ) from None
        if not known.isnative:
            raise InvalidResult(f"channel {name!r}: {known} is not in this machine's byte order")
        plain[name] = [lengths, known.name]
    try:
        return channels_from_json(plain)
    except ValueError as error:
        raise InvalidResult(str(error)) from None


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
    if not channel.shape and type(value) in (float, int, bool):
        given_kind = "f" if type(value) is float else "i" if type(value) is int else "b"
        if KIND_RANK[given_kind] <= KIND_RANK[array.dtype.kind]:
            try:
                array[slot] = value
            except OverflowError:
                raise _misfit(channel, f"{value}, which is out of its range") from None
            return
    given = _as_array(channel, value)
    shape = given.shape
    if shape != channel.shape and not (channel.shape in ((), (1,)) and shape in ((), (1,))):
        raise _misfit(channel, f"shape {shape} {given.dtype}")
    if given.dtype != array.dtype:
        if channel.shape not in ((), (1,)) or not _fits(given, array.dtype):
            raise _misfit(channel, f"shape {shape} {given.dtype}")
        given = given.astype(array.dtype)
    array[slot] = given.reshape(channel.shape)


def _fits(scalar: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    rank = KIND_RANK.get(scalar.dtype.kind, 9)
    if rank != 1 or dtype.kind not in "ui":
        return rank <= KIND_RANK[dtype.kind]
    bounds = np.iinfo(dtype)
    return bounds.min <= int(scalar.reshape(())) <= bounds.max


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
        raise InvalidResult(f"id must be text of at least one character, not {id!r}")
    if CONTROL_CHARACTERS.search(id):
        raise InvalidResult(f"id {id!r} has control characters")
    job: dict[str, Any] = {"id": id, "render_args": _plain(render_args, "render_args", 1)}
    for name, value in (fields or {}).items():
        if name in {"id", "render_args", "result_ix"}:
            raise InvalidResult(f"fields may not contain {name!r}: millpond gives it a meaning")
        job[_key(name, "fields")] = _plain(value, f"fields.{name}", 1)
    try:
        body = json.dumps(job, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        id_bytes = len(id.encode())
    except UnicodeEncodeError:
        raise InvalidResult(
            f"result {id!r}: half a character (lone surrogate) in its text"
        ) from None
    if id_bytes > ID_BYTES_MAX:
        raise InvalidResult(f"id of {id_bytes} bytes, at most {ID_BYTES_MAX} are possible")
    if len(body) > BODY_BYTES_MAX:
        raise InvalidResult(
            f"result '{id}': id, render_args and fields are {len(body)} bytes as JSON, at most "
            f"{BODY_BYTES_MAX} are possible; put large data into a channel"
        )
    return body


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidResult(f"{where}: key {key!r} is no text")
    return key


def _plain(value: Any, where: str, depth: int) -> Any:
    """The same value of plain Python types, so that JSON can hold it."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is float:
        if value - value != 0.0:
            raise InvalidResult(f"{where} is {value}: JSON has no such number; use None or text")
        return value
    if kind is int:
        if not -INT_MAX - 1 <= value <= INT_MAX:
            raise InvalidResult(f"{where} is {value}: it does not fit 64 bits; use text")
        return value
    if depth > DEPTH_MAX:
        raise InvalidResult(f"{where} is nested more than {DEPTH_MAX} levels deep")
    if isinstance(value, Mapping):
        return {_key(k, where): _plain(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if hasattr(value, "tolist"):  # Scalars and small arrays of numpy and torch.
        return _plain(value.tolist(), where, depth + 1)
    if isinstance(value, (str, int, float)):  # Subclasses, enumerations among them.
        base = str if isinstance(value, str) else int if isinstance(value, int) else float
        return _plain(base(value), where, depth + 1)
    raise InvalidResult(f"{where} is a {kind.__name__}: JSON holds numbers, text, lists and maps")
