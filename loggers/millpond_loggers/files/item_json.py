"""What a renderer sent along with a result: as JSON, and as names that do not clash."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from millpond_loggers.json_logger import to_json

# Fields of a result whose names nothing else may have.
FIELDS: Final = ("id", "environment", "model")
ARGUMENTS: Final = "render_args"
LEADING: Final = (*FIELDS, ARGUMENTS, "result_ix")


def item_json(item: Mapping[str, Any], channels: Mapping[str, Any] | None = None) -> bytes:
    """A result's item without its ``result_ix``: strict JSON, which any reader takes.

    Args:
        item: As `log` gets it.
        channels: Scalars and arrays to put behind it; NaN and the infinities become null.  With
            them, a field that is called like one of them becomes ``item.<name>``.

    Returns:
        An object whose first key is ``id``.  Half a surrogate pair, which UTF-8 cannot hold, is
        written as `plain_text` has it.
    """
    names = channels or {}
    plain = {"id": item["id"]}
    for name, value in item.items():
        is_plain = name in LEADING or not names
        plain[name if is_plain else free_name(name, "item", names)] = value
    plain.pop("result_ix", None)
    for name, value in names.items():
        plain[free_name(name, "channels", LEADING)] = value
    try:
        return orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        return to_json(_plain(plain))


def plain_text(text: str) -> str:
    """The text as UTF-8 can hold it: half a surrogate pair becomes six characters, ``\\udc80``."""
    return text.encode("utf-8", "backslashreplace").decode()


def free_name(name: str, prefix: str, taken: Collection[str]) -> str:
    """A name for a value beside others: with a prefix if the plain one could be another's.

    The same value has the same name in every part, for this depends on nothing else in it.

    Args:
        name: What it is called.
        prefix: Where it comes from, such as ``channels``.
        taken: Names that others have, whatever comes.
    """
    first = name.partition(".")[0]
    if not name or name in taken or first in {ARGUMENTS, "channels", "item"}:
        return f"{prefix}.{name}"
    return name


def _plain(value: Any) -> Any:
    match value:
        case str():
            return plain_text(value)
        case dict():
            return {_plain(key): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value
