"""Every logger of a configuration is imported, elsewhere, before anything is started."""

import json
import sys

import pytest

from millpond import logger_check
from millpond.config.load import load
from millpond.errors import ConfigError
from millpond.logger_check import check_loggers
from millpond.module_search import check_modules

GOOD = """
class Logger:
    def __init__(self, root_dir, result_buffer, config): ...
    def log(self, item): ...
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a configuration whose loggers are files of these contents, in this order."""
    monkeypatch.chdir(tmp_path)

    def check_files(*contents: str) -> None:
        modules = []
        for number, content in enumerate(contents):
            (tmp_path / f"plugin_{number}.py").write_text(content)
            modules.append({"module": f"./plugin_{number}.py"})
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps({"logging": {"logger_modules": modules}}, indent=1))
        config = load(path, environ={})
        check_loggers(config, check_modules(config))

    return check_files


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
