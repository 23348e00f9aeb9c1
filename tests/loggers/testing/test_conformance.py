"""The suite lets a good logger pass, and finds each common mistake with a test of its own."""

import gc
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from millpond_loggers.plugin import PluginError
from millpond_loggers.testing import LoggerConformance
from millpond_loggers.testing.points import POINTS

GOOD = """
from pathlib import Path

from millpond_loggers.base import BaseLogger


class Mine(BaseLogger):
    def __init__(self, *given):
        super().__init__(*given)
        self.path = Path(self.root_dir) / "mine.txt"
        self.file = self.path.open("a+", encoding="utf-8")
        content = self.path.read_bytes()
        if content and not content.endswith(b"\\n"):  # A crash has torn the last line.
            self.file.truncate(content.rfind(b"\\n") + 1)

    def log(self, item):
        self.file.write(item["id"] + "\\n")

    def flush(self):
        self.file.flush()

    def end(self):
        self.file.close()


Logger = Mine
"""

# Keeps results until there are five, then writes and frees them.
KEEPER = GOOD.replace(
    """    def log(self, item):
        self.file.write(item["id"] + "\\n")
""",
    """        self.kept = []

    keeps_slots = True

    def log(self, item):
        self.kept.append((item, self.buffer[item["result_ix"]]))
        if len(self.kept) == 5:
            self.write()

    def write(self):
        for item, _ in self.kept:
            self.file.write(item["id"] + "\\n")
            self.buffer.free(item["result_ix"], 1)
        self.kept.clear()
""",
).replace("        self.file.close()", "        self.write()\n        self.file.close()")

# Takes what came at once.
MANY = GOOD.replace(
    """    def log(self, item):
        self.file.write(item["id"] + "\\n")
""",
    """    def log_many(self, items):
        self.file.writelines(item["id"] + "\\n" for item in items)
""",
)

# In place of a part of it: the mistake.
MISTAKES = {
    "overwrites": ('open("a+"', 'open("w+"'),
    "never flushes": ("self.file.flush()", "pass"),
    "leaves a torn line": ("if content and", "if False and"),
    "is late": (
        'self.file.write(item["id"] + "\\n")',
        'self.file.write(getattr(self, "last", "")); self.last = item["id"] + "\\n"',
    ),
    "trusts ids": (
        "    def flush",
        '        (Path(self.root_dir) / item["id"]).write_text("")\n\n    def flush',
    ),
    "knows its first arguments only": (
        'self.file.write(item["id"] + "\\n")',
        'self.names = getattr(self, "names", None) or list(item["render_args"])\n'
        '        assert self.names == list(item["render_args"])\n'
        '        self.file.write(item["id"] + "\\n")',
    ),
    "fears nan": (
        'self.file.write(item["id"] + "\\n")',
        'int(self.buffer[item["result_ix"]]["loss"].item())\n'
        '        self.file.write(item["id"] + "\\n")',
    ),
    "needs a result": ("self.file.close()", 'self.file.write(self.missing)'),
    "keeps arrays": (
        'self.file.write(item["id"] + "\\n")',
        'self.mine = self.buffer[item["result_ix"]]; self.file.write(item["id"] + "\\n")',
    ),
}  # fmt: skip


class Suite(LoggerConformance):
    module = "mine_logger.py"
    is_exactly_once = False
    result_count = 100

    def read_ids(self, root: Path) -> Iterable[str]:
        return (root / "mine.txt").read_text("utf-8").split("\n")[:-1]


class Once(Suite):
    is_exactly_once = True


class Split(Suite):
    is_split = True


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a logger, with a mistake of its own or none, into the current folder."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # Loggers are put on it.

    def write(mistake: str = "", good: str = GOOD) -> Path:
        right, wrong = MISTAKES.get(mistake, ("", ""))
        assert right in good
        (folder / "mine_logger.py").write_text(good.replace(right, wrong) if right else good)
        return tmp_path / "run"

    return write


@pytest.fixture(autouse=True)
def unclosed() -> Iterator[None]:
    """A test that fails leaves the files of its logger open; that is no fault of the next one."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def all_tests() -> list[tuple[str, tuple[Any, ...]]]:
    """Every test of the suite with each of its parameters."""
    found = []
    for name, test in vars(LoggerConformance).items():
        if name.startswith("test_"):
            marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
            values: Iterable[Any] = marks[0].args[1] if marks else [()]
            found += [(name, v if isinstance(v, tuple) else (v,)) for v in values]
    return found


@pytest.mark.parametrize(("name", "arguments"), all_tests(), ids=str)
def test_a_good_logger_passes(write: Any, name: str, arguments: tuple[Any, ...]) -> None:
    folder = write()
    folder.mkdir()
    try:
        getattr(Suite(), name)(folder, *arguments)
    except pytest.skip.Exception as skipped:
        # It has one file for all its processes, and no `recorded`.
        if "is_split" not in str(skipped) and "does not say" not in str(skipped):
            raise


@pytest.mark.parametrize("good", [KEEPER, MANY], ids=["keeps slots", "takes batches"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_results_are_recorded", ()),
        ("test_an_empty_run_leaves_no_broken_file", ()),
        ("test_many_results", ()),
        ("test_what_is_released_survives_without_an_end", ()),
        ("test_a_result_that_comes_again_is_recorded", ()),
        ("test_an_error_on_the_way", ("after_log",)),
        ("test_an_error_on_the_way", ("after_flush",)),
        *(("test_killed_at", (point, 1)) for point in POINTS),
        ("test_at_each_operation_on_files", ("failing",)),
        ("test_torn_files", ()),
    ],
    ids=str,
)
def test_loggers_of_other_kinds_pass(
    write: Any, good: str, name: str, arguments: tuple[Any, ...]
) -> None:
    assert good != GOOD
    folder = write(good=good)
    folder.mkdir()
    getattr(Suite(), name)(folder, *arguments)


@pytest.mark.parametrize(
    ("mistake", "name", "arguments"),
    [
        ("overwrites", "test_it_goes_on_where_it_ended", ()),
        ("overwrites", "test_killed_at", ("after_release", 1)),
        ("never flushes", "test_what_is_released_survives_without_an_end", ()),
        ("never flushes", "test_killed_at", ("after_release", 3)),
        ("leaves a torn line", "test_torn_files", ()),
        ("is late", "test_results_are_recorded", ()),
        ("trusts ids", "test_odd_ids", ()),
        ("knows its first arguments only", "test_results_are_recorded", ()),
        ("knows its first arguments only", "test_killed_at", ("before_log", 1)),
        ("fears nan", "test_nan_and_the_infinities", ()),
        ("needs a result", "test_an_empty_run_leaves_no_broken_file", ()),
        ("keeps arrays", "test_many_results", ()),
    ],
)
def test_each_mistake_is_found(
    write: Any, mistake: str, name: str, arguments: tuple[Any, ...]
) -> None:
    folder = write(mistake)
    folder.mkdir()
    with pytest.raises(Exception) as caught:  # noqa: PT011  Of any kind.
        getattr(Suite(), name)(folder, *arguments)
    assert not isinstance(caught.value, pytest.skip.Exception)


def test_a_logger_that_records_twice_is_not_exactly_once(write: Any) -> None:
    folder = write()
    folder.mkdir()
    with pytest.raises(AssertionError, match=r"too many: '000003', '000004'.* \(4 of 6\)"):
        Once().test_a_result_that_comes_again_is_recorded(folder)


def test_two_processes_need_two_files(write: Any) -> None:
    class Both(Split):
        options: ClassVar = {}

        def read_ids(self, root: Path) -> Iterable[str]:
            return (root / "mine-1.txt").read_text().split()

    folder = write()
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        Both().test_two_processes_beside_each_other(folder)


def test_the_case_of_an_error_is_told(write: Any) -> None:
    folder = write("leaves a torn line")
    folder.mkdir()
    with pytest.raises(AssertionError) as caught:
        Suite().test_torn_files(folder)
    assert caught.value.__notes__ == ["mine.txt without its last 1 bytes"]


def test_a_class_without_a_module_or_a_reader_says_what_it_needs(tmp_path: Path) -> None:
    class Bare(LoggerConformance):
        pass

    with pytest.raises(AssertionError, match=r'Bare needs module = "my_logger\.py"'):
        Bare().test_odd_ids(tmp_path / "1")
    Bare.module = "millpond_loggers.null_logger"
    with pytest.raises(NotImplementedError, match=r"Bare has no read_ids\(self, root\)"):
        Bare().test_odd_ids(tmp_path / "2")
    Bare.module = "millpond_loggers.no_logger"
    with pytest.raises(PluginError, match="no module named"):
        Bare().test_odd_ids(tmp_path / "3")
