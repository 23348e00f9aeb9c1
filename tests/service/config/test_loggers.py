"""Which loggers there are, and what they are called."""

import pytest
from pydantic import ValidationError

from millpond.config.loggers import (
    PROCESS_COUNT_MAX,
    LoggerConfig,
    LoggingConfig,
    Process,
    RestartConfig,
    default_logger_name,
    is_file,
)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("csv", "csv"),
        ("my_logger", "my_logger"),
        ("millpond_loggers.csv_logger", "csv"),
        ("threedb.result_logging.json_logger", "json"),
        ("package._logger", "_logger"),
        ("./my_logger.py", "my"),
        ("/abs/folder/thing.v2.py", "thing-v2"),
        ("./ä b.py", "b"),
        ("./ä.py", "logger"),
    ],
)
def test_names_are_made_from_modules(module: str, name: str) -> None:
    assert LoggerConfig(module=module).name == name


def test_files_are_told_from_names() -> None:
    assert is_file("./a")
    assert is_file("a.py")
    assert not is_file("a.b")
    assert default_logger_name("a" * 80 + ".py") == "a" * 64


def test_the_short_form_is_the_long_one_with_defaults() -> None:
    short, long = LoggingConfig(
        logger_modules=["csv", {"module": "csv", "name": "two", "options": None, "restart": None}]
    ).logger_modules
    assert long == short.model_copy(update={"name": "two"})
    assert short.options == {}
    assert short.restart == RestartConfig()


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([], "at least one"),
        (None, '"null"'),
        ([None], '"null"'),
        ("csv", r"write \[csv\]"),
        ([{"image": {"channels": ["rgb"]}}], r"write module: image, options: {\.\.\.}"),
        ([{"image": None, "when": "loss > 1"}], "found 'image:' as a key; write module: image"),
        (["csv", "csv"], r"taken by logger_modules\[0\]"),
        (["csv", "x.csv_logger"], "another 'name:'"),
        ([f"m{i}" for i in range(PROCESS_COUNT_MAX + 1)], "at most 64"),
        ([{"module": "a", "instances": 40}, {"module": "b", "instances": 25}], "65 processes"),
        ([{"module": "csv", "instances": 0}], "instances"),
        ([{"module": "csv", "sample": "1/0"}], "1/100"),
        ([{"module": "csv", "channels": []}], "leave the key out"),
        ([{"module": "csv", "channels": ["a", "a"]}], "named twice"),
        ([{"module": "csv", "sample": "2/3"}], "1/100"),
        ([{"module": "csv", "sample": 100}], "1/100"),
        ([{"module": "csv", "when": "loss >"}], "cannot be read"),
        ([{"module": "csv", "when": True}], "when"),
        ([{"module": "csv", "channels": "rgb"}], "channels"),
        ([5], "write a module"),
        ([""], "module"),
        ([{"module": "csv", "hang_s": 0}], "hang_s"),
        ([{"module": "csv", "when_full": "wait"}], "when_full"),
        ([{"module": "csv", "on_crash": "ignore"}], "on_crash"),
        ([{"module": "csv", "limits": {"memory": "1MiB"}}], "memory"),
        ([{"module": "csv", "limits": {"oom_score_adj": -1}}], "oom_score_adj"),
        ([{"module": "csv", "env": [""]}], "env"),
        ([{"module": "csv", "restart": {"delay_s": 9.0, "delay_s_max": 1}}], "9.0"),
    ],
)
def test_what_is_refused(modules: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LoggingConfig.model_validate({"logger_modules": modules})


def test_a_sample_is_one_of_so_many() -> None:
    assert LoggerConfig(module="csv").sample == 1
    assert LoggerConfig(module="csv", sample="1/100").sample == 100
    assert LoggerConfig(module="csv", sample="1 / 3").sample == 3


def test_several_processes_of_a_logger_have_numbers() -> None:
    assert Process(LoggerConfig(module="csv"), 0, 1).name == "csv"
    image = LoggerConfig(module="image", instances=2)
    assert [Process(image, 1, n).name for n in (1, 2)] == ["image/1", "image/2"]
