"""What the kit offers, and that a pond needs no pytest."""

import subprocess
import sys

import pytest

from millpond_loggers import testing


def test_the_suite_and_the_pond_are_offered() -> None:
    assert testing.__all__ == ["LoggerConformance", "MemoryPond", "Result"]
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name


def test_another_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pond'"):
        _ = testing.Pond


def test_a_pond_needs_no_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from millpond.testing import MemoryPond\n"
        "from millpond_loggers.testing import Result\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
