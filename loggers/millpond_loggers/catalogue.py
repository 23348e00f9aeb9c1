"""What loggers there are to say of themselves: for ``millpond loggers list``, in a child process.

``python -m millpond_loggers.catalogue FOLDER...`` reads a JSON list ``[[kind, place], ...]`` from
its standard input and answers with a line of JSON for each, as it goes: should importing one end
this process, the lines say which one it was.  No logger is made, and no library that one needs is
imported.
"""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import CoreSchema, to_jsonable_python

from millpond.errors import ConfigError
from millpond_loggers.extras import install_command, is_installed, libraries_of
from millpond_loggers.plugin import PluginError, find_logger

# The types of JSON, in the words of the configuration file.
_TYPES: Final = {"boolean": "true or false", "string": "text", "object": "mapping"}
# Limits in a JSON schema: of a number, of a text, of a list or a mapping.
_LIMITS: Final = (
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("exclusiveMinimum", "more than {}"),
    ("exclusiveMaximum", "less than {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} of them"),
    ("maxItems", "at most {} of them"),
)


@dataclass(frozen=True, slots=True)
class Option:
    """One of the ``options:`` of a logger.

    Attributes:
        name: As it is written in the configuration.
        type: What values it takes, in words.
        range: Which of them; nothing when all.
        default: As JSON would have it; None, too, for an option that is required.
        description: What it means.
    """

    name: str
    type: str
    range: str
    is_required: bool
    default: Any
    description: str


@dataclass(frozen=True, slots=True)
class Description:
    """What a logger says of itself.

    Attributes:
        summary: The first line of its module's docstring.
        extra: The extra that brings its libraries, if there is one.
        missing: Its libraries that are not installed.
        install: The command that installs them; nothing when none is missing.
        options: None when it does not describe them: it takes any.
        problem: Why it cannot be used, whatever is installed; nothing when it can.
    """

    summary: str = ""
    extra: str | None = None
    missing: tuple[str, ...] = ()
    install: str = ""
    options: tuple[Option, ...] | None = None
    problem: str = ""


def describe(kind: str, place: str) -> Description:
    """What a logger says of itself.

    Args:
        kind: ``module`` or ``file``.
        place: The dotted name of the module, or the path of the file.
    """
    try:
        logger = find_logger(kind, place)
        missing = tuple(library for library in libraries_of(logger) if not is_installed(library))
    except (PluginError, ConfigError) as error:
        return Description(problem=str(error).strip())
    model = getattr(logger, "Options", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        model = None  # It takes what it likes.
    return Description(
        summary=_summary(logger),
        extra=getattr(logger, "extra", None),
        missing=missing,
        install=install_command(logger) if missing else "",
        options=describe_options(model) if model else None,
    )


def describe_options(model: type[BaseModel]) -> tuple[Option, ...]:
    """The options that a model describes, in its order."""
    schema = model.model_json_schema(schema_generator=_Schema)
    properties = schema.get("properties", {})
    kinds = schema.get("$defs", {})
    options = []
    for name, field in model.model_fields.items():
        written = field.alias or name
        values = properties.get(written, {})
        options.append(
            Option(
                name=written,
                type=_type(values, kinds),
                range=", ".join(dict.fromkeys(_limits(values, kinds))),
                is_required=field.is_required(),
                default=None if field.is_required() else _default(field),
                description=field.description or "",
            )
        )
    return tuple(options)


class _Schema(GenerateJsonSchema):
    """Lets a type of an author's own, which says nothing of itself, be anything."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Say nothing: this is no schema that anything is checked against."""

    def handle_invalid_for_json_schema(
        self,
        schema: CoreSchema,  # noqa: ARG002
        error_info: str,  # noqa: ARG002
    ) -> JsonSchemaValue:
        """Take the type for one that allows everything."""
        return {}


def _summary(logger: type) -> str:
    module = sys.modules.get(logger.__module__)
    text = inspect.getdoc(module) or inspect.getdoc(logger) or ""
    line = text.partition("\n")[0].replace("``", "").replace("`", "")
    return line.removeprefix("A logger that ")


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return to_jsonable_python(default, fallback=str)


def _type(values: dict[str, Any], kinds: dict[str, Any]) -> str:
    """What a JSON schema takes, in words: ``integer or null``, ``list of text``."""
    values = _resolved(values, kinds)
    if "anyOf" in values:
        return " or ".join(dict.fromkeys(_type(one, kinds) for one in values["anyOf"]))
    if "enum" in values:
        return " or ".join(_shown(one) for one in values["enum"])
    if "const" in values:
        return _shown(values["const"])
    match values.get("type"):
        case "array":
            items: dict[str, Any] = values.get("items") or {}
            return f"list of {_type(items, kinds)}" if items else "list"
        case "object" if isinstance(values.get("additionalProperties"), dict):
            return f"mapping of names to {_type(values['additionalProperties'], kinds)}"
        case "object" if "properties" in values:
            return f"mapping with {', '.join(values['properties'])}"
        case str(name):
            return _TYPES.get(name, name)
    return "anything"


def _limits(values: dict[str, Any], kinds: dict[str, Any]) -> list[str]:
    """The limits of a JSON schema and of what is in it, in words."""
    values = _resolved(values, kinds)
    limits = [text.format(values[key]) for key, text in _LIMITS if key in values]
    if "minimum" in values and "maximum" in values:
        limits[:2] = [f"{values['minimum']} to {values['maximum']}"]
    inner = [*values.get("anyOf", ()), values.get("items"), values.get("additionalProperties")]
    return limits + [
        limit for one in inner if isinstance(one, dict) for limit in _limits(one, kinds)
    ]


def _resolved(values: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where another one is referred to."""
    name = values.get("$ref", "").rpartition("/")[2]
    return kinds.get(name, {}) if name else values


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def main(folders: list[str]) -> None:
    """Answer what stands on the standard input."""
    # What a module prints when it is imported is no part of the answer, whichever way it does.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    sys.path.extend(folders)
    for kind, place in orjson.loads(sys.stdin.buffer.read()):
        answers.write(orjson.dumps(asdict(describe(kind, place))) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
