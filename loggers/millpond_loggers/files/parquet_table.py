"""The table of a part: what lies in a journal, as Arrow columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from millpond_loggers.files.columns import Column, make_columns
from millpond_loggers.files.item_json import ARGUMENTS
from millpond_loggers.files.journal import Record

# Where the schema of a part says of what kinds the columns of the run have been.
KINDS_KEY: Final = b"millpond.kinds"
# How numpy calls the two parts of a complex number.
_REAL: Final = {"complex64": "float32", "complex128": "float64"}


def make_table(
    channels: Sequence[Mapping[str, Any]], records: Sequence[Record], known: Mapping[str, str]
) -> tuple[Any, dict[str, str]]:
    """Make the table.

    Args:
        channels: Of each channel that is recorded the ``column``, ``shape``, ``dtype``, and
            whether it is a ``png``; in the order of the pieces of a record.
        records: The results; the first piece is the item as JSON.
        known: Kinds of the columns of earlier parts.

    Returns:
        A `pyarrow.Table`, and the kinds of all columns that are known now.
    """
    import pyarrow  # noqa: PLC0415

    items = [orjson.loads(record.pieces[0]) for record in records]
    names = [channel["column"] for channel in channels]
    columns, kinds = make_columns(items, names, known)
    is_argument = [column.name.startswith(f"{ARGUMENTS}.") for column in columns]
    first = is_argument.index(True) if any(is_argument) else len(columns)
    arrays = {column.name: _of_column(column) for column in columns[:first]}
    for place, channel in enumerate(channels, 1):
        pieces = [record.pieces[place] for record in records]
        arrays[channel["column"]] = _of_channel(channel, pieces)
    arrays |= {column.name: _of_column(column) for column in columns[first:]}
    table = pyarrow.table(arrays)
    return table.replace_schema_metadata({KINDS_KEY: orjson.dumps(kinds)}), kinds


def kinds_of(schema: Any) -> dict[str, str]:
    """What the schema of a part says about the kinds of columns; nothing if it is not ours.

    Args:
        schema: A `pyarrow.Schema`.
    """
    text = (schema.metadata or {}).get(KINDS_KEY)
    return {} if text is None else dict(orjson.loads(text))


def _of_column(column: Column) -> Any:
    import pyarrow  # noqa: PLC0415

    return pyarrow.array(column.values, _type(column.kind))


def _type(kind: str) -> Any:
    import pyarrow  # noqa: PLC0415

    if kind.startswith("["):
        return pyarrow.list_(_type(kind[1:-1]))
    types = {
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "long": pyarrow.int64(),
        "float": pyarrow.float64(),
        "text": pyarrow.string(),
        "json": pyarrow.string(),
        "empty": pyarrow.list_(pyarrow.null()),
    }
    return types[kind]


def _of_channel(channel: Mapping[str, Any], pieces: Sequence[memoryview]) -> Any:
    import pyarrow  # noqa: PLC0415

    if channel["png"]:
        return pyarrow.array(list(map(bytes, pieces)), pyarrow.binary())
    dtype, shape = channel["dtype"], channel["shape"]
    if math.prod(shape) == 1 and len(shape) <= 1:
        shape = []
    if dtype in _REAL:
        dtype, shape = _REAL[dtype], [*shape, 2]
    array = pyarrow.array(np.frombuffer(b"".join(pieces), dtype))
    for length in reversed(shape):
        array = pyarrow.FixedSizeListArray.from_arrays(array, length)
    return array
