"""Processes that are killed, as a test sees them: how each ended, and what it left."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond_loggers.plugin import PluginError, load
from millpond_loggers.testing import victims
from millpond_loggers.testing.victims import Victims, close_victims, victims_of

LOGGER = """
import os, signal, sys
from pathlib import Path

class Logger:
    def __init__(self, root_dir, buffer, config):
        self.file = (Path(root_dir) / "ids").open("a")
        self.options = config["logger"]["options"]
        print("printed, and no answer")
        if self.options.get("dies"):
            sys.stderr.write("about to die")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, item):
        if item["id"] == self.options.get("raises"):
            raise ValueError("bad one")
        self.file.write(item["id"] + "\\n")

    def flush(self):
        self.file.flush()

    def end(self):
        self.file.close()
"""


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers are put on it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Victims]:
    path = tmp_path / "killed_logger.py"
    path.write_text(LOGGER)
    made = Victims("file", str(path))
    yield made
    made.close()


def case(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "root_dir": str(folder / "root"),
        "books": str(folder / "books"),
        "channels": {"loss": [[], "float32"]},
        "options": {},
        "config": {},
        "count": 8,
        **changes,
    }


def ids(folder: Path) -> list[int]:
    return list(map(int, (folder / "root" / "ids").read_text().split()))


def released(folder: Path) -> list[int]:
    return list(map(int, (folder / "books").read_text().split()))


def test_one_that_is_not_killed_delivers_all_and_counts_its_operations(
    mine: Victims, tmp_path: Path
) -> None:
    outcome = mine.run(case(tmp_path))
    assert (outcome.is_killed, outcome.problem) == (False, "")
    assert outcome.operations == 1  # Its file is opened; what Python writes itself is not seen.
    assert ids(tmp_path) == released(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("point", "at", "left"),
    [
        ("after_ready", 1, (0, 0)),
        ("before_log", 2, (1, 1)),
        ("after_log", 5, (1, 1)),
        ("after_flush", 2, (5, 1)),
        ("before_release", 2, (5, 1)),
        ("during_release", 2, (5, 3)),
        ("after_release", 2, (5, 5)),
        ("after_end", 1, (8, 8)),
    ],
)
def test_one_that_is_killed_leaves_what_it_had_done(
    mine: Victims, tmp_path: Path, point: str, at: int, left: tuple[int, int]
) -> None:
    """The batches are of 1, 4 and 3 results; so many are written, and so many are released."""
    written, known = left
    assert mine.run(case(tmp_path, point=point, at=at)).is_killed
    assert ids(tmp_path) == list(range(1, written + 1))
    assert released(tmp_path) == list(range(1, known + 1))


def test_the_next_one_is_given_what_was_not_released(mine: Victims, tmp_path: Path) -> None:
    mine.run(case(tmp_path, point="during_release", at=2))
    assert not mine.run(case(tmp_path)).is_killed
    assert ids(tmp_path) == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert released(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_one_may_be_killed_at_an_operation(mine: Victims, tmp_path: Path) -> None:
    assert mine.run(case(tmp_path, operation=1, how="killed before")).is_killed
    assert list((tmp_path / "root").iterdir()) == []


def test_what_is_raised_again_and_again_is_told(mine: Victims, tmp_path: Path) -> None:
    outcome = mine.run(case(tmp_path, options={"raises": "000002"}))
    assert not outcome.is_killed
    assert outcome.problem.endswith("ValueError: bad one\n")
    assert released(tmp_path) == [1, 3, 4, 5]


def test_another_death_is_told_with_what_it_said(mine: Victims, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="died of signal 15") as caught:
        mine.run(case(tmp_path, options={"dies": True}))
    assert str(caught.value).endswith("about to die")


def test_a_module_that_is_no_logger_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty_logger.py"
    path.write_text("")
    with pytest.raises(PluginError, match="has no `Logger`"):
        load("file", str(path))
    broken = Victims("file", str(path))
    with pytest.raises(RuntimeError, match="has no `Logger`"):
        broken.run(case(tmp_path))
    broken.close()


def test_the_program_is_kept_for_the_next_test_of_the_same_logger() -> None:
    first = victims_of("module", "millpond_loggers.null_logger")
    assert victims_of("module", "millpond_loggers.null_logger") is first
    assert victims_of("module", "millpond_loggers.json_logger") is not first
    close_victims()
    assert victims._latest == []
