"""The words for what is wrong with a configuration."""

import pytest
from pydantic import ValidationError

from millpond.config.errors import key_paths, located_error, nearest, show, type_at
from millpond.config.model import Config
from millpond.config.yaml_source import Place
from millpond.errors import ConfigError


def refuse(given: dict, places: dict) -> ConfigError:
    with pytest.raises(ValidationError) as refusal:
        Config.model_validate(given)
    return located_error(refusal.value, Config, places)


def test_problems_come_in_the_order_of_the_file_and_then_of_its_base() -> None:
    places = {
        (): Place("main", 1),
        ("service", "drain_s"): Place("main", 2),
        ("name",): Place("main", 9),
        ("buffer", "slots"): Place("base", 1),
        ("output_dir",): Place("--set output_dir=3"),
    }
    given = {
        "name": 5,
        "output_dir": 3,
        "buffer": {"slots": 0},
        "service": {"drain_s": "x"},
        "logging": {"logger_modules": ["csv"]},
    }
    error = refuse(given, places)
    assert (error.file, error.line, error.key) == ("main", 2, "service.drain_s")
    starts = [line.split(": ")[:2] for line in str(error).splitlines()]
    assert starts == [
        ["main:2", "service.drain_s"],
        ["main:9", "name"],
        ["base:1", "buffer.slots"],
        ["--set output_dir=3", "output_dir"],
    ]


def test_at_most_ten_problems_are_told() -> None:
    error = refuse({f"x{i:02}": 1 for i in range(15)}, {(): Place("main", 1)})
    lines = str(error).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 6 more"  # Fifteen keys, and no logger.


def test_values_are_shown_as_they_were_written() -> None:
    assert show(None) == "nothing"
    assert show(True) == "true"
    assert show("a") == "'a'"
    assert len(show("a" * 1000)) == 60


def test_near_words() -> None:
    assert nearest("slot", ["slots", "size"]) == "; did you mean 'slots'?"
    assert nearest("zzz", ["slots", "size"]) == ""


def test_every_key_has_a_type() -> None:
    paths = key_paths(Config)
    assert ("service", "drain_s") in paths
    assert type_at(("service", "drain_s"), Config)[0] is float
    assert type_at(("logging", "logger_modules", 3, "restart", "intensity"), Config)[0] is int
    assert type_at(("buffer", "channels", "rgb", "dtype"), Config)[0] is str
