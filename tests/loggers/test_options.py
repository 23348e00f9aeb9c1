"""Options: what is wrong is told in the words of the configuration."""

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field, model_validator

from millpond.errors import ConfigError
from millpond_loggers.base import Options
from millpond_loggers.csv_logger import CSVOptions
from millpond_loggers.files.names import NAME_BYTES_MAX, temporary_name
from millpond_loggers.image_logger import ImageOptions
from millpond_loggers.options import FILE_NAME_BYTES_MAX, FileName, check_options


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


class Inner(BaseModel, extra="forbid"):
    size: int = 0


class OddOptions(Options):
    needed: str
    even: Annotated[int, AfterValidator(_even)] = 0
    short: str = Field("", max_length=3)
    either: int | bool = 0
    inner: Inner = Inner()
    low: int = 0

    @model_validator(mode="after")
    def _check(self) -> "OddOptions":
        if self.low > self.even:
            raise ValueError("low must not be above even")
        return self


def problem(model: type[BaseModel], options: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        check_options(model, options)
    return str(refused.value)


def test_good_options_are_complete_and_typed() -> None:
    assert check_options(CSVOptions, None) == CSVOptions()
    options = check_options(ImageOptions, {"compress_level": 3})
    assert (options.compress_level, options.quality) == (3, 90)


def test_an_unknown_option_is_told_with_those_that_there_are() -> None:
    assert problem(CSVOptions, {"nope": 1}) == (
        "option 'nope' is unknown; the options are file, escape_formulas"
    )
    assert problem(CSVOptions, {"fiel": "a.csv"}) == (
        "option 'fiel' is unknown; did you mean 'file'? the options are file, escape_formulas"
    )
    assert problem(Options, {"nope": 1}) == "option 'nope' is unknown; this logger has none"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compress_level": 12}, "option 'compress_level': 12 is not less than or equal to 9"),
        ({"compress_level": "much"}, "option 'compress_level': 'much' is not a valid integer"),
        ({"quality": 0}, "option 'quality': 0 is not greater than or equal to 1"),
        ({"channels": "rgb"}, "option 'channels': 'rgb' is not a valid list"),
        ({"channels": ["a", 5]}, "option 'channels[1]': 5 is not a valid string"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_right(options: dict[str, Any], told: str) -> None:
    assert problem(ImageOptions, options) == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"needed": 5}, "option 'needed': 5 is not a valid string"),
        ({}, "option 'needed' is missing"),
        ({"needed": "", "even": 3}, "option 'even': 3 is odd"),
        (
            {"needed": "", "short": "abcd"},
            "option 'short': 'abcd' is refused: string should have at most 3 characters",
        ),
        (
            {"needed": "", "either": "x"},
            "option 'either': 'x' is not a valid integer; "
            "option 'either': 'x' is not a valid boolean",
        ),
        (
            {"needed": "", "inner": {"size": "x"}},
            "option 'inner.size': 'x' is not a valid integer",
        ),
        ({"needed": "", "inner": {"sizes": 1}}, "option 'inner.sizes' is unknown"),
        ({"needed": "", "low": 1}, "options: low must not be above even"),
    ],
)
def test_mistakes_of_every_kind_are_told_in_plain_words(options: dict[str, Any], told: str) -> None:
    assert problem(OddOptions, options) == told


def test_every_mistake_is_told_at_once_and_long_values_are_cut() -> None:
    told = problem(CSVOptions, {"escape_formulas": "x" * 1000, "nope": 1})
    assert told == (
        f"option 'escape_formulas': '{'x' * 79} ... is not a valid boolean; "
        "option 'nope' is unknown; the options are file, escape_formulas"
    )


def test_the_place_of_the_options_leads_the_message_and_pydantic_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        check_options(CSVOptions, {"nope": 1}, key="csv.options")
    assert str(refused.value).startswith("csv.options: option 'nope' is unknown; ")
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


class Named(Options):
    file: FileName


@pytest.mark.parametrize("name", ["a", "details.csv", "a b", "Grüße.csv", "-", "a..b", "a" * 100])
def test_a_plain_file_name_is_taken(name: str) -> None:
    assert check_options(Named, {"file": name}).file == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/a", "../a", "a\n", "a\0", "\x1b[2J", "\ud800"]
)
def test_what_is_no_plain_file_name_is_refused(name: str) -> None:
    assert problem(Named, {"file": name}) == (
        f"option 'file': {name!r} is not a plain file name: printable, without '/', not led by '.'"
    )


@pytest.mark.parametrize("name", ["a" * 101, "😀" * 60])
def test_a_long_file_name_is_refused(name: str) -> None:
    assert "is too long: at most 100 characters and 200 bytes" in problem(Named, {"file": name})


def test_the_longest_name_has_a_temporary_one_that_fits() -> None:
    name = "é" * (FILE_NAME_BYTES_MAX // 2)
    assert check_options(Named, {"file": name}).file == name
    assert len(temporary_name(name).encode()) <= NAME_BYTES_MAX
