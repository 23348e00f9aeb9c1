"""The language of conditions."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.expression import CHARACTERS_MAX, UndecidedError, parse


class Values:
    def __init__(self, item: dict[str, Any] | None = None, **channels: Any) -> None:
        self.item = item or {}
        self._channels = channels

    def channel(self, name: str) -> Any:
        return self._channels[name]


def holds(text: str, item: dict[str, Any] | None = None, **channels: Any) -> bool:
    return parse(text).holds(Values(item, **channels))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not is_correct or loss > 2", True),
        ("is_correct", False),
        ("not is_correct and loss > 2", False),
        ("0 < loss < 2", True),
        ("0 < loss < 1", False),
        ("loss == 1.5", True),
        ("loss * 2 - 1 == 2 and loss / 3 == 0.5 and 7 // 2 == 3 and 7 % 4 == 3", True),
        ("-loss < 0 and +loss > 0", True),
        ("abs(0 - loss) == 1.5 and max(loss, 9) == 9 and min(loss, 9) == 1.5", True),
        ("isnan(loss)", False),
        ("isfinite(loss)", True),
        ("label in [3, 4, 5]", True),
        ("label not in (3, 4)", False),
        ("true and not false and null is None", True),
        ('channels["camera.fov"] > 40', True),
        ('model == "resnet"', True),
        ('environment in ["studio", "street"]', True),
        ('id != "000001"', False),
        ("render_args.zoom > 1", True),
        ('render_args["camera.zoom"] is None', True),
        ("is_correct is not true and render_args.zoom is not null", True),
        ('item["split"] == "test"', True),
        ("  loss > 1  ", True),
    ],
)
def test_what_it_says(text: str, expected: bool) -> None:
    item = {
        "id": "000001",
        "model": "resnet",
        "environment": "studio",
        "split": "test",
        "render_args": {"zoom": 1.2, "camera.zoom": None},
    }
    channels = {"is_correct": False, "loss": 1.5, "label": 4, "camera.fov": 50.0}
    if text == "is_correct":
        assert holds(text, item, **channels) is False
    else:
        assert holds(text, item, **channels) is expected


def test_the_second_half_is_asked_only_when_it_matters() -> None:
    assert holds("loss > 1 or render_args.absent", {}, loss=2)
    assert not holds("loss > 9 and render_args.absent", {}, loss=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("loss >", "cannot be read"),
        ("loss = 2", "equal is written =="),
        ("loss > 2; import os", "cannot be read"),
        ("open('x')", "the functions are abs, min, max, isnan, isfinite"),
        ("loss.real > 1", "not possible"),
        ("model.upper() == 'A'", "functions are"),
        ("[x for x in y]", "not possible"),
        ("lambda: 1", "not possible"),
        ("loss ** 99", "not possible"),
        ("(a := 3)", "not possible"),
        ("f'{loss}'", "not possible"),
        ("abs(x=3)", "functions are"),
        ("b'1' == loss", "not possible"),
        ("render_args > 2", "followed by a name"),
        ("render_args[zoom] > 2", r"write render_args\['name'\], not render_args\[zoom\]"),
        ("a" * (CHARACTERS_MAX + 1), "at most 1000"),
        ("(" * 400 + ")" * 400, "cannot be read"),
        ("\0", "cannot be read"),
        ("+".join(["a"] * 490), "nested more than 60 levels"),
        ("-" * 900 + "a", "nested more than 60 levels"),
        ("lambda: " + "not " * 200 + "a", "nested more than 60 levels"),
        ("max(loss)", r"'max\(loss\)': max is of two values or more"),
        ("min() > 1", "two values or more"),
        ("isnan(loss, 1)", "isnan is of one value"),
        ("label is 300", "write == 300"),
        ("loss > 1 is not loss", "write != loss"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("render_args.zoom > 1", r"no render_args\['zoom'\]"),
        ("model == 1", "no model"),
        ('item["split"]', "no split"),
        ("render_args.name > 1", "not supported"),
        ("render_args.name * 3", "'bus' is not a number"),
        ("1 / loss > 3", "division"),
        ("isnan(render_args.name)", "real number"),
        ("1 in loss", "not"),
    ],
)
def test_a_question_without_an_answer_is_told(text: str, words: str) -> None:
    item = {"render_args": {"name": "bus"}}
    with pytest.raises(UndecidedError, match=words):
        holds(text, {} if "zoom" in text else item, loss=0)


def test_the_channels_that_it_needs_are_known() -> None:
    text = 'loss > 2 and not is_correct or channels["camera.fov"] > render_args.fov and id != "a"'
    assert parse(text).channels == {"loss", "is_correct", "camera.fov"}
    assert parse("render_args.zoom > 1 or true").channels == set()


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ValueError:
        return
    ast.parse(text.strip(), mode="eval")


numbers = st.one_of(st.integers(-5, 5), st.floats(-5, 5, width=32), st.booleans())


@given(numbers, numbers, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]))
def test_comparisons_are_those_of_python(first: Any, second: Any, sign: str) -> None:
    expected = eval(f"first {sign} second")
    assert holds(f"a {sign} b", a=first, b=second) is expected
