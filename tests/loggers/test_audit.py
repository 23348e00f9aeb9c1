"""Comparing the files of the built-in loggers with what they are said to have."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond_loggers import csv_logger, image_logger, json_logger
from millpond_loggers.audit import Findings, compare

CHANNELS = {"rgb": ((3, 4, 4), "float32"), "depth": ((4, 4), "float32"), "loss": ((), "float32")}
AS_JSON = {name: [list(shape), dtype] for name, (shape, dtype) in CHANNELS.items()}
PLACES = {kind: f"millpond_loggers.{kind}_logger" for kind in ("csv", "json", "image", "null")}
LOGGERS = {"csv": csv_logger, "json": json_logger, "image": image_logger}
NASTY = ["=1+1", "'=1+1", "a,b", '"', "é👍", "../x", "id", "-", "x" * 1024]


def record(folder: Path, kind: str, *ids: str, **options: Any) -> None:
    buffer = MemoryBuffer(CHANNELS)
    config = {"logger": {"name": kind, "options": options}}
    logger = LOGGERS[kind].Logger(str(folder), buffer, config)
    for id in ids:
        logger.log(buffer.put(id, {"zoom": 1.5, "note": "two\nlines"}, rgb=np.ones((3, 4, 4))))
    logger.flush()
    logger.end()


def ask(
    folder: Path, kind: str, expected: Mapping[str, tuple[int, int]], **options: Any
) -> Findings:
    question = {
        "root_dir": str(folder),
        "kind": "module",
        "place": PLACES[kind],
        "options": options,
        "channels": AS_JSON,
    }
    return compare(question, expected)


@pytest.mark.parametrize("kind", LOGGERS)
def test_what_was_delivered_is_found(tmp_path: Path, kind: str) -> None:
    ids = [f"{number:06}" for number in range(20)] + NASTY
    record(tmp_path, kind, *ids)
    assert ask(tmp_path, kind, dict.fromkeys(ids, (1, 0))) == Findings(expected=len(ids))


@pytest.mark.parametrize("kind", LOGGERS)
def test_what_is_not_there_is_missing(tmp_path: Path, kind: str) -> None:
    assert ask(tmp_path, kind, {"a": (2, 0)}) == Findings(expected=2, missing={"a": 2})
    record(tmp_path, kind, "a", "=b")
    expected = {"a": (1, 0), "=b": (1, 0), "=c": (1, 0), "dead": (0, 1)}
    assert ask(tmp_path, kind, expected) == Findings(expected=3, missing={"=c": 1})


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_rows_are_counted(tmp_path: Path, kind: str) -> None:
    """The same id may be published several times, and then has as many rows."""
    record(tmp_path, kind, "a", "a", "a", "b", "=c")
    good = {"a": (3, 0), "b": (1, 0), "=c": (1, 0)}
    assert ask(tmp_path, kind, good) == Findings(expected=5)
    few = {"a": (4, 0), "b": (1, 0), "=c": (1, 0)}
    assert ask(tmp_path, kind, few) == Findings(expected=6, missing={"a": 1})
    written = "'=c" if kind == "csv" else "=c"
    many = {"a": (1, 0), "b": (1, 0)}
    assert ask(tmp_path, kind, many) == Findings(expected=2, extra={"a": 2, written: 1})


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_row_of_a_result_that_is_dead_or_spilled_is_no_error(tmp_path: Path, kind: str) -> None:
    record(tmp_path, kind, "a", "a", "b")
    expected = {"a": (1, 1), "b": (0, 2)}
    assert ask(tmp_path, kind, expected) == Findings(expected=1, unacknowledged=2)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_options_say_how_and_where(tmp_path: Path, kind: str) -> None:
    record(tmp_path, kind, "a", file="other.txt")
    assert ask(tmp_path, kind, {"a": (1, 0)}, file="other.txt") == Findings(expected=1)
    assert ask(tmp_path, kind, {"a": (1, 0)}).missing == {"a": 1}


def test_formulas_are_as_the_option_has_them(tmp_path: Path) -> None:
    record(tmp_path, "csv", "=a", escape_formulas=False)
    assert ask(tmp_path, "csv", {"=a": (1, 0)}, escape_formulas=False) == Findings(expected=1)


@pytest.mark.parametrize(("kind", "file"), [("csv", "details.csv"), ("json", "details.log")])
def test_a_row_that_was_torn_counts_not(tmp_path: Path, kind: str, file: str) -> None:
    record(tmp_path, kind, "a", "b")
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-1])
    assert ask(tmp_path, kind, {"a": (1, 0), "b": (1, 0)}).missing == {"b": 1}


def test_every_image_must_be_there(tmp_path: Path) -> None:
    record(tmp_path, "image", "a", "b")
    expected = {"a": (1, 0), "b": (1, 0)}
    assert ask(tmp_path, "image", expected) == Findings(expected=2)
    (tmp_path / "images" / "b_depth.tiff").unlink()
    assert ask(tmp_path, "image", expected).missing == {"b": 1}
    assert ask(tmp_path, "image", expected, channels=["rgb"]) == Findings(expected=2)


def test_the_formats_of_images_are_found(tmp_path: Path) -> None:
    record(tmp_path, "image", "a", encoding="npy")
    assert ask(tmp_path, "image", {"a": (1, 0)}, encoding="npy") == Findings(expected=1)


@pytest.mark.parametrize(
    ("place", "options", "channels", "why"),
    [
        (PLACES["null"], {}, AS_JSON, "does not say"),
        ("nowhere.at_all", {}, AS_JSON, "nowhere"),
        (PLACES["csv"], {"flie": "x"}, AS_JSON, "flie"),
        (PLACES["image"], {}, None, "which channels"),
        (PLACES["csv"], {}, {"a": 5}, "channel"),
    ],
)
def test_what_cannot_be_checked_is_said(
    tmp_path: Path, place: str, options: dict[str, Any], channels: Any, why: str
) -> None:
    question = {
        "root_dir": str(tmp_path),
        "kind": "module",
        "place": place,
        "options": options,
        "channels": channels,
    }
    assert why in compare(question, {"a": (1, 0)}).not_checked


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "details.csv").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in ask(tmp_path, "csv", {}).not_checked


def test_it_is_a_program_that_answers_in_json(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from collections import Counter\n"
        "print('noise')\n"
        "class Logger:\n"
        "    def __init__(self, *_): pass\n"
        "    def log(self, item): pass\n"
        "    def recorded(root_dir, options, channels):\n"
        "        return Counter({'a': options['times']})\n"
    )
    question = {
        "root_dir": str(tmp_path),
        "kind": "file",
        "place": str(plugin),
        "options": {"times": 3},
        "channels": None,
        "folders": [str(tmp_path)],
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "millpond_loggers.audit"],
        input="\n".join(json.dumps(part) for part in (question, ["a", 1, 1], ["b", 1, 0])),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(child.stdout) == {
        "not_checked": "",
        "expected": 2,
        "missing": {"b": 1},
        "extra": {"a": 1},
        "unacknowledged": 1,
    }
