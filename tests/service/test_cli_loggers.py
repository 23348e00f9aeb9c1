"""``millpond loggers`` and ``millpond init-logger``, as an author gives them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from millpond.cli_loggers import lines_of, lines_with_options
from millpond.logger_list import Description, ListedLogger, Option


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millpond", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
    )


def row(**described: object) -> ListedLogger:
    description = Description(**described)  # type: ignore[arg-type]
    return ListedLogger("boards", "module", "shop.boards", "shop 1.0", description)


def test_a_logger_is_listed_with_all_that_one_needs_to_choose_it() -> None:
    options = (
        Option("rows", "integer", "1 to 9", False, 3, "Rows of a part."),
        Option("file", "text", "", False, "a.csv", ""),
        Option("place", "text", "", True, None, "Where."),
    )
    listed = row(summary="stacks boards.", options=options)
    assert lines_of(listed) == [
        "boards: ready",
        "  stacks boards.",
        "  shop.boards, shop 1.0",
        "  options: rows, file, place",
    ]
    assert lines_with_options(listed)[3:] == [
        "  options:",
        "    rows (integer, 1 to 9, default 3): Rows of a part.",
        '    file (text, default "a.csv")',
        "    place (text, required): Where.",
    ]


def test_one_without_options_and_one_that_does_not_describe_them_say_so() -> None:
    assert lines_with_options(row(options=()))[-1] == lines_of(row(options=()))[-1]
    assert lines_of(row(options=()))[-1] == "  options: none"
    assert lines_of(row())[-1] == lines_with_options(row())[-1]
    assert lines_of(row())[-1] == "  options: not described: it takes any"


def test_one_that_misses_a_library_says_how_to_get_it_and_a_broken_one_why() -> None:
    needs = row(missing=("boards",), install='pip install "shop[boards]"', options=())
    assert lines_of(needs)[0] == 'boards: needs boards: pip install "shop[boards]"'
    broken = row(problem="Traceback\n  File x\nKeyError: 1")
    assert lines_of(broken) == ["boards: cannot be used: KeyError: 1", "  shop.boards, shop 1.0"]


def test_the_list_is_told_to_people_and_to_scripts(tmp_path: Path) -> None:
    done = command("loggers", "list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "csv: ready\n" in done.stdout
    assert "\x1b" not in done.stdout
    rows = json.loads(command("loggers", "list", "--json", cwd=tmp_path).stdout)
    assert [one["name"] for one in rows] == [
        line.partition(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")
    ]


def test_on_a_terminal_it_is_a_table(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "millpond", "loggers", "list"],
        stdout=theirs,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "160", "TERM": "dumb"},
    ) as child:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # How Linux says that the other end is closed.
            pass
        os.close(ours)
    assert child.returncode == 0
    text = shown.decode()
    assert "what it does" in text
    assert "millpond_loggers.csv_logger" not in text
    for name in ("csv", "image", "json", "null"):
        assert f"\n {name} " in text.replace("\r", "")


def test_one_of_them_is_shown_with_its_options(tmp_path: Path) -> None:
    done = command("loggers", "list", "json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert '    file (text, default "details.log")' in done.stdout
    assert json.loads(command("loggers", "list", "json", "--json").stdout)["name"] == "json"


def test_one_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = command("loggers", "list", "cvs", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("millpond: there is no short name or module 'cvs'; did you mean")


def test_one_that_cannot_be_used_is_78_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = command("loggers", "list", "./broken.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("millpond: ./broken.py cannot be used: importing ")
    assert "ZeroDivisionError" in done.stderr
    shown = command("loggers", "list", "./broken.py", "--json", cwd=tmp_path)
    assert shown.returncode == 78
    assert "ZeroDivisionError" in json.loads(shown.stdout)["problem"]


def test_a_new_logger_is_written_and_the_next_steps_are_told(tmp_path: Path) -> None:
    done = command("init-logger", "worst", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "wrote worst_logger.py and test_worst_logger.py",
        "in the configuration, relative to its folder or to where you run it:",
        "  logging: {logger_modules: [./worst_logger.py]}",
        "its test:",
        "  python -m pytest test_worst_logger.py",
    ]
    shown = command("loggers", "list", "./worst_logger.py", cwd=tmp_path)
    assert shown.stdout.startswith("worst: ready\n")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_worst_logger.py").write_text("mine")
    done = command("init-logger", "worst", "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "test_worst_logger.py exists already; choose another name or folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["test_worst_logger.py"]


@pytest.mark.parametrize("name", ["Worst", "7", "../worst", ""])
def test_a_bad_name_is_wrong_usage(tmp_path: Path, name: str) -> None:
    done = command("init-logger", name, cwd=tmp_path)
    assert done.returncode == 64
    assert f"{name!r} is no name for a logger" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_70(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("init-logger", "worst", "--folder", tmp_path / "file" / "deeper")
    assert done.returncode == 70
    assert "Not a directory" in done.stderr


def test_the_check_of_a_configuration_tells_which_library_is_missing(tmp_path: Path) -> None:
    text = "class Logger:\n    libraries = ('no_such_library',)\n    def log(self, item): ...\n"
    (tmp_path / "shelf_logger.py").write_text(text)
    (tmp_path / "pond.yaml").write_text("logging: {logger_modules: [./shelf_logger.py]}\n")
    done = command("check", "pond.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        "millpond: pond.yaml:1: logging.logger_modules[0].module: shelf logger needs "
        "no_such_library, which is not installed: pip install no_such_library\n"
    )
