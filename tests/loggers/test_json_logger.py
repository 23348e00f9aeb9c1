"""The JSON logger: one strict object a line, in 3DB's form."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers import json_logger
from millpond_loggers.json_logger import JSONLogger, Logger, to_json

CHANNELS = {
    "rgb": ((3, 8, 8), "float32"),
    "is_correct": ((), "bool"),
    "loss": ((), "float32"),
    "bbox": ((2, 2), "float32"),
}
FLOATS = ["float16", "float32", "float64"]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no strict JSON")


def parse(line: bytes) -> Any:
    return json.loads(line, parse_constant=refuse)


def read(folder: Path) -> list[Any]:
    content = (folder / "details.log").read_bytes()
    assert content.endswith(b"\n") or not content
    return [parse(line) for line in content.split(b"\n")[:-1]]


def record(folder: Path, buffer: MemoryBuffer, *items: dict[str, Any], **config: Any) -> None:
    logger = Logger(str(folder), buffer, config)
    for item in items:
        logger.log(item)
    logger.end()


def test_a_line_is_3dbs_with_the_keys_in_one_order(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    item = buffer.put("1", {"z": 1.2, "a": [1]}, model="cup", environment="sky", loss=0.1, tag=None)
    config = {"evaluation": {"module": "threedb.evaluators.detection"}}
    record(tmp_path, buffer, item, dict(reversed(item.items())), **config)
    line = (
        '{"id":"1","environment":"sky","model":"cup","render_args":{"z":1.2,"a":[1]},"tag":null,'
        '"is_correct":false,"loss":0.1,"bbox":[[0.0,0.0],[0.0,0.0]],"output_type":"bboxes"}\n'
    )
    assert (tmp_path / "details.log").read_text() == line * 2
    assert buffer.kept_count() == 0
    assert buffer.freed == []
    assert buffer.registered == 1
    assert JSONLogger is Logger


@pytest.mark.parametrize(
    ("evaluation", "output_type"),
    [
        ({"module": "threedb.evaluators.classification"}, "classes"),
        ({"module": "my.evaluator", "output_type": "poses"}, "poses"),
        ({"module": "my.evaluator"}, None),
        (None, None),
    ],
)
def test_the_output_type_is_stated_or_known_or_left_out(
    tmp_path: Path, evaluation: Any, output_type: str | None
) -> None:
    buffer = MemoryBuffer(CHANNELS)
    record(tmp_path, buffer, buffer.put("1"), evaluation=evaluation)
    assert read(tmp_path)[0].get("output_type") == output_type


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_no_number_is_null(tmp_path: Path, dtype: str) -> None:
    buffer = MemoryBuffer({"x": ((), dtype), "v": ((3,), dtype)})
    values = {"x": math.nan, "v": [math.inf, -math.inf, -0.0]}
    record(tmp_path, buffer, buffer.put("1", {"a": math.nan, "b": [-math.inf]}, **values))
    (line,) = read(tmp_path)
    assert line["x"] is None
    assert line["v"] == [None, None, 0.0]
    assert math.copysign(1, line["v"][2]) == -1
    assert line["render_args"] == {"a": None, "b": [None]}


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", *FLOATS],
)
def test_every_type_is_read_back_exactly(tmp_path: Path, dtype: str) -> None:
    if dtype == "bool":
        values = np.array([True, False])
    elif dtype.startswith("float"):
        info = np.finfo(dtype)
        values = np.array([info.max, info.smallest_subnormal, -1 / 3], dtype)
    else:
        values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    buffer = MemoryBuffer({"v": (values.shape, dtype), "x": ((), dtype), "one": ((1,), dtype)})
    record(tmp_path, buffer, buffer.put("1", v=values, x=values[-1], one=values[:1]))
    (line,) = read(tmp_path)
    assert np.array(line["v"], dtype).tobytes() == values.tobytes()
    assert np.array(line["x"], dtype) == values[-1]
    assert np.array(line["one"], dtype) == values[:1]


def test_complex_numbers_are_pairs(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "complex64"), "v": ((2,), "complex128")})
    record(tmp_path, buffer, buffer.put("1", x=1 - 2j, v=[0.5j, math.nan]))
    (line,) = read(tmp_path)
    assert line["x"] == [1.0, -2.0]
    assert line["v"] == [[0.0, 0.5], [None, 0.0]]
    assert to_json([1j]) == b"[[0.0,1.0]]"
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_large_arrays_are_left_out_and_the_bound_is_an_option(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"v64": ((8, 8), "int8"), "v65": ((65,), "int8")})
    record(tmp_path, buffer, buffer.put("1"))
    record(tmp_path, buffer, buffer.put("2"), logger={"options": {"array_elements_max": 65}})
    first, second = read(tmp_path)
    assert list(first) == ["id", "render_args", "v64"]
    assert list(second) == ["id", "render_args", "v64", "v65"]
    with pytest.raises(ConfigError, match="array_elements_max"):
        record(tmp_path, buffer, logger={"options": {"array_elements_max": 0}})


def test_names_that_clash_keep_all_values(tmp_path: Path) -> None:
    names = ("id", "loss", "output_type", "channels.id")
    buffer = MemoryBuffer(dict.fromkeys(names, ((), "int8")))
    item = buffer.put("1") | {"output_type": "poses", "loss": "a lot"}
    record(tmp_path, buffer, item, evaluation={"output_type": "classes"})
    (line,) = read(tmp_path)
    assert line == {
        "id": "1",
        "render_args": {},
        "item.loss": "a lot",
        "output_type": "poses",
        "channels.id": 0,
        "loss": 0,
        "channels.output_type": 0,
        "channels.channels.id": 0,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


def nulled(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case list():
            return [nulled(part) for part in value]
        case dict():
            return {key: nulled(part) for key, part in value.items()}
        case _:
            return value


@settings(deadline=None)
@given(JSON)
def test_any_value_becomes_one_line_of_strict_json(value: Any) -> None:
    encoded = to_json(value)
    assert b"\n" not in encoded
    assert parse(encoded) == nulled(value)


def test_whole_numbers_of_any_size_are_kept_beside_arrays(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32"), "v": ((2,), "float32"), "c": ((), "complex64")})
    record(tmp_path, buffer, buffer.put("\ud800", {"n": 2**100}, x=0.1, v=[0.1, math.nan], c=1j))
    (line,) = read(tmp_path)
    assert line == {
        "id": "\ud800",
        "render_args": {"n": 2**100},
        "x": 0.1,
        "v": [0.1, None],
        "c": [0.0, 1.0],
    }
    assert buffer.kept_count() == 0


@pytest.mark.parametrize("id", ["", "../../x", "a\nb", '"', "\0", "é\u2028", "x" * 300])
def test_odd_ids_are_only_text(tmp_path: Path, id: str) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(tmp_path, buffer, buffer.put(id))
    assert read(tmp_path)[0]["id"] == id


def test_lines_are_in_the_file_after_each_flush(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    logger = Logger(str(tmp_path), buffer, {})
    logger.log(buffer.put("1"))
    logger.flush()
    assert [line["id"] for line in read(tmp_path)] == ["1"]
    logger.log(buffer.put("2"))
    logger.log(None)
    logger.end()
    assert [line["id"] for line in read(tmp_path)] == ["1", "2"]


def test_lines_torn_at_any_byte_are_cut_off_and_the_file_goes_on(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32")})
    record(tmp_path, buffer, *(buffer.put(id, {"a": '"\n'}) for id in ("1", "2")))
    whole = (tmp_path / "details.log").read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / "details.log").write_bytes(whole[:length])
        record(tmp_path, buffer, buffer.put("3"))
        kept = whole[:length].count(b"\n")
        assert [line["id"] for line in read(tmp_path)] == [*["1", "2"][:kept], "3"], length


def test_a_second_run_of_the_same_results_has_lines_of_its_own(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32")})
    for _ in range(2):
        record(tmp_path, buffer, *(buffer.put(id, {"a": 1}) for id in "12"))
    assert [line["id"] for line in read(tmp_path)] == ["1", "2", "1", "2"]


def test_a_result_that_comes_again_has_one_line(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "float32")})
    record(tmp_path, buffer, buffer.put("1", key=(4, 1)))
    record(tmp_path, buffer, buffer.put("1", key=(4, 1)), buffer.put("1", key=(4, 2)))
    assert [line["id"] for line in read(tmp_path)] == ["1", "1"]


def test_two_loggers_with_two_files_share_a_folder(tmp_path: Path) -> None:
    buffer = MemoryBuffer({"x": ((), "int8")})
    first = Logger(str(tmp_path), buffer, {})
    record(tmp_path, buffer, buffer.put("1"), logger={"options": {"file": "more.log"}})
    first.log(buffer.put("1"))
    first.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".details.log.batch",
        ".more.log.batch",
        "details.log",
        "more.log",
    ]
    assert (tmp_path / "more.log").read_bytes() == (tmp_path / "details.log").read_bytes()
    with pytest.raises(ConfigError, match="not a plain file name"):
        record(tmp_path, buffer, logger={"options": {"file": "a/b"}})


def test_few_plans_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_logger, "PLANS_MAX", 1)
    buffer = MemoryBuffer({"x": ((), "int8")})
    record(tmp_path, buffer, buffer.put("1", a=1), buffer.put("2", b=2))
    assert [list(line) for line in read(tmp_path)] == [
        ["id", "render_args", "a", "x"],
        ["id", "render_args", "b", "x"],
    ]


def test_the_label_map_is_copied_byte_for_byte(tmp_path: Path) -> None:
    label_map = tmp_path / "imagenet.json"
    label_map.write_bytes(b'{\n  "0": ["tench"] }')
    folder = tmp_path / "run"
    folder.mkdir()
    for _ in range(2):
        record(folder, MemoryBuffer({}), inference={"label_map": str(label_map)})
    assert (folder / "class_maps.json").read_bytes() == label_map.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["class_maps.json", "details.log"]


def test_a_label_map_may_stand_in_the_configuration(tmp_path: Path) -> None:
    record(tmp_path, MemoryBuffer({}), inference={"label_map": {"0": "tench"}})
    assert parse((tmp_path / "class_maps.json").read_bytes()) == {"0": "tench"}


def test_a_missing_label_map_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match=r"inference\.label_map: .*missing\.json.*No such file"):
        record(tmp_path, MemoryBuffer({}), inference={"label_map": missing})
    assert list(tmp_path.iterdir()) == []
