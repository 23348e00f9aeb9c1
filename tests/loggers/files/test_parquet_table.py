"""The table of a part: what was recorded, of the type that it had."""

import math
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from millpond_loggers.files.journal import Record
from millpond_loggers.files.parquet_table import kinds_of, make_table

FLOATS = ("float16", "float32", "float64")
RANDOM = np.random.default_rng(0)


def record(number: int, arguments: dict[str, Any], *pieces: Any) -> Record:
    item = orjson.dumps({"id": str(number), "model": "cup", "render_args": arguments})
    return Record((1, number), [memoryview(item), *map(memoryview, pieces)])


def channel(column: str, shape: tuple[int, ...], dtype: str, *, png: bool = False) -> dict:
    return {"column": column, "shape": list(shape), "dtype": dtype, "png": png}


def table_of(arrays: list[np.ndarray]) -> pa.Table:
    """Of one channel, which has these values."""
    about = [channel("x", arrays[0].shape, arrays[0].dtype.name)]
    records = [record(n, {}, array.tobytes()) for n, array in enumerate(arrays)]
    return make_table(about, records, {})[0]


@pytest.mark.parametrize(
    "dtype",
    ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), *FLOATS],
)
def test_scalars_keep_their_type(dtype: str) -> None:
    values = RANDOM.integers(0, 2, 5).astype(dtype)
    for shape in ((), (1,)):
        column = table_of([value.reshape(shape) for value in values])["x"]
        assert column.type == pa.from_numpy_dtype(np.dtype(dtype))
        assert column.to_pylist() == values.tolist()


def test_nan_and_the_infinities_are_values_and_not_null() -> None:
    values = [np.array(value, np.float32) for value in (math.nan, math.inf, -math.inf, -0.0)]
    column = table_of(values)["x"]
    assert column.null_count == 0
    assert [value.tobytes() for value in column.to_numpy()] == [v.tobytes() for v in values]


def test_arrays_are_lists_of_their_shape() -> None:
    arrays = [RANDOM.random((2, 3), np.float32) for _ in range(4)]
    column = table_of(arrays)["x"]
    assert (column.type.list_size, column.type.value_type.list_size) == (2, 3)
    assert column.type.value_type.value_type == pa.float32()
    assert column.to_pylist() == [array.tolist() for array in arrays]


@pytest.mark.parametrize(("dtype", "part"), [("complex64", "float"), ("complex128", "double")])
def test_complex_numbers_are_lists_of_two(dtype: str, part: str) -> None:
    column = table_of([np.array(1 - 2j, dtype)])["x"]
    assert (str(column.type.value_type), column.to_pylist()) == (part, [[1, -2]])


def test_pictures_are_bytes() -> None:
    records = [record(n, {}, b"png %d" % n) for n in range(2)]
    column = make_table([channel("rgb", (3, 4, 4), "float32", png=True)], records, {})[0]["rgb"]
    assert column.type == pa.binary()
    assert column.to_pylist() == [b"png 0", b"png 1"]


def test_the_columns_are_fields_then_channels_then_arguments() -> None:
    records = [record(1, {"zoom": 1}, np.float32(2).tobytes())]
    table, kinds = make_table([channel("loss", (), "float32")], records, {})
    assert table.column_names == ["id", "model", "loss", "render_args.zoom"]
    assert kinds == {"id": "text", "model": "text", "render_args.zoom": "int"}


def test_arguments_have_the_types_of_their_kinds() -> None:
    arguments = {
        "b": True,
        "i": 1,
        "l": 2**60,
        "f": 0.5,
        "t": "é",
        "e": [],
        "bs": [True],
        "is": [1],
        "fs": [1, 2.5],
        "ts": ["a", None],
        "j": {"a": [1]},
    }
    table, _ = make_table([], [record(1, arguments), record(2, {})], {})
    types = {
        name.removeprefix("render_args."): str(table[name].type)
        for name in table.column_names
        if name.startswith("render_args.")
    }
    assert types == {
        "b": "bool",
        "i": "int64",
        "l": "int64",
        "f": "double",
        "t": "string",
        "e": "list<item: null>",
        "bs": "list<item: bool>",
        "is": "list<item: int64>",
        "fs": "list<item: double>",
        "ts": "list<item: string>",
        "j.json": "string",
    }
    row, empty = table.to_pylist()
    assert row["render_args.fs"] == [1, 2.5]
    assert orjson.loads(row["render_args.j.json"]) == {"a": [1]}
    assert set(empty.values()) == {"2", "cup", None}


def test_the_schema_says_of_what_kinds_columns_have_been() -> None:
    table, kinds = make_table([], [record(1, {"zoom": 1})], {"render_args.late": "text"})
    assert kinds_of(table.schema) == kinds
    assert kinds["render_args.late"] == "text"
    assert kinds_of(pa.schema([])) == {}


def test_parts_of_a_run_can_be_read_as_one() -> None:
    kinds: dict[str, str] = {}
    tables = []
    for arguments in (
        {"a": 1, "b": []},
        {"a": 1.5, "c": "x"},
        {"a": "text", "b": ["t"], "c": None},
    ):
        table, kinds = make_table([], [record(1, arguments)], kinds)
        tables.append(table)
    whole = pa.concat_tables(tables, promote_options="permissive")
    assert whole["render_args.a"].to_pylist() == [1, 1.5, None]
    assert whole["render_args.a.json"].to_pylist() == [None, None, '"text"']
    assert whole["render_args.b"].to_pylist() == [[], None, ["t"]]
    assert whole["render_args.c"].to_pylist() == [None, "x", None]
