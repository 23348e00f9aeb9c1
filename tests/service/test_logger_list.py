"""The loggers that are installed here, and what each says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from millpond import logger_list
from millpond.errors import ConfigError
from millpond.logger_list import list_logger, list_loggers

GOOD = '"""A logger that is good."""\nclass Logger:\n    def log(self, item): ...\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is looked through as for a run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def distribution(folder: Path, name: str, **loggers: str | None) -> None:
    """Put a distribution there whose loggers are modules of these contents, or are missing."""
    about = folder / f"{name}-2.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
    lines = ["[millpond.loggers]"]
    for logger, content in loggers.items():
        lines.append(f"{logger} = {name}_{logger}")
        if content is not None:
            (folder / f"{name}_{logger}.py").write_text(content)
    (about / "entry_points.txt").write_text("\n".join(lines))


def test_those_of_every_distribution_are_listed_and_none_is_imported_here(folder: Path) -> None:
    distribution(folder, "theirs", aaa=GOOD, zzz=GOOD)
    rows = list_loggers()
    names = [row.name for row in rows]
    assert names == sorted(names)
    assert {"aaa", "csv", "image", "json", "null", "zzz"} <= set(names)
    first = rows[0]
    assert (first.place, first.origin, first.state) == ("theirs_aaa", "theirs 2.1", "ready")
    assert first.description.summary == "is good."
    csv = rows[names.index("csv")]
    assert csv.place == "millpond_loggers.csv_logger"
    assert csv.origin.startswith("millpond ")
    assert "file" in [option.name for option in csv.description.options or ()]
    assert "theirs_aaa" not in sys.modules


def test_broken_ones_have_their_problem_and_spoil_no_other(folder: Path) -> None:
    distribution(
        folder,
        "theirs",
        a="import os\nprint('half a line', end='')\nos._exit(3)\n",
        b="1 / 0\n",
        c=None,
        d="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        e=GOOD,
        f=GOOD.replace("Logger:", "Logger:\n    libraries = ('no_such_library',)"),
    )
    states = {row.name: row.state for row in list_loggers()}
    assert states["a"] == "cannot be used: half a line"
    assert (
        states["b"]
        == "cannot be used: ZeroDivisionError: division by zero (theirs_b.py:1, in <module>)"
    )
    assert states["c"].startswith("cannot be used: no module named 'theirs_c'")
    assert states["d"] == "cannot be used: importing it ended with -11"
    assert states["e"] == states["csv"] == "ready"
    assert states["f"] == "needs no_such_library: pip install no_such_library"


def test_one_whose_extra_is_here_is_ready_and_names_it(folder: Path) -> None:
    text = GOOD.replace("Logger:", "Logger:\n    extra = 'more'\n    libraries = ('json',)")
    (folder / "mine_logger.py").write_text(text)
    assert list_logger("./mine_logger.py").state == "ready (extra: more)"


def test_one_that_never_ends_its_import_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stuck.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setattr(logger_list, "IMPORT_S_MAX", 0.2)
    assert list_logger("stuck").state == "cannot be used: importing it takes more than 0.2 s"


def test_one_is_found_by_short_name_by_path_and_as_a_file(folder: Path) -> None:
    (folder / "mine_logger.py").write_text(GOOD)
    for module, kind, place in (
        ("mine_logger", "module", "mine_logger"),
        ("./mine_logger.py", "file", str(folder / "mine_logger.py")),
    ):
        row = list_logger(module)
        assert (row.kind, row.place, row.origin, row.state) == (kind, place, "", "ready")
    assert list_logger("./mine_logger.py").name == "mine"
    for module in ("csv", "millpond_loggers.csv_logger"):
        assert list_logger(module).origin.startswith("millpond ")
    assert list_logger("csv") in list_loggers()


def test_one_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'csv'"):
        list_logger("cvs")
    with pytest.raises(ConfigError, match="there is no file"):
        list_logger("./nope.py")


def test_all_of_it_is_in_the_json(folder: Path) -> None:
    shown = list_logger("json").to_json()
    assert list(shown) == [
        "name", "module", "origin", "state",
        "summary", "extra", "missing", "install", "options", "problem",
    ]  # fmt: skip
    (file, *_) = shown["options"]
    assert list(file) == ["name", "type", "range", "is_required", "default", "description"]
    assert file["default"] == "details.log"
