"""The kinds of values that a configuration has."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from millpond.config.section import ByteCount, FilePath, Name, Number, Section


class Sample(Section):
    name: Name = "a"
    path: FilePath = Path()
    size: ByteCount = 1
    number: Number = 1.0


@pytest.mark.parametrize(
    ("text", "byte_count"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("512MiB", 2**29),
        ("1.5 GiB", 3 * 2**29),
        ("2TB", 2 * 10**12),
        ("1kB", 1000),
    ],
)
def test_sizes(text: object, byte_count: int) -> None:
    assert Sample(size=text).size == byte_count


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert Sample(path="runs").path == tmp_path / "runs"
    assert Sample(path="~/runs").path == Path("/home/ada/runs")
    assert Sample(path="/x").path == Path("/x")


@pytest.mark.parametrize(
    "given",
    [
        {"size": "12 parsecs"},
        {"size": "-1"},
        {"size": 1.5},
        {"size": True},
        {"size": "9" * 400},
        {"path": ""},
        {"path": "a\0b"},
        {"path": "\ud800"},
        {"path": "~no-such-user-at-all/x"},
        {"path": 5},
        {"name": "../x"},
        {"name": "."},
        {"name": ""},
        {"name": "a" * 65},
        {"name": "näme"},
        {"number": True},
        {"number": "1"},
        {"number": float("nan")},
        {"other": 1},
    ],
)
def test_what_is_refused(given: dict) -> None:
    with pytest.raises(ValidationError):
        Sample.model_validate(given)


def test_a_section_never_changes() -> None:
    with pytest.raises(ValidationError):
        Sample().name = "b"
