"""What a logger needs besides millpond: found, or told with the command that installs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import pytest

from millpond.errors import ConfigError
from millpond_loggers.base import BaseLogger
from millpond_loggers.extras import (
    install_command,
    is_installed,
    libraries_of,
    require,
    require_all,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are found in; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


class Shelf(BaseLogger):
    extra: ClassVar[str | None] = "shelf"
    libraries: ClassVar[tuple[str, ...]] = ("no_such_shelf", "no_such_board")


# What the class of a shipped logger has, and a class of the tests has not.
Shelf.__module__ = "millpond_loggers.shelf_logger"


def test_a_library_that_is_here_is_given() -> None:
    assert require("json.decoder", extra=None, what="x").__name__ == "json.decoder"


def test_a_missing_library_is_told_with_who_needs_it_and_the_extra() -> None:
    with pytest.raises(ConfigError) as refused:
        require("no_such_library.deep", extra="exr", what="encoding exr")
    assert str(refused.value) == (
        'encoding exr needs no_such_library, which is not installed: pip install "millpond[exr]"'
    )


def test_without_an_extra_the_library_itself_is_to_be_installed() -> None:
    with pytest.raises(ConfigError, match=r"not installed: pip install no_such_library$"):
        require("no_such_library.deep", extra=None, what="mine")


def test_a_missing_part_of_a_package_that_is_here_is_named_whole() -> None:
    with pytest.raises(ConfigError, match=r"^mine needs json\.nope, which is not installed: "):
        require("json.nope", extra="x", what="mine")


def test_a_library_that_misses_another_is_not_taken_for_the_missing_one(folder: Path) -> None:
    (folder / "needy_library.py").write_text("import no_such_base\n")
    with pytest.raises(ConfigError, match=r"needs needy_library, which needs no_such_base, which"):
        require("needy_library", extra="x", what="mine")


def test_a_library_that_is_half_installed_is_told_with_its_error(folder: Path) -> None:
    (folder / "half_library.py").write_text("raise ImportError('libGL.so.1: no such file')\n")
    with pytest.raises(ConfigError) as refused:
        require("half_library", extra="x", what="mine")
    assert str(refused.value) == (
        "mine needs half_library, which is installed and cannot be imported: "
        "ImportError: libGL.so.1: no such file"
    )


def test_of_several_libraries_the_first_missing_one_is_told() -> None:
    require_all(BaseLogger, "base logger")
    with pytest.raises(ConfigError) as refused:
        require_all(Shelf, "shelf logger")
    assert str(refused.value) == (
        'shelf logger needs no_such_shelf, which is not installed: pip install "millpond[shelf]"'
    )


def test_whoever_derives_from_a_logger_of_ours_has_its_extra() -> None:
    class Mine(Shelf):
        pass

    assert install_command(Mine) == 'pip install "millpond[shelf]"'


def test_an_extra_of_another_distribution_is_installed_with_that_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = folder / "their_things-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-things\nVersion: 1.0\n")
    (about / "top_level.txt").write_text("their_package\n")

    class Theirs(Shelf):
        extra = "own"

    monkeypatch.setattr(Theirs, "__module__", "their_package.shelf")
    assert install_command(Theirs) == 'pip install "their-things[own]"'


def test_the_extra_of_a_file_of_the_users_own_means_nothing_so_the_libraries_are_named() -> None:
    class Logger:
        extra = "own"
        libraries = ("no_such_shelf.deep", "no_such_shelf", "no_such_board")

    assert install_command(Logger) == "pip install no_such_shelf no_such_board"


@pytest.mark.parametrize("libraries", ["pyarrow", None, (1,), {"pyarrow": 1}])
def test_libraries_that_are_no_row_of_names_are_refused(libraries: object) -> None:
    made = type("Mine", (), {"libraries": libraries})
    with pytest.raises(ConfigError, match=r"Mine\.libraries is .*, not a tuple of import names"):
        libraries_of(made)


def test_whether_a_library_is_here_is_found_without_importing_it(folder: Path) -> None:
    (folder / "quiet_library.py").write_text("raise SystemExit\n")
    assert is_installed("quiet_library")
    assert is_installed("json.decoder")
    assert not is_installed("no_such_library")
    assert not is_installed("no_such_library.deep")
    assert not is_installed("json.decoder.deep")
    assert not is_installed("")
