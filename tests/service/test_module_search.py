"""Loggers' modules are found, and nothing of them runs."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.config.load import load
from millpond.errors import ConfigError
from millpond.module_search import FoundModule, check_modules, find_module, logger_search_path

DEADLY = "import os\nos._exit(3)\n"


@pytest.fixture(name="find")
def fixture_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FoundModule]:
    """A folder of packages that end the process which imports them."""
    site = tmp_path / "site"
    conf = tmp_path / "conf"
    work = tmp_path / "work"
    for file in ("pkg/__init__.py", "pkg/csv_logger.py", "pkg/sub/deep_logger.py", "single.py"):
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(DEADLY)
    info = site / "pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[millpond.loggers]\ncsv = pkg.csv_logger\nlost = pkg.gone\nobj = pkg.csv_logger:Logger\n"
    )
    for folder in (conf, work):
        folder.mkdir()
        (folder / "mine.py").write_text(DEADLY)
    (work / "other.py").write_text(DEADLY)
    monkeypatch.chdir(work)
    return lambda module: find_module(module, [str(site)], conf)


@pytest.mark.parametrize(
    ("module", "value"),
    [
        ("csv", "pkg.csv_logger"),
        ("obj", "pkg.csv_logger"),
        ("single", "single"),
        ("pkg", "pkg"),
        ("pkg.csv_logger", "pkg.csv_logger"),
        ("pkg.sub.deep_logger", "pkg.sub.deep_logger"),
    ],
)
def test_names_are_found(find: Callable[[str], FoundModule], module: str, value: str) -> None:
    assert find(module) == FoundModule("module", value)
    assert "pkg" not in sys.modules


def test_files_are_found_beside_the_configuration_first(
    find: Callable[[str], FoundModule], tmp_path: Path
) -> None:
    assert find("./mine.py") == FoundModule("file", str(tmp_path / "conf/mine.py"))
    assert find("mine.py") == FoundModule("file", str(tmp_path / "conf/mine.py"))
    assert find("other.py") == FoundModule("file", str(tmp_path / "work/other.py"))
    absolute = str(tmp_path / "site/single.py")
    assert find(absolute) == FoundModule("file", absolute)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("csw", "no short name or module 'csw'; did you mean 'csv'? Short names: csv, lost, obj"),
        ("nowhere.csv_logger", "no package 'nowhere', looking for 'nowhere.csv_logger'"),
        ("nowhere.csv_logger", "did you mean the short name 'csv'?"),
        (
            "pkg.csv_loger",
            "package 'pkg' has no module 'pkg.csv_loger'; did you mean 'csv_logger'?",
        ),
        ("pkg.other.deep", "package 'pkg' has no module 'pkg.other'"),
        ("single.part", "'single' is a module, not a package"),
        ("pkg.sub", "without __init__.py"),
        ("lost", "has no module 'pkg.gone'"),
        ("a-b", "'a-b' is no short name"),
        ("pkg..x", "'pkg..x' is no short name"),
        ("./absent.py", "there is no file '/"),
        ("./absent.py", "work/absent.py"),
        ("/", "is no file"),
        ("a/\0", "there is no file"),
        ("/" + "x" * 300, "cannot be found"),
        ("~no-such-user-at-all/x.py", "cannot be found"),
    ],
)
def test_what_is_missing_is_named(
    find: Callable[[str], FoundModule], module: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        find(module)
    assert words in refusal.value.problem


def test_other_finders_of_the_process_are_asked(
    find: Callable[[str], FoundModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editable installations may put a finder into `sys.meta_path` instead of a folder."""
    assert find("_frozen_importlib") == FoundModule("module", "_frozen_importlib")
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ConfigError):
        find("_frozen_importlib")


def test_a_logger_is_reported_at_its_place(
    find: Callable[[str], FoundModule], tmp_path: Path
) -> None:
    path = tmp_path / "conf/pond.yaml"
    short = ["output_dir=/tmp/pond"]  # Sockets' paths are bounded.
    modules = ["./mine.py", "{module: pkg.csv_logger, name: a}", "{name: b,\n module: pkg.nothing}"]
    site = [str(tmp_path / "site")]
    path.write_text(f"logging: {{logger_modules: [{', '.join(modules[:2])}]}}")
    assert check_modules(load(path, overrides=short, environ={}), search_path=site) == {
        "mine": FoundModule("file", str(tmp_path / "conf/mine.py")),
        "a": FoundModule("module", "pkg.csv_logger"),
    }
    path.write_text(f"logging: {{logger_modules: [{', '.join(modules)}]}}")
    with pytest.raises(ConfigError) as refusal:
        check_modules(load(path, overrides=short, environ={}), search_path=site)
    error = refusal.value
    assert (error.file, error.line) == (str(path), 2)
    assert error.key == "logging.logger_modules[2].module"
    with pytest.raises(ConfigError, match="there is no package 'pkg'"):
        check_modules(load(path, overrides=short, environ={}))


def test_modules_are_found_here_where_they_are_installed_and_beside_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *installed, last = logger_search_path(Path("configs/pond.yaml"))
    assert (first, last) == (str(tmp_path), "configs")
    assert installed == [folder for folder in sys.path if folder]
