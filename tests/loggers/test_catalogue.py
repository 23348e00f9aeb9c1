"""What loggers say of themselves, for the list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, PlainValidator

from millpond_loggers.base import Options
from millpond_loggers.catalogue import describe, describe_options
from millpond_loggers.options import FileName

LOGGER = '''
"""A logger that stacks ``boards``, one on
the other.
"""

from pydantic import BaseModel, Field


class Logger:
    extra = "boards"
    libraries = ("json", "no_such_library")

    class Options(BaseModel):
        height: int = Field(3, description="Boards.")

    def log(self, item): ...
'''


@pytest.fixture(autouse=True)
def imports_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


class Inner(BaseModel):
    width: int = 1
    height: int = 2


class Everything(Options):
    number: int = Field(7, ge=1, le=9, description="How many.")
    above: float = Field(0.5, gt=0, lt=1)
    short: str = Field("a", min_length=1, max_length=5)
    flag: bool = True
    file: FileName = "a.csv"
    kind: Literal["png", "npy"] = "png"
    some: tuple[str, ...] = ()
    few: list[int] = Field([], max_length=3)
    maybe: int | None = Field(None, ge=2)
    table: dict[str, Literal["png", "exr"]] = Field({})
    either: Literal["auto"] | dict[str, float] = "auto"
    inner: Inner = Inner()
    free: Any = None
    place: Path = Path("here")
    needed: str
    written: int = Field(1, alias="as")
    made: list[str] = Field(default_factory=lambda: ["x"])


def test_each_option_is_told_with_type_range_default_and_meaning() -> None:
    told = {option.name: option for option in describe_options(Everything)}
    assert {name: (one.type, one.range, one.default) for name, one in told.items()} == {
        "number": ("integer", "1 to 9", 7),
        "above": ("number", "more than 0, less than 1", 0.5),
        "short": ("text", "at least 1 characters, at most 5 characters", "a"),
        "flag": ("true or false", "", True),
        "file": ("text", "", "a.csv"),
        "kind": ("png or npy", "", "png"),
        "some": ("list of text", "", []),
        "few": ("list of integer", "at most 3 of them", []),
        "maybe": ("integer or null", "at least 2", None),
        "table": ("mapping of names to png or exr", "", {}),
        "either": ("auto or mapping of names to number", "", "auto"),
        "inner": ("mapping with width, height", "", {"width": 1, "height": 2}),
        "free": ("anything", "", None),
        "place": ("text", "", "here"),
        "needed": ("text", "", None),
        "as": ("integer", "", 1),
        "made": ("list of text", "", ["x"]),
    }
    assert told["number"].description == "How many."
    assert [name for name, option in told.items() if option.is_required] == ["needed"]


def test_a_type_that_says_nothing_of_itself_hides_no_option() -> None:
    class Strange(BaseModel):
        known: int = 1
        own: Annotated[object, PlainValidator(lambda value: value)] = complex(1, 2)
        call: type = int

    told = describe_options(Strange)
    assert [(one.name, one.type, one.default) for one in told] == [
        ("known", "integer", 1),
        ("own", "anything", "1+2j"),
        ("call", "anything", "<class 'int'>"),
    ]


def test_a_logger_without_options_has_none_and_one_without_a_model_takes_any(
    tmp_path: Path,
) -> None:
    assert describe("module", "millpond_loggers.null_logger").options == ()
    place = write(tmp_path / "free.py", "class Logger:\n    def log(self, item): ...\n")
    assert describe("file", place).options is None


def test_a_logger_whose_libraries_are_missing_is_described_with_what_to_install(
    tmp_path: Path,
) -> None:
    told = describe("file", write(tmp_path / "boards.py", LOGGER))
    assert told.summary == "stacks boards, one on"
    assert told.extra == "boards"
    assert told.missing == ("no_such_library",)
    assert told.install == "pip install json no_such_library"
    assert [option.name for option in told.options or ()] == ["height"]
    assert told.problem == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py:1, in <module>)"),
        ("Logger = 5", "is a int, not a class: write `Logger = MyLogger`"),
        (
            "class Logger:\n    libraries = 'json'\n    def log(self, item): ...\n",
            "Logger.libraries is 'json', not a tuple of import names: "
            'write libraries = ("pyarrow",)',
        ),
    ],
)
def test_one_that_cannot_be_used_says_why(tmp_path: Path, text: str, problem: str) -> None:
    told = describe("file", write(tmp_path / "broken.py", text))
    assert told.problem.endswith(problem)
    assert told.options is None


def test_the_child_answers_line_by_line_and_nothing_else(tmp_path: Path) -> None:
    noisy = "import os\nos.write(1, b'noise')\nprint('more')\n"
    write(tmp_path / "found.py", noisy + "class Logger:\n    def log(self, item): ...\n")
    deadly = write(tmp_path / "deadly.py", "import os\nos._exit(3)\n")
    places = [["module", "found"], ["file", deadly], ["module", "found"]]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "millpond_loggers.catalogue", str(tmp_path)],
        input=json.dumps(places),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["problem"] == ""
    assert "noise" in done.stderr
