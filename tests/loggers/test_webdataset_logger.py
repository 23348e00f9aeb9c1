"""The WebDataset logger: shards whose samples lie side by side."""

import io
import itertools
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs.page import blocks
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from millpond.errors import ConfigError
from millpond.testing import MemoryPond
from millpond_loggers.webdataset_logger import Logger, sample_key

PAGE = Path(__file__).parents[2] / "docs" / "loggers" / "webdataset.md"
CHANNELS = {
    "rgb": ((3, 8, 8), "float32"),
    "labels": ((1, 9, 9), "int32"),
    "depth": ((9, 9), "float32"),
    "box": ((2, 3), "float32"),
    "loss": ((), "float32"),
    "is_correct": ((), "bool"),
    "model": ((1,), "int64"),
}
SAMPLE = ["json", "rgb.png", "labels.npy", "depth.npy"]


def started(root: Path, **options: Any) -> MemoryPond:
    pond = MemoryPond(root, CHANNELS, options=options, name="webdataset")
    pond.start(Logger)
    return pond


def samples(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """As readers group them: neighbours of the same name up to the first dot."""
    with tarfile.open(path) as shard:
        members = [(member.name, shard.extractfile(member).read()) for member in shard]
    groups = itertools.groupby(members, lambda member: member[0].partition(".")[0])
    return [(key, {name.partition(".")[2]: data for name, data in group}) for key, group in groups]


def test_a_sample_has_what_the_renderer_sent(tmp_path: Path) -> None:
    pond = started(tmp_path)
    random = np.random.default_rng(0)
    rgb = random.random((3, 8, 8), np.float32)
    labels = random.integers(-5, 10**6, (1, 9, 9), np.int32)
    depth = random.random((9, 9), np.float32) * np.float32(math.inf)
    pond.log(
        "000001",
        {"zoom": 1.5},
        fields={"model": "cup", "loss": "mine"},
        rgb=rgb,
        labels=labels,
        depth=depth,
        box=2,
        loss=math.nan,
        model=7,
    )
    pond.end()
    ((key, files),) = samples(tmp_path / "shards" / "shard-000001.tar")
    assert (key, list(files)) == ("000001", SAMPLE)
    assert json.loads(files["json"]) == {
        "id": "000001",
        "render_args": {"zoom": 1.5},
        "model": "cup",
        "item.loss": "mine",
        "box": [[2, 2, 2]] * 2,
        "loss": None,
        "is_correct": False,
        "channels.model": [7],
    }
    pixels = np.asarray(Image.open(io.BytesIO(files["rgb.png"])))
    assert np.array_equal(pixels, np.rint(np.moveaxis(rgb, 0, 2) * 255))
    for name, array in (("labels", labels), ("depth", depth)):
        found = np.load(io.BytesIO(files[f"{name}.npy"]), allow_pickle=False)
        assert np.array_equal(found, array, equal_nan=True)
        assert found.dtype == array.dtype


def test_which_channels_are_pictures_can_be_said(tmp_path: Path) -> None:
    pond = started(tmp_path, images=["labels"], array_elements_max=1)
    pond.log("a", labels=700)
    pond.end()
    ((_, files),) = samples(tmp_path / "shards" / "shard-000001.tar")
    assert list(files) == ["json", "rgb.npy", "labels.png", "depth.npy", "box.npy"]
    assert (np.asarray(Image.open(io.BytesIO(files["labels.png"]))) == 700).all()
    with pytest.raises(ConfigError, match=r"webdataset\.options\.images: 'box' has no PNG"):
        started(tmp_path / "other", images=["box"])


def test_results_of_one_id_are_samples_of_their_own(tmp_path: Path) -> None:
    pond = started(tmp_path)
    for id in ("a", "a", "b", "a", "a~2"):
        pond.log(id)
    pond.end()
    found = samples(tmp_path / "shards" / "shard-000001.tar")
    assert [key for key, _ in found][:4] == ["a", "a~2", "b", "a~3"]
    assert [list(files) for _, files in found] == [SAMPLE] * 5
    assert [json.loads(files["json"])["id"] for _, files in found] == ["a", "a", "b", "a", "a~2"]


IDS = st.text(st.characters(codec="utf-8"), max_size=8) | st.text("a.b-_~%/", max_size=4)


@given(st.sets(IDS, max_size=20))
def test_no_two_ids_share_a_key_and_none_has_a_dot(ids: set[str]) -> None:
    keys = {sample_key(id) for id in ids}
    assert len(keys) == len(ids)
    for key in keys:
        assert key
        assert not set(key) & set("./~ \\\0")
        assert len(key) <= 180


@pytest.mark.parametrize("id", ["000001", "scene_4-b", "A"])
def test_plain_ids_are_keys_themselves(id: str) -> None:
    assert sample_key(id) == id


def test_long_names_are_whole(tmp_path: Path) -> None:
    name = "c" * 64
    pond = MemoryPond(tmp_path, {name: ((9, 9), "float32")})
    pond.start(Logger)
    pond.log("x" * 180)
    pond.end()
    ((key, files),) = samples(tmp_path / "shards" / "shard-000001.tar")
    assert (key, list(files)) == ("x" * 180, ["json", f"{name}.npy"])


def test_a_shard_is_an_ordinary_tar_file(tmp_path: Path) -> None:
    pond = started(tmp_path, part_bytes=1)
    for number in range(3):
        pond.log(str(number))
    pond.end()
    paths = sorted((tmp_path / "shards").glob("*.tar"))
    assert [path.name for path in paths] == [f"shard-00000{n}.tar" for n in (1, 2, 3)]
    for path in paths:
        assert path.stat().st_size % 512 == 0
        assert path.read_bytes().endswith(bytes(1024))
        with tarfile.open(path) as shard:
            for member in shard:
                assert (member.mode, member.uid, member.uname) == (0o644, 0, "")


@pytest.mark.parametrize("options", [{"images": "rgb"}, {"array_elements_max": 0}, {"shards": 1}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        started(tmp_path, **options)


def test_the_page_shows_how_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, with_library = [block.text for block in blocks(PAGE) if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    pond = started(tmp_path / "runs" / "mine")
    pond.log("000001", {"zoom": 2})
    pond.end()
    exec(code, {})
    assert capsys.readouterr().out == f"000001 {sorted(SAMPLE)} {{'zoom': 2}}\n"
    reading: dict[str, Any] = {}  # What needs no WebDataset: how labels are read.
    exec(with_library.partition("shards =")[0].replace("import webdataset\n", ""), reading)
    (shard,) = Path("runs/mine/shards").glob("*.tar")
    with tarfile.open(shard) as members:
        content = members.extractfile("000001.rgb.png")
        assert content is not None
        assert reading["labels"](content.read()).dtype == np.uint8
