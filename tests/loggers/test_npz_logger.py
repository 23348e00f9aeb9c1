"""The NPZ logger: a file for each result, which numpy reads without pickle."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs.page import blocks

from millpond.errors import ConfigError
from millpond.testing import MemoryPond
from millpond_loggers.files.id_folder import subfolder
from millpond_loggers.files.names import file_name
from millpond_loggers.npz_logger import Logger

PAGE = Path(__file__).parents[2] / "docs" / "loggers" / "npz.md"
CHANNELS = {
    "rgb": ((3, 8, 8), "float32"),
    "file": ((2,), "uint8"),  # A name that numpy.savez takes for its own.
    "loss": ((), "float16"),
    "wave": ((2,), "complex128"),
}


def started(root: Path, channels: Any = CHANNELS, **options: Any) -> MemoryPond:
    pond = MemoryPond(root, channels, options=options, name="npz")
    pond.start(Logger)
    return pond


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_file_has_every_array_as_it_was(tmp_path: Path) -> None:
    pond = started(tmp_path)
    rgb = np.random.default_rng(0).random((3, 8, 8), np.float32)
    wave = np.array([1 - 2j, math.nan])
    pond.log("a", {"zoom": 1}, fields={"model": "cup"}, rgb=rgb, wave=wave, loss=math.inf)
    found = read(tmp_path / "npz" / "a.npz")
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "job": ((len(found["job"]),), np.uint8),
        **{name: (shape, np.dtype(dtype)) for name, (shape, dtype) in CHANNELS.items()},
    }
    assert np.array_equal(found["rgb"], rgb)
    assert np.array_equal(found["wave"], wave, equal_nan=True)
    assert found["loss"] == math.inf
    expected = {"id": "a", "render_args": {"zoom": 1}, "model": "cup"}
    assert json.loads(bytes(found["job"])) == expected
    pond.end()


def test_a_channel_may_be_called_job(tmp_path: Path) -> None:
    pond = started(tmp_path, {"job": ((), "int32")})
    pond.log("a", job=7)
    pond.end()
    found = read(tmp_path / "npz" / "a.npz")
    assert found["job"] == 7
    assert json.loads(bytes(found["0job"]))["id"] == "a"


def test_a_result_that_comes_again_writes_the_same_bytes(tmp_path: Path) -> None:
    pond = started(tmp_path, compression="deflate")
    result = pond.log("a", loss=0.5)
    path = tmp_path / "npz" / "a.npz"
    before = path.read_bytes()
    path.unlink()
    pond.deliver([result])
    assert path.read_bytes() == before
    pond.end()


def test_arrays_are_compressed_when_asked_for(tmp_path: Path) -> None:
    for compression, method in (("none", zipfile.ZIP_STORED), ("deflate", zipfile.ZIP_DEFLATED)):
        pond = started(tmp_path / compression, compression=compression)
        pond.log("a", rgb=0.5)
        pond.end()
        path = tmp_path / compression / "npz" / "a.npz"
        with zipfile.ZipFile(path) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {method}
        assert (read(path)["rgb"] == 0.5).all()


def test_files_can_be_spread_over_subfolders_and_are_found_wherever_they_are(
    tmp_path: Path,
) -> None:
    for digits, id in ((0, "a"), (2, "b"), (3, "../c")):
        pond = started(tmp_path, subfolders=digits)
        pond.log(id)
        pond.end()
        name = file_name(id, ".npz")
        assert (tmp_path / "npz" / subfolder(id, digits) / name).is_file()
    options = Logger.Options(subfolders=1)
    is_recorded = Logger.is_recorded(str(tmp_path), options, {})
    assert [is_recorded(id) for id in ("a", "b", "../c", "d")] == [True, True, True, False]


def test_another_folder_can_be_named(tmp_path: Path) -> None:
    pond = started(tmp_path, folder="arrays")
    pond.log("a")
    pond.end()
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    "options", [{"compression": "zstd"}, {"subfolders": 4}, {"folder": "a/b"}, {"file": "x"}]
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        started(tmp_path, **options)


def test_the_page_shows_how_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    pond = started(tmp_path / "runs" / "mine")
    pond.log("000001", {"zoom": 2})
    pond.end()
    exec(code, {})
    assert capsys.readouterr().out == "(3, 8, 8) 000001 {'zoom': 2}\n"
