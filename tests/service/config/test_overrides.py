"""Values from the environment and from ``--set``."""

import pytest

from millpond.config.overrides import from_arguments, from_environment, settable_keys
from millpond.config.yaml_source import Place
from millpond.errors import ConfigError


def test_variables_name_keys_by_double_underscores() -> None:
    layer = from_environment(
        {"MILLPOND_SERVICE__DRAIN_S": "3", "MILLPOND_NAME": "'007'", "PATH": "x"}
    )
    assert layer.data == {"service": {"drain_s": 3}, "name": "007"}
    assert layer.places["service", "drain_s"] == Place("MILLPOND_SERVICE__DRAIN_S")


def test_the_variable_of_the_tests_is_left_alone() -> None:
    assert from_environment({"MILLPOND_FAULT": "crash"}).data == {}


def test_arguments_name_keys_by_dots_and_the_last_counts() -> None:
    layer = from_arguments(["service.drain_s=3", "output_dir=a=b", "service.drain_s=4"])
    assert layer.data == {"service": {"drain_s": 4}, "output_dir": "a=b"}
    assert layer.places["output_dir",] == Place("--set output_dir=a=b")


def test_only_single_values_of_our_sections_can_be_set() -> None:
    assert set(settable_keys()) == {
        "name",
        "output_dir",
        "buffer.slots",
        "buffer.size",
        "disk.spill_dir",
        "disk.spill_max",
        "disk.dead_max",
        "disk.deadline_s",
        "service.socket",
        "service.health_socket",
        "service.drain_s",
        "service.log_format",
        "service.renderers_max",
    }


@pytest.mark.parametrize(
    ("argument", "key", "words"),
    [
        ("service.drain_s", "", "KEY=VALUE"),
        ("service.drain=3", "service.drain", "did you mean 'service.drain_s'?"),
        ("logging.logger_modules.0.name=a", "logging.logger_modules.0.name", "cannot be set"),
        ("buffer.channels=a", "buffer.channels", "cannot be set"),
        ("policy.samples=3", "policy.samples", "cannot be set"),
        ("name=no", "name", "put it into quotes"),
        ("name=[a]", "name", "one value"),
    ],
)
def test_arguments_that_are_refused(argument: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        from_arguments([argument])
    error = refusal.value
    assert (error.file, error.key) == (f"--set {argument}", key)
    assert words in error.problem


def test_an_unknown_variable_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"MILLPOND_SERVICE__DRIAN_S: .*'service.drain_s'"):
        from_environment({"MILLPOND_SERVICE__DRIAN_S": "3"})
