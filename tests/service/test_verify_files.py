"""What each logger is asked about its files, and what becomes of its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millpond.core.deliveries import Result
from millpond.ledger import Ledger
from millpond.ledger_reader import numbers, read_start
from millpond.verify_files import FileReport, check_files

# A logger that has recorded what the option says.
PLUGIN = """
from collections import Counter
class Logger:
    def __init__(self, *_): pass
    def log(self, item): pass
    def recorded(root_dir, options, channels):
        return Counter(options["ids"])
"""


def run_with(run: Path, place: str, **options: Any) -> list[tuple[str, FileReport]]:
    logger = {"name": "mine", "kind": "file", "place": place, "options": options}
    ledger = Ledger(run, [logger])
    ledger.begin({}, config=str(run / "pond.yaml"))
    ledger.renderer_joined(1, 1)
    published = [Result(0, 1, 1, n, id, b"") for n, id in enumerate(("a", "a", "b", "c"), 1)]
    ledger.published(published)
    ledger.delivered(0, published[:3])
    ledger.close()
    starts = [read_start(run, number) for number in numbers(run)]
    return list(check_files(run, starts, is_running=options.get("is_running", False)))


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return str(path)


def test_a_result_is_expected_as_often_as_it_was_delivered(tmp_path: Path, plugin: str) -> None:
    [(name, report)] = run_with(tmp_path, plugin, ids=["a", "a", "b"])
    assert name == "mine"
    assert report == FileReport("", 3, {}, {}, 0, repeated=1)
    assert report.wrong == []
    assert report.text == "files: 3 expected, 0 missing (1 id came more than once)"
    assert report.to_json()["expected"] == 3


def test_what_is_missing_or_too_many_is_wrong(tmp_path: Path, plugin: str) -> None:
    [(_, report)] = run_with(tmp_path, plugin, ids=["a", "b", "b", "c", "d"])
    assert report == FileReport("", 3, {"a": 1}, {"b": 1, "d": 1}, 1, repeated=1)
    assert report.wrong == [
        ("delivered, not in its files", ["a"]),
        ("in its files too often", ["b", "d"]),
    ]
    assert report.text == (
        "files: 3 expected, 1 missing (1 id came more than once), 2 too many, "
        "1 written though not acknowledged"
    )


def test_a_running_logger_may_have_more(tmp_path: Path, plugin: str) -> None:
    [(_, report)] = run_with(tmp_path, plugin, ids=["a", "b", "b"], is_running=True)
    assert report.wrong == [("delivered, not in its files", ["a"])]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("import os; os._exit(3)\n", "the check ended with 3"),
        (PLUGIN.replace("Counter(options", "len(nothing"), "NameError"),
        (
            "class Logger:\n    def __init__(self, *_): pass\n    def log(self, item): pass\n",
            "does not say",
        ),
    ],
)
def test_a_logger_that_fails_when_asked_is_not_checked(
    tmp_path: Path, plugin: str, content: str, why: str
) -> None:
    Path(plugin).write_text(content)
    [(_, report)] = run_with(tmp_path, plugin, ids=[])
    assert why in report.not_checked
    assert report.text == f"files not checked: {report.not_checked}"
    assert report.wrong == []
