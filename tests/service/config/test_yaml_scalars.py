"""What unquoted words mean in our sections."""

import math

import pytest

from millpond.config.yaml_scalars import plain_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("-17", -17),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3.", -3.0),
        ("-.inf", -math.inf),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("trUe", "trUe"),
        ("yesterday", "yesterday"),
        ("127.0.0.1", "127.0.0.1"),
        ("a:b", "a:b"),
        ("512MiB", "512MiB"),
    ],
)
def test_core_rules(text: str, value: object) -> None:
    found = plain_value(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    assert math.isnan(plain_value(".nan"))


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "No",
        "ON",
        "off",
        "y",
        "N",
        "12:30",
        "12:30:45",
        "-1:30.5",
        "017",
        "0o17",
        "08",
        "0b11",
    ],
)
def test_what_readers_differ_about_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="put it into quotes") as refusal:
        plain_value(text)
    assert text in str(refusal.value)


def test_a_number_too_long_for_python_is_refused() -> None:
    with pytest.raises(ValueError, match="5000 digits"):
        plain_value("9" * 5000)
