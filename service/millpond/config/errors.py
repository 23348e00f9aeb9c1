"""Words for what pydantic refuses: what was found, what is allowed, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from millpond.config.yaml_source import KeyPath, Place, find_place, key_text
from millpond.errors import ConfigError

PROBLEM_COUNT_MAX: Final = 10  # More in one message are not read.
_FOUND_CHARS_MAX: Final = 60


def located_error(
    error: ValidationError, model: type[BaseModel], places: Mapping[KeyPath, Place]
) -> ConfigError:
    """All problems as one error: the first in the order of the file, the others below it.

    Args:
        error: What pydantic says.
        model: What was validated.
        places: Where each key was given; ``()`` is the main file.
    """
    main = find_place(places, ()).file

    def order(detail: ErrorDetails) -> tuple[bool, bool, str, int]:
        place = find_place(places, _path(detail))
        return (place.line is None, place.file != main, place.file, place.line or 0)

    details = sorted(error.errors(include_url=False), key=order)
    first, *others = [_located(detail, model, places) for detail in details[:PROBLEM_COUNT_MAX]]
    text = "\n".join([first.problem, *map(str, others)])
    if len(details) > PROBLEM_COUNT_MAX:
        text += f"\nand {len(details) - PROBLEM_COUNT_MAX} more"
    return ConfigError(text, key=first.key, file=first.file, line=first.line)


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'slots'?``, or nothing when no known word is near."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def show(value: object) -> str:
    """A value as its writer would know it again, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _FOUND_CHARS_MAX else text[: _FOUND_CHARS_MAX - 3] + "..."


def _path(detail: ErrorDetails) -> KeyPath:
    """The key that is wrong; a validator may have said which one beneath its own."""
    return (*detail["loc"], *detail.get("ctx", {}).get("at", ()))


def _located(
    detail: ErrorDetails, model: type[BaseModel], places: Mapping[KeyPath, Place]
) -> ConfigError:
    path = _path(detail)
    place = find_place(places, path)
    problem = _problem(detail, model)
    return ConfigError(problem, key=key_text(path), file=place.file, line=place.line)


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One problem in plain words."""
    loc, found = detail["loc"], show(detail["input"])
    if detail["type"] == "extra_forbidden":
        return _unknown_key(loc, model)
    if detail["type"] == "problem_at":
        return str(detail["ctx"]["problem"])
    if detail["type"] == "value_error":
        problem = str(detail["ctx"]["error"])
        return problem if "found" in problem or not loc else f"found {found}; {problem}"
    allowed = _allowed(*type_at(loc, model))
    if detail["type"] == "missing":
        return f"is missing; it must be {allowed}"
    problem = f"found {found}; it must be {allowed}"
    if detail["type"] == "string_type" and isinstance(detail["input"], (int, float)):
        problem += "; put it into quotes"
    return problem


def _unknown_key(loc: KeyPath, model: type[BaseModel]) -> str:
    annotation, _ = type_at(loc[:-1], model)
    known = annotation.model_fields
    key = str(loc[-1])
    elsewhere = [key_text(path) for path in key_paths(model) if path[-1] == key]
    hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else nearest(key, known)
    return f"unknown key{hint or '.'} Known here: {', '.join(known)}"


def key_paths(model: type[BaseModel], above: KeyPath = ()) -> list[KeyPath]:
    """Every key that the mappings of the model can have, but not those inside lists."""
    paths: list[KeyPath] = []
    for name, field in model.model_fields.items():
        path = (*above, name)
        paths.append(path)
        annotation, _ = _bare(field.annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            paths.extend(key_paths(annotation, path))
    return paths


def type_at(loc: KeyPath, model: type[BaseModel]) -> tuple[Any, list[Any]]:
    """The type of the value at a key, and its constraints."""
    annotation: Any = model
    constraints: list[Any] = []
    for step in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields[str(step)]
            annotation, more = _bare(field.annotation)
            constraints = [*field.metadata, *more]
        else:
            item = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
            annotation, constraints = _bare(item)
    return annotation, constraints


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """The type without ``Annotated`` and ``| None``, and what was annotated."""
    constraints: list[Any] = []
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation = arguments[0]
            for argument in arguments[1:]:
                constraints += getattr(argument, "metadata", [argument])
        elif type(None) in arguments:
            annotation = next(part for part in arguments if part is not type(None))
        else:
            return annotation, constraints


_KINDS: Final[Mapping[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    tuple: "a list",
    dict: "a mapping, lines of 'key: value'",
}


def _allowed(annotation: Any, constraints: list[Any]) -> str:
    """The values that a key may have: ``a whole number from 1 to 1024``."""
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    text = _KINDS.get(origin or annotation, _KINDS[dict])
    if annotation is str:
        return text + " that is not empty"
    limits = {
        name: getattr(constraint, name)
        for constraint in constraints
        for name in ("ge", "gt", "le")
        if hasattr(constraint, name)
    }
    if "ge" in limits:
        text += f" from {limits['ge']}"
    elif "gt" in limits:
        text += f" above {limits['gt']}"
    if "le" in limits:
        text += f" {'to' if 'ge' in limits else 'and up to'} {limits['le']}"
    return text
