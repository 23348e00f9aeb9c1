"""What went wrong is told with the place in the author's own file."""

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from millpond_loggers.csv_logger import CSVLogger
from millpond_loggers.files import names
from millpond_loggers.plugin import load
from millpond_loggers.process import problem
from millpond_loggers.process.problem import OwnError, describe, errno_of, place_of

LOGGER = """
import json; import numpy as np
import helpful
from millpond_loggers.files.names import file_name

class Logger:
    def __init__(self, *_): pass

    def log(self, item):
        getattr(self, item)()

    def key(self):
        {}["losss"]

    def library(self):
        json.loads("{")

    def ours(self):
        file_name("x", "a/b")

    def neighbour(self):
        helpful.divide()

    def lines(self):
        raise ValueError("one\\ntwo\\n\\n three" + "!" * 1000)

    def noted(self):
        error = ValueError("bad")
        error.add_note("a note")
        raise error

    def group(self):
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    def caused(self):
        try:
            self.key()
        except KeyError as error:
            raise RuntimeError("no loss") from error

    def empty(self):
        raise NotImplementedError

    def read_only(self):
        array = np.zeros(3)
        array.flags.writeable = False
        array[0] = 1

    def read_only_too(self):
        array = np.zeros(3)
        array.flags.writeable = False
        array += 1
"""


@pytest.fixture
def log(tmp_path: Path) -> Callable[[str], str]:
    """Calls a method of that logger; the text of what it raises."""
    (tmp_path / "my_logger.py").write_text(LOGGER)
    (tmp_path / "helpful.py").write_text("def divide():\n    return 1 / 0\n")
    path = list(sys.path)
    logger = load("file", str(tmp_path / "my_logger.py"))(None, None, None)

    def told(item: str) -> str:
        try:
            logger.log(item)
        except Exception as error:  # noqa: BLE001  Any of them.
            return describe(error)
        raise AssertionError("nothing was raised")

    # As if the frames of this test were the runner's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problem, "_CALLERS", (__file__,))
        yield told
    sys.path[:] = path
    for name in ("my_logger", "helpful"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("method", "last"),
    [
        ("key", "KeyError: 'losss' (my_logger.py:13, in key)"),
        (
            "library",
            "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1) (my_logger.py:16, in library)",
        ),
        ("ours", "AssertionError: a/b (my_logger.py:19, in ours)"),
        ("neighbour", "ZeroDivisionError: division by zero (helpful.py:2, in divide)"),
        ("noted", "ValueError: bad (my_logger.py:30, in noted)"),
        ("group", "ExceptionGroup: several (2 sub-exceptions) (my_logger.py:33, in group)"),
        ("caused", "RuntimeError: no loss (my_logger.py:39, in caused)"),
        (
            "read_only",
            "ValueError: assignment destination is read-only: it is shared memory, so change a "
            "copy of it, array.copy() (my_logger.py:47, in read_only)",
        ),
        (
            "read_only_too",
            "ValueError: output array is read-only: it is shared memory, so change a copy of it, "
            "array.copy() (my_logger.py:52, in read_only_too)",
        ),
        ("empty", "NotImplementedError (my_logger.py:42, in empty)"),
    ],
)
def test_the_last_line_says_what_and_where(
    log: Callable[[str], str], method: str, last: str
) -> None:
    text = log(method)
    assert text.startswith(("Traceback ", "  + Exception Group Traceback "))
    assert text.splitlines()[-1] == last
    assert text.endswith("\n")


def test_a_text_of_several_lines_is_put_into_one_and_cut(log: Callable[[str], str]) -> None:
    *_, last = log("lines").splitlines()
    assert last.startswith("ValueError: one two three!!!")
    assert last.endswith("!!! ... (my_logger.py:25, in lines)")
    assert len(last) < problem.ERROR_CHARACTERS_MAX + 100


def test_without_a_line_of_an_authors_the_method_that_was_called_is_named() -> None:
    """As for the loggers that come with millpond, and for what is installed."""
    try:
        names.write_atomically(0, "..", b"")
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next
        last = describe(error).splitlines()[-1]
    assert last.startswith("ValueError: '..' is not a plain file name (names.py:")
    assert last.endswith(", in write_atomically)")


def test_an_error_of_no_line_has_no_place() -> None:
    assert describe(ValueError("x")) == "ValueError: x\n"


@pytest.mark.parametrize("module", [json, np, names])
def test_what_is_installed_or_ours_is_not_an_authors(module: ModuleType) -> None:
    assert module.__file__ is not None
    assert not problem._is_own(module.__file__)
    assert not problem._is_own("<string>")
    assert not problem._is_own("/home/me/.local/lib/python3.11/site-packages/x/y.py")
    assert problem._is_own("/home/me/my_logger.py")


class DiskFull(OSError):
    pass


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (DiskFull(errno.EDQUOT, "Quota exceeded"), errno.EDQUOT),
        (OSError("cannot write this image"), 0),
        (OSError(-7, "odd"), 0),
        (OSError(2**70, "odd"), 0),
        (ValueError(28, "not of the system"), 0),
    ],
)
def test_only_the_system_has_numbers_for_errors(error: Any, number: int) -> None:
    assert errno_of(error) == number


def test_our_own_findings_have_no_traceback_and_the_place_that_they_are_given() -> None:
    error = OwnError("it kept 'rgb'")
    assert describe(error) == "OwnError: it kept 'rgb'\n"
    error.place = "mine.py:7, in log"
    assert describe(error) == "OwnError: it kept 'rgb' (mine.py:7, in log)\n"


def test_a_method_has_its_place_unless_it_is_ours_or_has_none() -> None:
    class Mine:
        def log(self, item: object) -> None: ...

    line = Mine.log.__code__.co_firstlineno
    assert place_of(Mine().log) == f"{Path(__file__).name}:{line}, in log"
    assert place_of(CSVLogger.log) == ""
    assert place_of(len) == ""
