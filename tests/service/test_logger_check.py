"""Every logger of a configuration is tried, elsewhere, before anything is started."""

import json
import sys
from typing import Any

import pytest

from millpond import logger_check
from millpond.config.load import load
from millpond.config.model import Config
from millpond.errors import ConfigError
from millpond.logger_check import check_loggers
from millpond.module_search import check_modules

GOOD = """
class Logger:
    def __init__(self, root_dir, result_buffer, config): ...
    def log(self, item): ...
    def flush(self): ...
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a configuration whose loggers are files of these contents, in this order."""
    monkeypatch.chdir(tmp_path)

    def check_files(*contents: str) -> list[str]:
        modules = []
        for number, content in enumerate(contents):
            (tmp_path / f"plugin_{number}.py").write_text(content)
            modules.append({"module": f"./plugin_{number}.py"})
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps({"logging": {"logger_modules": modules}}, indent=1))
        config = load(path, environ={})
        return check_loggers(config, check_modules(config))

    return check_files


def check_options(tmp_path, **loggers: dict[str, Any]) -> None:
    """Check loggers of these modules with these options."""
    modules = [{"module": name, "options": options} for name, options in loggers.items()]
    path = tmp_path / "config.yaml"
    sections = {"output_dir": str(tmp_path / "run"), "logging": {"logger_modules": modules}}
    path.write_text(json.dumps(sections, indent=1))
    config = load(path, environ={})
    check_loggers(config, check_modules(config))


def test_loggers_that_can_be_imported_pass_and_are_not_imported_here(check) -> None:
    check(GOOD, GOOD)
    assert not [name for name in sys.modules if name.startswith("plugin_")]


def test_a_logger_may_import_its_neighbours_and_print(check, tmp_path) -> None:
    (tmp_path / "neighbour.py").write_text("x = 1")
    check("import sys, neighbour\nprint('hello')\nprint('hello', file=sys.stderr)\n" + GOOD)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("class MyLogger:\n    def log(self, item): ...", "write `Logger = MyLogger` at its end"),
        ("Logger = 5", "is a int, not a class"),
        ("class Logger: ...", "has no method log"),
        ("class Logger:\n    def log(self, item): ...", "cannot be made with (root_dir, "),
        ("import os\nos._exit(0)", "ended with 0"),
        ("import os\nos._exit(3)", "ended with 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
    ],
)
def test_one_that_cannot_is_refused_with_its_place_and_reason(check, content, words) -> None:
    with pytest.raises(ConfigError) as refused:
        check(GOOD, content)
    assert words in str(refused.value)
    assert refused.value.key == "logging.logger_modules[1].module"
    assert refused.value.file.endswith("config.yaml")
    assert refused.value.line is not None


def test_one_that_never_ends_its_import_is_refused(check, monkeypatch) -> None:
    monkeypatch.setattr(logger_check, "IMPORT_S_MAX", 0.2)
    with pytest.raises(ConfigError, match=r"plugin_0\.py takes more than 0\.2 s"):
        check("import threading\nthreading.Event().wait()")


def test_good_options_pass_and_nothing_is_made(tmp_path) -> None:
    check_options(
        tmp_path,
        csv={"file": "more.csv", "escape_formulas": False},
        json={"array_elements_max": 3},
        image={"channels": ["rgb"]},
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("csv", {"nope": 1}, "option 'nope' is unknown; the options are file, escape_formulas"),
        (
            "image",
            {"compress_level": 12},
            "option 'compress_level': 12 is not less than or equal to 9",
        ),
        ("json", {"file": "a/b"}, "option 'file': 'a/b' is not a plain file name: printable, "),
    ],
)
def test_wrong_options_are_refused_with_their_place(tmp_path, name, options, problem) -> None:
    with pytest.raises(ConfigError) as refused:
        check_options(tmp_path, null={}, **{name: options})
    assert refused.value.problem.startswith(problem)
    assert refused.value.key == "logging.logger_modules[1].options"
    assert refused.value.line > 1


def test_options_that_are_no_json_are_refused_with_their_place() -> None:
    modules = [{"module": "csv", "options": {"file": object()}}]
    config = Config(logging={"logger_modules": modules})
    with pytest.raises(ConfigError, match="as JSON, and it has no such value") as refused:
        check_loggers(config, check_modules(config))
    assert refused.value.key == "logging.logger_modules[0].options"


def test_a_logger_that_describes_no_options_takes_any(tmp_path) -> None:
    (tmp_path / "free.py").write_text(GOOD)
    check_options(tmp_path, **{"./free.py": {"anything": [1, None, {"a": 2.5}]}})


def test_options_may_be_larger_than_a_pipe_and_are_not_told_whole(tmp_path) -> None:
    with pytest.raises(ConfigError, match="option 'nope' is unknown") as refused:
        check_options(tmp_path, csv={"nope": "x" * 500_000})
    assert len(str(refused.value)) < 1000


def test_what_authors_should_know_is_returned_once_for_each_module(check, tmp_path) -> None:
    forgetful = GOOD.replace("def flush", "def _flush")
    notes = check(GOOD, forgetful, forgetful)
    assert [note.partition(": ")[0] for note in notes] == [
        str(tmp_path / f"plugin_{number}.py") for number in (1, 2)
    ]
    assert all("Logger has no flush(): " in note for note in notes)


def several(tmp_path, *modules: Any) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"logging": {"logger_modules": modules}}, indent=1))
    return load(path, environ={})


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        (
            ["csv", {"module": "csv", "name": "two"}],
            "'csv' and 'two' would both write details.csv: give one of them another file, such as "
            "options: {file: two.csv}",
        ),
        (["json", "jsonl"], "'json' and 'jsonl' would both write details.log: "),
        (
            [
                {"module": "image", "name": "one", "options": {"folder": "x"}},
                {"module": "image", "name": "two", "options": {"folder": "x"}},
            ],
            "'one' and 'two' would both write x: give one of them another folder, such as "
            "options: {folder: two}",
        ),
    ],
)
def test_two_that_would_write_the_same_are_refused_with_the_remedy(
    tmp_path, modules, problem
) -> None:
    config = several(tmp_path, *modules)
    with pytest.raises(ConfigError) as refused:
        check_loggers(config, check_modules(config))
    assert refused.value.problem.startswith(problem)
    assert refused.value.key == "logging.logger_modules[1].options"
    assert refused.value.line is not None


def test_two_of_a_kind_may_write_different_files(tmp_path) -> None:
    config = several(
        tmp_path,
        "csv",
        {"module": "csv", "name": "two", "options": {"file": "two.csv"}},
        "null",
        {"module": "null", "name": "nothing"},
        {"module": "image", "options": {"channels": ["rgb"]}},
        {"module": "image", "name": "labels", "options": {"channels": ["segmentation"]}},
        {"module": "image", "name": "few", "sample": "1/10"},
        {"module": "image", "name": "wrong", "when": "not is_correct"},
    )
    assert check_loggers(config, check_modules(config)) == []
