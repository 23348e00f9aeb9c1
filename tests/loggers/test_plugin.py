"""Finding a logger's module: each mistake has its own message."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond_loggers.null_logger import NullLogger
from millpond_loggers.plugin import (
    EXIT_MODULE,
    EXIT_OPTIONS,
    PluginError,
    find_logger,
    flush_note,
    load,
)

GOOD = """
class MyLogger:
    def __init__(self, *given):
        pass

    def flush(self):
        pass

    def log(self, item):
        pass

Logger = MyLogger
"""


@pytest.fixture(autouse=True)
def imports_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are found in."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def problem(kind: str, place: str) -> str:
    with pytest.raises(PluginError) as caught:
        load(kind, place)
    return str(caught.value)


def test_a_module_gives_its_logger(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "good.py", GOOD)
    assert load("module", "shop.good").__name__ == "MyLogger"
    assert load("module", "shop.good") is sys.modules["shop.good"].Logger


def test_a_built_in_logger_is_a_module_like_any_other() -> None:
    assert load("module", "millpond_loggers.null_logger").__name__ == "NullLogger"


def test_a_missing_module_is_named_with_the_python_that_misses_it() -> None:
    assert problem("module", "no_such_module") == (
        "no module named 'no_such_module' (wanted: 'no_such_module'); is its package installed "
        f"for {sys.executable}, or its folder on PYTHONPATH?"
    )


def test_a_missing_parent_is_named_with_what_was_wanted() -> None:
    told = problem("module", "no_such_package.deep.logger")
    assert told.startswith(
        "no module named 'no_such_package' (wanted: 'no_such_package.deep.logger'); "
    )


def test_a_missing_module_of_a_package_that_is_there_is_named_whole(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "")
    write(folder / "plain.py", GOOD)
    assert problem("module", "shop.nope").startswith("no module named 'shop.nope' (wanted: ")
    assert problem("module", "plain.nope").startswith("no module named 'plain.nope' (wanted: ")


@pytest.mark.parametrize("kind", ["module", "file"])
def test_a_library_that_the_plugin_misses_is_not_taken_for_the_plugin(
    folder: Path, kind: str
) -> None:
    path = write(folder / "needy.py", "import no_such_library\n" + GOOD)
    place = path if kind == "file" else "needy"
    told = problem(kind, place)
    assert told.startswith(f"importing {place} failed inside it:\nTraceback ")
    assert "needy.py" in told
    assert "import no_such_library" in told
    assert told.endswith(
        "ModuleNotFoundError: No module named 'no_such_library' (needy.py:1, in <module>)\n"
    )


def test_a_neighbour_that_the_plugin_misses_is_not_taken_for_the_plugin(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "needy.py", "from shop.needy_too import x\n" + GOOD)
    told = problem("module", "shop.needy")
    assert told.startswith("importing shop.needy failed inside it:\nTraceback ")
    assert told.endswith("No module named 'shop.needy_too' (needy.py:1, in <module>)\n")


MISTAKES = {
    "raise": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "name": ("from json import nope\n", "cannot import name 'nope' from 'json'"),
    "syntax": ("class Logger(:\n", "SyntaxError: invalid syntax"),
    "nul": ("x = 1\0\n", "source code string cannot contain null bytes"),
    "exit": ("import sys\nsys.exit('usage: broken')\n", "SystemExit: usage: broken"),
    "exit_quietly": ("raise SystemExit(0)\n", "SystemExit: 0"),
}


@pytest.mark.parametrize("kind", ["module", "file"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_fails_inside_is_told_with_its_traceback(
    folder: Path, kind: str, mistake: str
) -> None:
    text, expected = MISTAKES[mistake]
    name = f"broken_{mistake}"
    path = write(folder / f"{name}.py", text)
    place = path if kind == "file" else name
    told = problem(kind, place)
    assert told.startswith(f"importing {place} failed inside it:\nTraceback ")
    assert expected in told


def test_a_module_without_logger_is_told_which_class_to_export(folder: Path) -> None:
    text = """
from millpond_loggers.csv_logger import CSVLogger

class Settings:
    pass

class MyLogger(CSVLogger):
    pass
"""
    write(folder / "shy.py", text)
    path = write(folder / "shy_file.py", text)
    assert problem("module", "shy") == "shy has no `Logger`: write `Logger = MyLogger` at its end"
    assert problem("file", path) == (
        f"{path} has no `Logger`: write `Logger = MyLogger` at its end"
    )


def test_only_classes_of_the_module_itself_that_log_are_suggested(folder: Path) -> None:
    write(folder / "empty.py", "from millpond_loggers.csv_logger import CSVLogger\nclass A: pass\n")
    assert problem("module", "empty") == "empty has no `Logger`: export the class as it"


@pytest.mark.parametrize(
    ("logger", "type_name"),
    [
        ("MyLogger()", "MyLogger"),
        ("'MyLogger'", "str"),
        ("None", "NoneType"),
        ("lambda *arguments: MyLogger()", "function"),
        ("Callable()", "Callable"),
    ],
)
def test_a_logger_that_is_no_class_is_told_what_it_is(
    tmp_path: Path, logger: str, type_name: str
) -> None:
    callable_too = "class Callable(MyLogger):\n    def __call__(self):\n        pass\n"
    path = write(tmp_path / "instance.py", f"{GOOD}\n{callable_too}\nLogger = {logger}\n")
    assert problem("file", path) == (
        f"`Logger` in {path} is a {type_name}, not a class: write `Logger = MyLogger`"
    )


@pytest.mark.parametrize("body", ["pass", "log = None", "def logg(self, item): pass"])
def test_a_logger_without_log_is_told_what_it_lacks(tmp_path: Path, body: str) -> None:
    path = write(tmp_path / "mute.py", f"class Logger:\n    {body}\n")
    assert problem("file", path) == f"`Logger` in {path} has no method log(self, item)"


@pytest.mark.parametrize("body", ["pass", "log = BaseLogger.log"])
def test_a_logger_that_inherits_log_is_told_what_it_lacks(tmp_path: Path, body: str) -> None:
    text = "from millpond_loggers.base import BaseLogger\nclass Logger(BaseLogger):\n"
    path = write(tmp_path / "mute.py", f"{text}    {body}\n")
    assert problem("file", path) == (
        f"`Logger` in {path} has neither log(self, item) nor log_many(self, items) of its own: "
        "define one of them"
    )
    path = write(tmp_path / "many.py", f"{text}    def log_many(self, items): ...\n")
    assert load("file", path).__name__ == "Logger"


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ("pass", "too many positional arguments"),
        ("def __init__(self, root_dir): ...", "too many positional arguments"),
        ("def __init__(self, a, b, c, d): ...", "missing a required argument: 'd'"),
        ("def __init__(self, a, b, c, *, e): ...", "missing a required"),
    ],
)
def test_a_logger_that_cannot_be_made_as_loggers_are_is_told_why(
    tmp_path: Path, init: str, why: str
) -> None:
    path = write(tmp_path / "shy.py", f"class Logger:\n    {init}\n    def log(self, item): ...\n")
    told = problem("file", path)
    assert f"cannot be made with (root_dir, result_buffer, config): {why}" in told
    assert told.endswith("write def __init__(self, root_dir, result_buffer, config)")


@pytest.mark.parametrize("init", ["(self, *given)", "(self, a, b, c=1, d=2)"])
def test_what_it_calls_its_arguments_is_its_own_matter(tmp_path: Path, init: str) -> None:
    text = f"class Logger:\n    def __init__{init}: ...\n    def log(self, item): ...\n"
    assert load("file", write(tmp_path / "free.py", text)).__name__ == "Logger"


def test_one_that_may_keep_what_it_was_given_is_told_to_flush() -> None:
    class Forgetful:
        def log(self, item: Any) -> None: ...

    class Flushing(Forgetful):
        def flush(self) -> None: ...

    class Keeping(Forgetful):
        keeps_slots = True

    note = flush_note(Forgetful)
    assert note.startswith("Forgetful has no flush(): what it keeps in memory is lost if it dies")
    assert flush_note(Forgetful()) == note
    for kind in (Flushing, Keeping, NullLogger, type("Theirs", (), {"__module__": "threedb.x"})):
        assert flush_note(kind) == ""


def test_a_missing_file_and_a_folder_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    for name in ("missing.py", "folder.py"):
        assert problem("file", str(tmp_path / name)) == f"no file {tmp_path / name}"


@pytest.mark.parametrize("name", ["logger.txt", "logger"])
def test_a_file_of_another_kind_is_no_python_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, GOOD)
    assert problem("file", path) == f"{path} is no Python file: its name must end in .py"


@pytest.mark.parametrize("name", ["my_logger", "my-logger", "my.logger", "7", "Grüße"])
def test_a_file_of_any_name_gives_its_logger(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a folder" / f"{name}.py", GOOD)
    assert load("file", path).__module__ == name


def test_a_file_named_like_an_imported_module_leaves_that_in_its_place(tmp_path: Path) -> None:
    write(tmp_path / "helper_of_json.py", "import json\nDUMPS = json.dumps\n")
    text = "import json\nimport helper_of_json\nTEXT = json.dumps([1])\n" + GOOD
    logger = load("file", write(tmp_path / "json.py", text))
    assert sys.modules["json"] is json
    assert sys.modules[logger.__module__].TEXT == "[1]"
    assert sys.modules["helper_of_json"].DUMPS is json.dumps


def test_a_file_named_like_a_module_that_is_imported_later_leaves_that_in_its_place(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A plugin is often named after the library that it uses."""
    write(folder / "big_library" / "__init__.py", "VALUE = 7\n")
    place = tmp_path_factory.mktemp("plugins") / "big_library.py"
    logger = load("file", write(place, GOOD + "\nfrom big_library import VALUE\n"))
    assert sys.modules[logger.__module__].VALUE == 7
    assert sys.modules["big_library"].__file__ == str(folder / "big_library" / "__init__.py")


def test_a_file_that_is_on_the_path_anyway_is_imported_once(folder: Path) -> None:
    write(folder / "helper_of_it.py", "def find():\n    import my_own\n    return my_own\n")
    text = GOOD + "\nimport helper_of_it\nimport sys\n"
    logger = load("file", write(folder / "my_own.py", text))
    assert sys.modules["helper_of_it"].find().Logger is logger


def test_the_neighbours_of_a_file_can_be_imported_and_come_last(tmp_path: Path) -> None:
    write(tmp_path / "neighbour_of_it.py", "VALUE = 7\n")
    write(tmp_path / "random.py", "raise RuntimeError('not the library')\n")
    text = "from neighbour_of_it import VALUE\nimport random\nrandom.random()\n" + GOOD
    logger = load("file", write(tmp_path / "with_neighbour.py", text))
    assert sys.modules[logger.__module__].VALUE == 7
    assert sys.path[-1] == str(tmp_path)


def test_classes_of_a_file_can_be_looked_up_in_their_module(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass
class Logger:
    count: ClassVar[int] = 0
    root_dir: str
    result_buffer: object
    config: dict

    def log(self, item):
        pass
"""
    logger = load("file", write(tmp_path / "typed.py", text))
    assert sys.modules[logger.__module__].Logger is logger


def run(
    *arguments: str, cwd: Path, options: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "millpond_loggers.plugin", *arguments],
        input="" if options is None else json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
    )


def test_the_check_in_a_process_of_its_own_says_so_when_all_is_well(tmp_path: Path) -> None:
    write(tmp_path / "logging.py", GOOD)
    write(tmp_path / "second" / "found.py", "import logging\nlogging.getLogger()\n" + GOOD)
    for place in (["file", str(tmp_path / "logging.py")], ["module", "found"]):
        done = run(*place, str(tmp_path), str(tmp_path / "second"), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {"writes": {}, "note": ""}


def test_the_check_in_a_process_of_its_own_tells_the_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "broken.py", "import sys\nsys.exit(0)\n")
    done = run("file", path, str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"importing {path} failed inside it:\nTraceback ")
    assert "SystemExit: 0" in done.stderr
    done = run("module", "no_such_module", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("no module named 'no_such_module' (wanted: ")
    assert done.stderr.count("\n") == 1


CHOOSY = """
from pydantic import BaseModel

class Logger:
    class Options(BaseModel, extra="forbid"):
        level: int = 1
        folder: str = "levels"

    def __init__(self, *arguments):
        pass

    def log(self, item):
        pass
"""


def test_the_check_tells_wrong_options_in_plain_words(tmp_path: Path) -> None:
    path = write(tmp_path / "choosy.py", CHOOSY)
    done = run("file", path, cwd=tmp_path, options={"level": "x", "nope": 1})
    assert (done.returncode, done.stdout) == (EXIT_OPTIONS, "")
    assert done.stderr == (
        "option 'level': 'x' is not a valid integer; "
        "option 'nope' is unknown; the options are level, folder\n"
    )
    done = run("file", path, cwd=tmp_path, options={"level": 2})
    assert done.returncode == 0
    assert json.loads(done.stdout)["writes"] == {"folder": "levels"}


@pytest.mark.parametrize("options", ["", "Options = None", "Options = dict", "Options = {'a': 1}"])
def test_the_check_leaves_options_alone_that_no_model_describes(
    tmp_path: Path, options: str
) -> None:
    init = "def __init__(self, *_): ..."
    text = f"class Logger:\n    {options}\n    {init}\n    def log(self, item): ...\n"
    path = write(tmp_path / "free.py", text)
    done = run("file", path, cwd=tmp_path, options={"anything": [1, None]})
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_makes_no_logger_and_no_file(tmp_path: Path) -> None:
    done = run("module", "millpond_loggers.csv_logger", cwd=tmp_path, options={"file": "a.csv"})
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


NEEDY = """
class Logger:
    libraries = ("no_such_library",)

    class Options:
        pass

    def log(self, item):
        pass
"""


@pytest.mark.parametrize("kind", ["module", "file"])
def test_a_logger_whose_libraries_are_missing_is_told_what_to_install(
    folder: Path, kind: str
) -> None:
    path = write(folder / "shelf_logger.py", NEEDY)
    told = problem(kind, path if kind == "file" else "shelf_logger")
    assert told == (
        "shelf logger needs no_such_library, which is not installed: pip install no_such_library"
    )


def test_its_options_can_be_looked_at_all_the_same(folder: Path) -> None:
    assert find_logger("file", write(folder / "shelf.py", NEEDY)).__name__ == "Logger"


def test_the_check_tells_a_missing_library_as_a_fault_of_the_module(tmp_path: Path) -> None:
    done = run("file", write(tmp_path / "shelf.py", NEEDY), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_MODULE, "")
    assert done.stderr.startswith("shelf logger needs no_such_library, which is not installed")
