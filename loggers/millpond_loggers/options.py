"""The ``options:`` of a logger: the kinds of values they share, and how wrong ones are told.

What is wrong is said in the words of the configuration file, not in those of pydantic.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from millpond.errors import ConfigError

FILE_NAME_CHARACTERS_MAX: Final = 100
# What stands around a temporary name must fit into the 255 bytes of a name too.
FILE_NAME_BYTES_MAX: Final = 200
SHOWN_CHARACTERS_MAX: Final = 80
# How pydantic begins to say which values it takes.
_TAKEN: Final = "Input should be "
# How it goes on to say what it tried.
_TRIED: Final = (", unable to ", ", got ")

_Model = TypeVar("_Model", bound=BaseModel)


def check_options(
    model: type[_Model], options: Mapping[str, Any] | None, *, key: str = ""
) -> _Model:
    """The options as the logger sees them: complete, checked, of the right types.

    Args:
        model: The logger's ``Options``.
        options: What the configuration says.
        key: Where it says so, such as ``csv.options``; the message begins with it.

    Raises:
        ConfigError: An option is unknown, missing or has a wrong value; names every such one.
    """
    given = dict(options or {})
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = [_problem(detail, model, given) for detail in error.errors()]
    raise ConfigError("; ".join(dict.fromkeys(problems)), key=key)


def _check_file_name(name: str) -> str:
    # A leading dot is for `.`, `..` and temporary files, which are removed at the next start.
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise ValueError(
            f"{_shown(name)} is not a plain file name: printable, without '/', not led by '.'"
        )
    if len(name) > FILE_NAME_CHARACTERS_MAX or len(os.fsencode(name)) > FILE_NAME_BYTES_MAX:
        raise ValueError(
            f"{_shown(name)} is too long: at most {FILE_NAME_CHARACTERS_MAX} characters "
            f"and {FILE_NAME_BYTES_MAX} bytes"
        )
    return name


FileName = Annotated[str, AfterValidator(_check_file_name)]
"""The name of a file in the output folder."""


def _problem(detail: Any, model: type[BaseModel], given: Mapping[str, Any]) -> str:
    """One error of pydantic's in our words."""
    kind, message, value = detail["type"], detail["msg"], detail["input"]
    place = _place(detail["loc"], given)
    option = f"option '{place}'" if place else "options"
    match kind:
        case "extra_forbidden" if len(detail["loc"]) > 1:
            return f"{option} is unknown"
        case "extra_forbidden":
            names = [field.alias or name for name, field in model.model_fields.items()]
            nearest = difflib.get_close_matches(place, names, 1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
            known = f"the options are {', '.join(names)}" if names else "this logger has none"
            return f"{option} is unknown{hint} {known}"
        case "missing":
            return f"option '{'.'.join(map(str, detail['loc']))}' is missing"
        case "value_error" | "assertion_error":
            return f"{option}: {detail['ctx']['error']}"
    if message.startswith(_TAKEN):
        taken = message.removeprefix(_TAKEN)
        for tried in _TRIED:
            taken = taken.partition(tried)[0]
        return f"{option}: {_shown(value)} is not {taken}"
    return f"{option}: {_shown(value)} is refused: {message[:1].lower()}{message[1:]}"


def _place(path: tuple[int | str, ...], given: Any) -> str:
    """The path of a value, such as ``channels[0]``; without what pydantic adds for its types."""
    place = ""
    for part in path:
        if isinstance(part, str) and isinstance(given, dict) and part in given:
            place += f".{part}" if place else part
        elif isinstance(part, int) and isinstance(given, list) and part < len(given):
            place += f"[{part}]"
        else:
            break
        given = given[part]
    return place


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]} ..."
