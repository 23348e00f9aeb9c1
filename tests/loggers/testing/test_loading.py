"""A test names its logger by a dotted name, or by a file beside it."""

import sys
from pathlib import Path

import pytest

from millpond_loggers import null_logger
from millpond_loggers.plugin import PluginError
from millpond_loggers.testing.loading import find_logger, load_once

CODE = "class Logger:\n    def __init__(self, *_): ...\n    def log(self, item): ...\n"


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers are put on it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_dotted_name_is_a_module() -> None:
    place = ("module", "millpond_loggers.null_logger")
    assert find_logger("millpond_loggers.null_logger", Path("anywhere")) == place
    assert load_once(*place) is null_logger.Logger


def test_a_file_is_looked_for_beside_the_test_then_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, current = tmp_path / "beside", tmp_path / "current"
    for folder in (beside, current):
        folder.mkdir()
        (folder / "here.py").write_text(CODE)
    (current / "only.py").write_text(CODE)
    monkeypatch.chdir(current)
    assert find_logger("here.py", beside) == ("file", str(beside / "here.py"))
    assert find_logger("only.py", beside) == ("file", str(current / "only.py"))
    assert find_logger("./only.py", beside) == ("file", str(current / "only.py"))


def test_a_file_is_run_once(tmp_path: Path) -> None:
    path = tmp_path / "run_once_logger.py"
    path.write_text(CODE)
    first = load_once("file", str(path))
    assert load_once("file", str(path)) is first


def test_what_is_no_logger_is_told_as_a_run_would(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no file"):
        load_once("file", str(tmp_path / "missing.py"))
