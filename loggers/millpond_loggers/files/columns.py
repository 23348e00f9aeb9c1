"""What renderers send along as flat columns, each of one kind of value.

Nobody declares render arguments, so the kind of a column is found in its values, and what it once
was is remembered: over all parts of a run a column keeps its kind, or becomes a wider one.

=========  ==========================================================================
kind       values
=========  ==========================================================================
bool       true and false
int        whole numbers that a float holds exactly, up to 2**53
long       whole numbers of up to 64 bits, one beyond that at least
float      numbers, one with a fraction at least
text       text
empty      lists without any value in them
[kind]     lists of values of one of the kinds above, ``[float]`` for instance
json       anything else, and values of several kinds, as JSON text
=========  ==========================================================================

None is a value of every kind.  A column of JSON text is another one than that of the plain values
before it, and called so: ``render_args.pose.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from millpond_loggers.files.item_json import ARGUMENTS, FIELDS, free_name
from millpond_loggers.json_logger import to_json

EXACT_MAX: Final = 2**53
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
JSON_SUFFIX: Final = ".json"
# What two different kinds are together; any other two are JSON.
_WIDER: Final = {
    frozenset({"int", "long"}): "long",
    frozenset({"int", "float"}): "float",
    frozenset({"[int]", "[long]"}): "[long]",
    frozenset({"[int]", "[float]"}): "[float]",
}
_PLAIN: Final = ("bool", "int", "long", "float", "text")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a part.

    Args:
        name: Its name; with ``.json`` at its end for that kind.
        kind: See above.
        values: One for each row, None where the result has none.
    """

    name: str
    kind: str
    values: list[Any]


def make_columns(
    items: Sequence[Mapping[str, Any]], channels: Collection[str], known: Mapping[str, str]
) -> tuple[list[Column], dict[str, str]]:
    """Lay out what was sent along with some results.

    Args:
        items: Each with ``id`` and ``render_args``.
        channels: Names that fields may not have.
        known: Name to kind of the columns of earlier parts.

    Returns:
        The columns that have a value: fields, then render arguments.  And name to kind of these
        and all that were known, by the names that they have without ``.json``.
    """
    values: dict[str, list[Any]] = {name: [] for name in (*FIELDS, *known)}
    for row, item in enumerate(items):
        for name, value in _flat(item, channels):
            column = values.setdefault(name, [])
            column.extend([None] * (row - len(column)))
            column.append(value)
    kinds: dict[str, str] = {}
    columns = []
    for name, column in values.items():
        kind = find_kind(column, known.get(name))
        if kind is not None:
            kind = kinds[name] = "json" if name.endswith(JSON_SUFFIX) else kind
        if kind is not None and any(value is not None for value in column):
            # Only here: a run may have thousands of columns, and a part few of them.
            column.extend([None] * (len(items) - len(column)))
            columns.append(_column(name, kind, column))
    columns.sort(key=lambda column: column.name.startswith(f"{ARGUMENTS}."))
    return columns, kinds


def channel_column(name: str) -> str:
    """What the column of a channel is called."""
    is_like_json = name.endswith(JSON_SUFFIX)
    return f"channels.{name}" if is_like_json else free_name(name, "channels", FIELDS)


def find_kind(values: Iterable[Any], known: str | None = None) -> str | None:
    """The kind that holds all values, and those that were of a known kind; None: there are none."""
    found = known
    for kind in {_kind(value) for value in values} - {None}:
        assert kind is not None
        found = kind if found is None else _join(found, kind)
    return found


def _flat(item: Mapping[str, Any], channels: Collection[str]) -> Iterable[tuple[str, Any]]:
    for name, value in item.items():
        if name == ARGUMENTS:
            yield from ((f"{ARGUMENTS}.{inner}", part) for inner, part in value.items())
        elif name in FIELDS:
            yield name, value
        else:
            yield free_name(name, "item", channels), value


def _column(name: str, kind: str, values: list[Any]) -> Column:
    convert = _CONVERT.get(kind)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return Column(name + JSON_SUFFIX if kind == "json" else name, kind, values)


def _kind(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int() if -EXACT_MAX <= value <= EXACT_MAX:
            return "int"
        case int() if LONG_MIN <= value <= LONG_MAX:
            return "long"
        case float():
            return "float"
        case str():
            return "text"
        case list():
            inner = find_kind(value)
            if inner is None:
                return "empty"
            return f"[{inner}]" if inner in _PLAIN else "json"
        case _:
            return "json"


def _join(one: str, other: str) -> str:
    if one == other:
        return one
    for first, second in ((one, other), (other, one)):
        if first == "empty" and second.startswith("["):
            return second
    return _WIDER.get(frozenset({one, other}), "json")


def _floats(values: list[Any]) -> list[float | None]:
    return [None if value is None else float(value) for value in values]


_CONVERT: Final[Mapping[str, Callable[[Any], Any]]] = {
    "float": float,
    "[float]": _floats,
    "json": lambda value: to_json(value).decode(),
}
