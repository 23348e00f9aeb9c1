"""The HDF5 logger: parts that h5py reads, every array as it was."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from docs.page import blocks

from millpond.errors import ConfigError
from millpond.testing import MemoryPond
from millpond_loggers import hdf5_logger
from millpond_loggers.hdf5_logger import Logger
from millpond_loggers.testing.abandoned import abandon_files

PAGE = Path(__file__).parents[2] / "docs" / "loggers" / "hdf5.md"
DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


def record(root: Path, channels: dict[str, Any], *arrays: dict[str, Any], **options: Any) -> Path:
    pond = MemoryPond(root, channels, options=options, name="hdf5")
    pond.start(Logger)
    for number, values in enumerate(arrays):
        pond.log(f"é{number}", {"zoom": number}, fields={"model": "cup"}, **values)
    pond.end()
    return root / "hdf5" / "part-000001.h5"


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_keep_shape_type_and_values(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 2, (2, 3)).astype(dtype) for _ in range(3)]
    with h5py.File(record(tmp_path, {"x": ((2, 3), dtype)}, *({"x": a} for a in arrays))) as part:
        assert (part["x"].shape, part["x"].dtype) == ((3, 2, 3), np.dtype(dtype))
        assert np.array_equal(part["x"][:], np.stack(arrays))


def test_scalars_have_one_axis_and_keep_nan(tmp_path: Path) -> None:
    values = [math.nan, math.inf, -0.0]
    path = record(tmp_path, {"loss": ((), "float32")}, *({"loss": value} for value in values))
    with h5py.File(path) as part:
        assert part["loss"][:].tobytes() == np.array(values, np.float32).tobytes()


def test_what_was_sent_along_is_text(tmp_path: Path) -> None:
    channels = {
        "id": ((), "int32"),
        "fields": ((2,), "uint8"),
        "a.b-c": ((), "bool"),
        "channels.id": ((), "int32"),
    }
    with h5py.File(record(tmp_path, channels, {}, {})) as part:
        names = ["id", "render_args", "fields", "channels.id", "channels.fields", "a.b-c"]
        assert list(part) == [*names, "channels.channels.id"]
        assert list(part["id"].asstr()) == ["é0", "é1"]
        assert [json.loads(text) for text in part["render_args"]] == [{"zoom": 0}, {"zoom": 1}]
        assert [json.loads(text) for text in part["fields"]] == [{"model": "cup"}] * 2
        assert list(part["channels.id"]) == [0, 0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, None)),
        ({"compression": "lzf"}, ("lzf", None)),
        ({"compression": "gzip"}, ("gzip", 1)),
        ({"compression": "gzip", "gzip_level": 9}, ("gzip", 9)),
    ],
)
def test_arrays_are_compressed_as_asked_for(
    tmp_path: Path, options: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    array = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    path = record(tmp_path, {"x": ((64, 64), "float32")}, {"x": array}, **options)
    with h5py.File(path) as part:
        assert (part["x"].compression, part["x"].compression_opts) == expected
        assert np.array_equal(part["x"][0], array)
    if options:
        assert path.stat().st_size < array.nbytes


def test_many_rows_of_one_part_are_written_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_logger, "BLOCK_BYTES", 40)
    values = [{"x": np.full(3, number, np.float32)} for number in range(8)]
    with h5py.File(record(tmp_path, {"x": ((3,), "float32")}, *values)) as part:
        assert part["x"].chunks == (3, 3)
        assert list(part["x"][:, 0]) == list(range(8))


def test_what_a_dead_process_left_is_written_with_the_channels_of_its_time(tmp_path: Path) -> None:
    pond = MemoryPond(tmp_path, {"old": ((2,), "int16")})
    pond.start(Logger)
    pond.log("1", old=np.array([3, 4], np.int16))
    abandon_files(tmp_path)  # It is no more.
    later = MemoryPond(tmp_path, {"new": ((), "float64")})
    later.start(Logger)
    later.log("2", new=0.5)
    later.end()
    with h5py.File(tmp_path / "hdf5" / "part-000001.h5") as part:
        assert part["old"][:].tolist() == [[3, 4]]
    with h5py.File(tmp_path / "hdf5" / "part-000002.h5") as part:
        assert part["new"][:].tolist() == [0.5]


@pytest.mark.parametrize("options", [{"compression": "zip"}, {"gzip_level": 10}, {"rows": 1}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        record(tmp_path, {"x": ((), "bool")}, **options)


def test_the_page_shows_how_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "runs" / "mine", {"rgb": ((3, 4, 4), "float32")}, {}, {})
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [
        "é0 (3, 4, 4) {'zoom': 0}",
        "é1 (3, 4, 4) {'zoom': 1}",
    ]
