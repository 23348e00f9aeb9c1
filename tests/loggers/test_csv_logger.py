"""The CSV logger: one row a result, every value in its column, on every restart."""

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers import csv_logger
from millpond_loggers.csv_logger import CSVLogger, Logger

CHANNELS = {
    "rgb": ((3, 4, 4), "float32"),
    "is_correct": ((), "bool"),
    "loss": ((1,), "float32"),
    "bbox": ((4,), "float32"),
}


def read(folder: Path) -> list[list[str]]:
    with (folder / "details.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_columns(folder: Path) -> list[dict[str, str]]:
    with (folder / "details.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(folder: Path, buffer: MemoryBuffer, *items: dict[str, Any], **options: Any) -> None:
    logger = Logger(str(folder), buffer, {"logger": {"name": "csv", "options": options}})
    for item in items:
        logger.log(item)
    logger.end()


def test_a_row_has_the_id_the_fields_the_scalars_and_the_arguments(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    item = buffer.put(
        "000001",
        {"zoom": 1.2, "name": "a", "n": 3},
        environment="sky.hdr",
        model="cup",
        is_correct=True,
        loss=0.1,
    )
    record(tmp_path, buffer, item)
    assert (tmp_path / "details.csv").read_bytes() == (
        b"id,environment,model,is_correct,loss,zoom,name,n\n000001,sky.hdr,cup,True,0.1,1.2,a,3\n"
    )
    assert buffer.registered == 1
    assert buffer.freed == []
    assert buffer.kept_count() == 0
    assert CSVLogger is Logger


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        ("float32", 0.1, "0.1"),
        ("float16", 0.1, "0.1"),
        ("float64", 0.1, "0.1"),
        ("float32", math.nan, "nan"),
        ("float64", math.nan, "nan"),
        ("float32", -math.inf, "-inf"),
        ("float64", math.inf, "inf"),
        ("float32", -0.0, "-0.0"),
        ("float32", -3.5, "-3.5"),
        ("float32", 1e-45, "1e-45"),
        ("float64", 5e-324, "5e-324"),
        ("uint64", 2**64 - 1, "18446744073709551615"),
        ("int8", -128, "-128"),
        ("bool", False, "False"),
        ("complex64", 0.1 - 2j, "(0.1-2j)"),
    ],
)
def test_numbers_have_the_shortest_digits_that_say_what_they_are(
    tmp_path: Path, dtype: str, value: Any, text: str
) -> None:
    buffer = MemoryBuffer({"x": ((), dtype)})
    record(tmp_path, buffer, buffer.put("1", x=value))
    assert read(tmp_path) == [["id", "x"], ["1", text]]


def test_arguments_of_every_kind_are_read_back(tmp_path: Path) -> None:
    arguments = {
        "float": -1.5,
        "nan": math.nan,
        "inf": -math.inf,
        "big": 10**30,
        "flag": True,
        "none": None,
        "empty": "",
        "list": [1, [2.5, "x"]],
        "map": {"a": None, "b": math.nan},
        "huge": [10**30, math.inf],
        "quote": 'say "hi", ok',
        "lines": "a\nb\r\nc\rd",
        "unicode": "schön 😀\u2028",
        "nul": "a\0b",
    }
    buffer = MemoryBuffer({"x": ((), "bool")})
    record(tmp_path, buffer, buffer.put("1", arguments), buffer.put("2", arguments))
    expected = {
        "id": "1",
        "x": "False",
        "float": "-1.5",
        "nan": "nan",
        "inf": "-inf",
        "big": str(10**30),
        "flag": "True",
        "none": "",
        "empty": "",
        "list": '[1,[2.5,"x"]]',
        "map": '{"a":null,"b":null}',
        "huge": f"[{10**30},null]",
        **{name: arguments[name] for name in ("quote", "lines", "unicode", "nul")},
    }
    assert read_columns(tmp_path) == [expected, expected | {"id": "2"}]


FORMULAS = ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\rx", "\nx", "  =x", "\xa0=x", " \n-x", "=x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_compute_is_escaped(tmp_path: Path, text: str) -> None:
    buffer = MemoryBuffer({"x": ((), "bool")})
    record(tmp_path, buffer, buffer.put(text, {"a": text, "n": -1}, model=text))
    (row,) = read_columns(tmp_path)
    assert row == {"id": "'" + text, "model": "'" + text, "x": "False", "a": "'" + text, "n": "-1"}


def test_escaping_can_be_turned_off_and_spares_plain_text(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "bool")})
    record(tmp_path, buffer, buffer.put("=1", {"a": "a=b"}), escape_formulas=False)
    assert read(tmp_path)[1] == ["=1", "False", "a=b"]
    with pytest.raises(ConfigError, match="escape"):
        record(tmp_path, buffer, escape=True)


def test_a_new_argument_gets_a_column_and_a_missing_one_an_empty_cell(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(
        tmp_path,
        buffer,
        buffer.put("1", {"a": "two\nlines", "b": 2}),
        buffer.put("2", {"b": 3}),
        buffer.put("3", {"c": 4, "b": 5, "a": 6}),
        buffer.put("4", {}, model="cup"),
    )
    assert read(tmp_path) == [
        ["id", "x", "a", "b", "c", "model"],
        ["1", "0", "two\nlines", "2", "", ""],
        ["2", "0", "", "3", "", ""],
        ["3", "0", "6", "5", "4", ""],
        ["4", "0", "", "", "", "cup"],
    ]


def test_a_new_argument_after_a_flush_widens_what_is_in_the_file(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    logger = Logger(str(tmp_path), buffer, {})
    logger.log(buffer.put("1", {"a": 1}))
    logger.flush()
    logger.log(buffer.put("2", {"a": 1}))
    logger.log(buffer.put("3", {"b": 2}))
    logger.flush()
    assert read(tmp_path) == [
        ["id", "x", "a", "b"],
        ["1", "0", "1", ""],
        ["2", "0", "1", ""],
        ["3", "0", "", "2"],
    ]
    logger.end()
    logger.log(None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".details.csv.batch", "details.csv"]


def test_a_restart_appends_under_the_same_header(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(tmp_path, buffer, buffer.put("1", {"a": 1, "b": 2}))
    record(tmp_path, buffer, buffer.put("2", {"b": 4, "a": 3}))
    record(tmp_path, buffer, buffer.put("3", {"c": 5}))
    assert read(tmp_path) == [
        ["id", "x", "a", "b", "c"],
        ["1", "0", "1", "2", ""],
        ["2", "0", "3", "4", ""],
        ["3", "0", "", "", "5"],
    ]


def test_odd_argument_names_keep_their_columns_on_restart(tmp_path: Path) -> None:
    odd = ["a,b", 'q"q', "two\nlines", "cr\rcr", "", "=f", "id", "x", "model", "\ud800", "ü"]
    buffer = MemoryBuffer({"x": ((), "int8"), "id": ((), "int8")})
    arguments = {name: number for number, name in enumerate(odd)}
    for id in "123":
        record(tmp_path, buffer, buffer.put(id, arguments, x=7))
    header, *rows = read(tmp_path)
    assert header == [
        *("id", "x", "channels.id", "a,b", 'q"q', "two\nlines", "cr\rcr", "render_args."),
        *("render_args.=f", "render_args.id", "render_args.x", "render_args.model"),
        *("\\ud800", "ü"),
    ]
    numbers = [str(number) for number in range(len(odd))]
    assert rows == [[id, "7", "0", *numbers] for id in "123"]


def test_a_field_and_an_argument_of_one_name_have_two_columns(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"loss": ((), "int8")})
    item = buffer.put("1", {"seed": 1, "render_args.seed": 2}, seed={"a": 3}, z=0)
    item["loss"] = 4
    record(tmp_path, buffer, item)
    assert read_columns(tmp_path) == [
        {
            "id": "1",
            "loss": "0",
            "item.loss": "4",
            "seed": '{"a":3}',
            "z": "0",
            "render_args.seed": "1",
            "render_args.render_args.seed": "2",
        }
    ]


@pytest.mark.parametrize("id", ["", "../../x", "a,b", 'a"b', "a\nb", "é", "\ud800", "x" * 300])
def test_odd_ids_are_only_text(tmp_path: Path, id: str) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(tmp_path, buffer, buffer.put(id))
    assert read(tmp_path)[1][0] == id.replace("\ud800", "\\ud800")


def test_what_is_torn_at_any_byte_is_continued_under_its_header(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32")})
    items = [
        buffer.put("1", {"a": 'x "y"\nz'}),
        buffer.put("2", {"a": -1.5}),
        buffer.put("3,\n", {"a": "x\n"}),
    ]
    record(tmp_path, buffer, *items)
    whole = (tmp_path / "details.csv").read_bytes()
    table = read(tmp_path)
    rows = [b"id,x,a\n", b'1,0.0,"x ""y""\nz"\n', b"2,0.0,-1.5\n", b'"3,\n",0.0,"x\n"\n']
    assert b"".join(rows) == whole
    ends = [len(b"".join(rows[:count])) for count in range(1, len(rows) + 1)]
    for length in range(len(whole) + 1):
        (tmp_path / "details.csv").write_bytes(whole[:length])
        record(tmp_path, buffer, buffer.put("2", {"a": -1.5}))
        kept = table[: max(1, sum(end <= length for end in ends))]
        assert read(tmp_path) == [*kept, table[2]], length


def test_a_second_run_of_the_same_results_has_rows_of_its_own(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32")})
    for _ in range(2):
        record(tmp_path, buffer, *(buffer.put(id, {"a": 1}, x=0.5) for id in "12"))
    assert read(tmp_path) == [["id", "x", "a"], *[["1", "0.5", "1"], ["2", "0.5", "1"]] * 2]


def test_a_result_that_comes_again_has_one_row(tmp_path: Path) -> None:
    """Its key tells, not its id or its values: the logger died before the daemon knew of it."""
    buffer = MemoryBuffer({"x": ((), "float32")})
    record(tmp_path, buffer, buffer.put("1", {"a": 1}, key=(4, 1)))
    again = buffer.put("1", {"a": 1}, key=(4, 1)), buffer.put("1", {"a": 1, "b": 2}, key=(4, 2))
    record(tmp_path, buffer, *again)
    assert read(tmp_path) == [["id", "x", "a", "b"], ["1", "0.0", "1", ""], ["1", "0.0", "1", "2"]]


def test_two_loggers_with_two_files_share_a_folder(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    first = Logger(str(tmp_path), buffer, {})
    record(tmp_path, buffer, buffer.put("1"), file="more.csv")
    first.log(buffer.put("1"))
    first.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".details.csv.batch",
        ".more.csv.batch",
        "details.csv",
        "more.csv",
    ]
    assert (tmp_path / "more.csv").read_bytes() == (tmp_path / "details.csv").read_bytes()


def test_a_file_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a plain file name"):
        record(tmp_path, MemoryBuffer({}), file="../details.csv")
    assert list(tmp_path.iterdir()) == []


KILLED_WHILE_WIDENING = """
import os, sys
from loggers.memory_buffer import MemoryBuffer
from millpond_loggers.files import names
from millpond_loggers.csv_logger import Logger
buffer = MemoryBuffer({"x": ((), "int8")})
logger = Logger(sys.argv[1], buffer, {})
logger.log(buffer.put("1", {"a": 1}))
logger.flush()
die = lambda *_, **__: os.kill(os.getpid(), 9)
setattr(names.os, sys.argv[2], die)
logger.log(buffer.put("2", {"b": 1}))
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_while_the_file_is_widened_loses_nothing(tmp_path: Path, call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WIDENING, str(tmp_path), call],
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(tmp_path, buffer, buffer.put("2", {"b": 1}))
    assert read(tmp_path) == [["id", "x", "a", "b"], ["1", "0", "1", ""], ["2", "0", "", "1"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".details.csv.batch", "details.csv"]


@pytest.mark.parametrize("header", [b"id,a,a\n", b"idx,a\n"])
def test_a_table_of_someone_else_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "details.csv").write_bytes(header)
    for _ in range(2):
        with pytest.raises(ValueError, match="not a file of this logger"):
            Logger(str(tmp_path), MemoryBuffer({}), {})
    assert (tmp_path / "details.csv").read_bytes() == header


def test_columns_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_logger, "COLUMN_COUNT_MAX", 3)
    monkeypatch.setattr(csv_logger, "PLANS_MAX", 1)
    buffer = MemoryBuffer({"x": ((), "int8")})
    logger = Logger(str(tmp_path), buffer, {})
    logger.log(buffer.put("1", {"a": 1}))
    with pytest.raises(ValueError, match="4 columns, at most 3"):
        logger.log(buffer.put("2", {"b": 1}))
    logger.log(buffer.put("3"))
    logger.end()
    assert read(tmp_path) == [["id", "x", "a"], ["1", "0", "1"], ["3", "0", ""]]


def test_two_values_for_one_column_are_refused(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"render_args.id": ((), "int8")})
    logger = Logger(str(tmp_path), buffer, {})
    with pytest.raises(ValueError, match="same column"):
        logger.log(buffer.put("1", {"id": 1}))
    logger.end()


def test_float32_digits_are_numpys(tmp_path: Path) -> None:
    values = np.float32([1e20, 16777217, 3.4028235e38, 1 / 3])
    buffer = MemoryBuffer({"x": ((), "float32")})
    record(tmp_path, buffer)
    assert (tmp_path / "details.csv").read_bytes() == b""
    for number, value in enumerate(values):
        record(tmp_path, buffer, buffer.put(str(number), x=value))
    back = np.array([row["x"] for row in read_columns(tmp_path)], np.float32)
    assert back.tobytes() == values.tobytes()
