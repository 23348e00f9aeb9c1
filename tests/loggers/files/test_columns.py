"""Flat columns of one kind each, whatever renderers send along."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond_loggers.files.columns import channel_column, find_kind, make_columns

BIG = 2**53


def lay_out(*arguments: dict[str, Any], known: dict[str, str] | None = None, **more: Any) -> Any:
    items = [{"id": str(n), "render_args": some, **more} for n, some in enumerate(arguments)]
    columns, kinds = make_columns(items, ["loss", "channels.id"], known or {})
    return {column.name: (column.kind, column.values) for column in columns}, kinds


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], None),
        ([None], None),
        ([True, None, False], "bool"),
        ([1, -BIG, BIG], "int"),
        ([1, BIG + 1], "long"),
        ([2**63 - 1, -(2**63)], "long"),
        ([2**63], "json"),
        ([1, 1.5], "float"),
        ([BIG + 1, 1.5], "json"),
        (["a", ""], "text"),
        ([True, 1], "json"),
        (["a", 1], "json"),
        ([[]], "empty"),
        ([[None]], "empty"),
        ([[], [1]], "[int]"),
        ([[1], [BIG + 1]], "[long]"),
        ([[1], [None, 2.5]], "[float]"),
        ([[1, 2.5]], "[float]"),
        ([[True]], "[bool]"),
        ([["a"], []], "[text]"),
        ([["a"], [1]], "json"),
        ([[1, "a"]], "json"),
        ([[[1]]], "json"),
        ([[{}]], "json"),
        ([{}], "json"),
        ([[1], 1], "json"),
        ([[], 1], "json"),
    ],
)
def test_the_kind_is_the_narrowest_that_holds_all_values(values: list[Any], kind: Any) -> None:
    assert find_kind(values) == kind
    assert find_kind(reversed(values)) == kind


@pytest.mark.parametrize(
    ("known", "values", "kind"),
    [
        ("float", [1], "float"),
        ("int", [1.5], "float"),
        ("long", [1], "long"),
        ("int", ["a"], "json"),
        ("json", [1], "json"),
        ("[float]", [[]], "[float]"),
        ("empty", [["a"]], "[text]"),
        ("text", [], "text"),
    ],
)
def test_a_column_keeps_its_kind_or_becomes_a_wider_one(
    known: str, values: list[Any], kind: str
) -> None:
    assert find_kind(values, known) == kind


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(st.lists(VALUES, max_size=6), st.randoms())
def test_the_order_of_values_does_not_change_the_kind(values: list[Any], chance: Any) -> None:
    shuffled = values.copy()
    chance.shuffle(shuffled)
    assert find_kind(values) == find_kind(shuffled)
    for cut in range(len(values) + 1):  # Nor how they are parted.
        assert find_kind(values[cut:], find_kind(values[:cut])) == find_kind(values)


def test_arguments_are_flat_columns_and_what_is_missing_is_none() -> None:
    columns, _ = lay_out({"zoom": 1}, {"light": "on"}, {"zoom": 2.5})
    assert columns == {
        "id": ("text", ["0", "1", "2"]),
        "render_args.zoom": ("float", [1.0, None, 2.5]),
        "render_args.light": ("text", [None, "on", None]),
    }
    assert type(columns["render_args.zoom"][1][0]) is float


def test_fields_stand_before_arguments() -> None:
    columns, _ = lay_out({"a": 1}, loss="x", environment="e", render_args_of="y", model=None)
    assert list(columns) == ["id", "environment", "item.loss", "render_args_of", "render_args.a"]


def test_values_of_several_kinds_are_json_in_a_column_of_another_name() -> None:
    columns, kinds = lay_out({"a": 1}, {"a": "x"}, {"a": {"b": [1]}}, {"a": None})
    assert columns["render_args.a.json"] == ("json", ["1", '"x"', '{"b":[1]}', None])
    assert kinds["render_args.a"] == "json"
    assert "render_args.a" not in columns


def test_an_argument_that_is_called_like_such_a_column_is_another_one() -> None:
    columns, kinds = lay_out({"a": {}, "a.json": 1})
    assert columns["render_args.a.json"] == ("json", ["{}"])
    assert columns["render_args.a.json.json"] == ("json", ["1"])
    again, _ = lay_out({"a.json": 2}, known=kinds)
    assert again["render_args.a.json.json"] == ("json", ["2"])


def test_kinds_of_earlier_parts_count_and_are_handed_on() -> None:
    _, kinds = lay_out({"zoom": 1.5, "late": True})
    columns, later = lay_out({"zoom": 2}, known=kinds)
    assert columns["render_args.zoom"] == ("float", [2.0])
    assert "render_args.late" not in columns, "a part has no empty columns"
    assert later == {"id": "text", "render_args.zoom": "float", "render_args.late": "bool"}


def test_the_columns_of_a_run_keep_their_order() -> None:
    _, kinds = lay_out({"b": 1, "a": 1})
    columns, _ = lay_out({"c": 1, "a": 1, "b": 1}, known=kinds)
    assert list(columns) == ["id", "render_args.b", "render_args.a", "render_args.c"]


@pytest.mark.parametrize(
    ("channel", "column"),
    [
        ("loss", "loss"),
        ("id", "channels.id"),
        ("a.json", "channels.a.json"),
        ("model", "channels.model"),
    ],
)
def test_a_channel_has_a_column_that_nothing_else_has(channel: str, column: str) -> None:
    assert channel_column(channel) == column
