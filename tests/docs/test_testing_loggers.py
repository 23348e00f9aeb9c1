"""docs/testing_loggers.md, done as it stands there; and it names every test of the suite."""

import re
from pathlib import Path

from docs.page import do

from millpond.testing import LoggerConformance

PAGE = Path(__file__).parents[2] / "docs" / "testing_loggers.md"


def test_everything_on_the_page_works(tmp_path: Path) -> None:
    do(PAGE, tmp_path)


def test_every_test_of_the_suite_is_explained() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert named == {name for name in vars(LoggerConformance) if name.startswith("test_")}


def test_everything_that_a_class_may_say_is_explained() -> None:
    named = set(re.findall(r"`(\w+)(?:\(\w+\))?`", PAGE.read_text()))
    own = {name for name in vars(LoggerConformance) if name[0] != "_" and name[:5] != "test_"}
    assert own <= named
