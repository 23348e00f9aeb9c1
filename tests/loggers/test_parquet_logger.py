"""The Parquet logger: parts that pandas and pyarrow read."""

import io
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from docs.page import blocks
from PIL import Image
from pyarrow import dataset, parquet

from millpond.errors import ConfigError
from millpond.testing import MemoryPond
from millpond_loggers import parquet_logger
from millpond_loggers.parquet_logger import Logger

PAGE = Path(__file__).parents[2] / "docs" / "loggers" / "parquet.md"
CHANNELS = {
    "rgb": ((3, 8, 8), "float32"),
    "labels": ((1, 9, 9), "int32"),
    "depth": ((9, 9), "float32"),
    "box": ((2, 3), "float32"),
    "loss": ((), "float32"),
    "is_correct": ((), "bool"),
    "model": ((), "int64"),
}


def started(root: Path, **options: Any) -> MemoryPond:
    pond = MemoryPond(root, CHANNELS, options=options, name="parquet")
    pond.start(Logger)
    return pond


def test_a_row_has_what_the_renderer_sent(tmp_path: Path) -> None:
    pond = started(tmp_path, images=["rgb", "labels"])
    rgb = np.random.default_rng(0).random((3, 8, 8), np.float32)
    box = np.arange(6, dtype=np.float32).reshape(2, 3)
    pond.log(
        "a/b",
        {"zoom": 1, "at": [1.5, 2.0]},
        fields={"environment": "hall", "order": 3},
        rgb=rgb,
        labels=700,
        box=box,
        loss=0.1,
        is_correct=True,
        model=2**60,
    )
    pond.log("b", {"zoom": 0.5, "name": "x"}, loss=math.nan)
    pond.end()
    frame = pd.read_parquet(tmp_path / "parquet")
    assert list(frame.columns) == [
        *("id", "environment", "order"),
        *("rgb", "labels", "box", "loss", "is_correct", "channels.model"),
        *("render_args.zoom", "render_args.at", "render_args.name"),
    ]
    first, second = frame.to_dict("records")
    assert (first["id"], first["environment"], first["order"]) == ("a/b", "hall", 3)
    assert (first["is_correct"], first["channels.model"]) == (True, 2**60)
    assert frame["loss"].dtype == np.float32
    assert frame["loss"][0] == np.float32(0.1)
    assert np.array_equal(np.stack(first["box"]), box)
    assert list(first["render_args.at"]) == [1.5, 2.0]
    pixels = np.asarray(Image.open(io.BytesIO(first["rgb"])))
    assert np.array_equal(pixels, np.rint(np.moveaxis(rgb, 0, 2) * 255))
    assert (np.asarray(Image.open(io.BytesIO(first["labels"]))) == 700).all()
    assert math.isnan(second["loss"])
    assert second["render_args.zoom"] == 0.5


def test_nan_is_not_null(tmp_path: Path) -> None:
    pond = started(tmp_path)
    for number, value in enumerate((math.nan, math.inf, -math.inf)):
        pond.log(str(number), loss=value)
    pond.end()
    column = parquet.read_table(tmp_path / "parquet" / "part-000001.parquet")["loss"]
    assert column.null_count == 0
    assert str(column.to_pylist()) == "[nan, inf, -inf]"


def test_the_parts_of_a_run_are_one_table(tmp_path: Path) -> None:
    """As the documentation shows, whatever columns came later, also after a crash."""
    pond = started(tmp_path, part_rows=1)
    pond.log("1", {"zoom": 1})
    pond.log("2", {"zoom": 1.5, "light": "sun"})
    pond.restart(Logger)
    pond.log("3", {"zoom": "wide", "light": None})
    pond.end()
    files = sorted((tmp_path / "parquet").glob("*.parquet"))
    schemas = [parquet.read_schema(file) for file in files]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    frame = dataset.dataset(files, schema=schema).to_table().to_pandas()
    assert list(frame["id"]) == ["1", "2", "3"]
    assert list(frame["render_args.zoom"][:2]) == [1, 1.5]
    assert frame["render_args.zoom.json"][2] == '"wide"'
    assert frame["render_args.light"][1] == "sun"


def test_the_kinds_of_columns_are_known_after_a_restart(tmp_path: Path) -> None:
    pond = started(tmp_path, part_rows=1)
    pond.log("1", {"zoom": 1.5})
    pond.restart(Logger)
    pond.log("2", {"zoom": 2})
    pond.end()
    last = tmp_path / "parquet" / "part-000002.parquet"
    assert parquet.read_schema(last).field("render_args.zoom").type == pa.float64()


def test_a_last_part_that_is_damaged_is_no_obstacle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "part-000004.parquet").write_bytes(b"no table")
    pond = started(tmp_path)
    pond.log("1")
    pond.end()
    assert parquet.read_table(tmp_path / "parquet" / "part-000005.parquet")["id"].to_pylist() == [
        "1"
    ]


def test_arrays_of_more_numbers_than_allowed_are_left_out(tmp_path: Path) -> None:
    pond = started(tmp_path, array_elements_max=5)
    pond.log("1")
    pond.end()
    columns = parquet.read_schema(tmp_path / "parquet" / "part-000001.parquet").names
    assert columns == ["id", "loss", "is_correct", "channels.model"]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_columns_are_compressed_as_asked_for(tmp_path: Path, compression: str) -> None:
    pond = started(tmp_path, compression=compression)
    pond.log("1")
    pond.end()
    metadata = parquet.read_metadata(tmp_path / "parquet" / "part-000001.parquet")
    found = metadata.row_group(0).column(0).compression
    assert found == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())


def test_wrong_images_are_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parquet\.options\.images: 'depth' has no PNG"):
        started(tmp_path, images=["depth"])


def test_a_value_that_its_picture_cannot_hold_is_told_and_the_rest_is_recorded(
    tmp_path: Path,
) -> None:
    pond = started(tmp_path, images=["labels"])
    pond.log("1")
    with pytest.raises(ValueError, match="channel 'labels' has values from -1"):
        pond.log("2", labels=-1)
    pond.log("3")
    pond.end()
    assert list(pd.read_parquet(tmp_path / "parquet")["id"]) == ["1", "3"]


def test_columns_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_logger, "COLUMN_COUNT_MAX", 8)
    pond = started(tmp_path)
    pond.log("1", {"a": 1})
    message = r"10 columns, at most 8 are possible; the new ones are \['render_args.n0', "
    with pytest.raises(ValueError, match=message):
        pond.log("2", {f"n{number}": 1 for number in range(6)})
    pond.log("3", {"b": 1})
    pond.end()
    assert list(pd.read_parquet(tmp_path / "parquet")["id"]) == ["1", "3"]


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    ponds = [MemoryPond(tmp_path, CHANNELS, instance=n, instances=2) for n in (1, 2)]
    for number, pond in enumerate(ponds):
        pond.start(Logger)
        pond.log(str(number))
    for pond in ponds:
        pond.end()
    assert sorted(pd.read_parquet(tmp_path / "parquet")["id"]) == ["0", "1"]


@pytest.mark.parametrize("options", [{"compression": "best"}, {"images": "rgb"}, {"rows": 1}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        started(tmp_path, **options)


def test_the_page_shows_how_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    pond = started(tmp_path / "runs" / "mine", part_rows=1)
    pond.log("1", {"zoom": 1})
    pond.log("2", {"zoom": 1.5, "light": "sun"})
    pond.end()
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["table"]["render_args.zoom"].to_pylist() == [1, 1.5]
    assert names["table"]["render_args.light"].to_pylist() == [None, "sun"]


def test_looking_into_a_part_starts_no_threads(tmp_path: Path) -> None:
    """A process that ends while pyarrow starts some may be aborted."""
    pond = MemoryPond(tmp_path, {"loss": ((), "float32")})
    pond.start(Logger)
    pond.log("1")
    pond.end()
    script = """
        import os, sys
        from pyarrow import parquet
        from millpond_loggers.parquet_logger import Logger
        before = len(os.listdir("/proc/self/task"))
        assert Logger.recorded(sys.argv[1], Logger.Options(), {}) == {"1": 1}
        assert len(os.listdir("/proc/self/task")) == before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=True)
