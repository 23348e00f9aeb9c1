"""Reading one YAML file strictly, and keeping the place of every key.

Two kinds of top-level sections are told apart by name:

- *Own* sections are millpond's.  Unquoted words follow `yaml_scalars`; anchors, aliases, merge
  keys (``<<``), tags and keys that are no strings are refused.
- All others belong to 3DB and are passed through with PyYAML's ordinary `safe_load` meaning
  (`yaml_passthrough`), aliases included, because 3DB's own files use them.

Everywhere: at most 1 MiB, UTF-8, one document, a mapping at the top, no duplicate key, and bounds
on depth and on the number of values, so that no file can exhaust the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import yaml

from millpond.config.yaml_passthrough import (
    DEPTH_MAX,
    VALUE_COUNT_MAX,
    PassThrough,
    Refusal,
    line_of,
    short_tag,
)
from millpond.config.yaml_scalars import Scalar, plain_value
from millpond.errors import ConfigError

# The names of the mappings and the numbers of the list items from the top down to a value.
KeyPath: TypeAlias = tuple[str | int, ...]

FILE_BYTES_MAX: Final = 2**20  # A hundred times the longest experiment file known.
# What YAML cannot hold; found first, so that the place is exact.
_NOT_PRINTABLE: Final = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was given: a file and a line, or the text of an override without a line."""

    file: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What was read.

    Args:
        data: The mapping at the top, of plain Python values.
        places: Where each key of the own sections and each other section was given; ``()`` is
            the file itself.
    """

    data: dict[str, Any]
    places: dict[KeyPath, Place]


def key_text(path: KeyPath) -> str:
    """A key path as people write it: ``logging.logger_modules[2].name``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def find_place(places: Mapping[KeyPath, Place], path: KeyPath) -> Place:
    """The place of a key, or of the nearest section around it that was given."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, Place(""))


def read(path: Path, *, own: AbstractSet[str]) -> Source:
    """Read one file.

    Args:
        path: The file; no other is opened.
        own: The names of the top-level sections that follow our rules.

    Raises:
        ConfigError: The file cannot be read or breaks a rule; has file, line and key.
    """
    reader = _Reader(_read_text(path), file=str(path), own=own)
    return Source(reader.read_document(), reader.places)


def parse_value(text: str, *, key: str, origin: str) -> Scalar:
    """Read one value given outside a file by the rules of the own sections.

    Args:
        text: The value as YAML, such as ``3`` or ``"007"`` with quotes.
        key: The key that it is for.
        origin: Who gave it, for the message.

    Raises:
        ConfigError: It is not one value.
    """
    unprintable = _NOT_PRINTABLE.search(text)
    if unprintable:
        raise ConfigError(f"character {unprintable[0]!r} is not allowed", key=key, file=origin)
    reader = _Reader(text, file=origin, own=frozenset())
    try:
        return reader.read_scalar()
    except ConfigError as error:
        raise ConfigError(error.problem, key=key, file=origin) from None


def _read_text(path: Path) -> str:
    """The text of the file, decoded and free of control characters."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot be read: {reason}", file=file) from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"longer than {FILE_BYTES_MAX} bytes", file=file, line=1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8: save it as UTF-8", file=file, line=line) from None
    unprintable = _NOT_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        problem = f"control character {unprintable[0]!r} is not allowed"
        raise ConfigError(problem, file=file, line=line)
    return text


class _Reader:
    """Turns the events of PyYAML's parser into values, checking each as it comes."""

    def __init__(self, text: str, *, file: str, own: AbstractSet[str]) -> None:
        self.places: dict[KeyPath, Place] = {(): Place(file, 1)}
        self._text = text
        self._file = file
        self._own = own
        self._event_count = 0
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_LOADER))
        self._pass_through = PassThrough(self._next)

    def read_document(self) -> dict[str, Any]:
        """The only document, which is a mapping."""
        event = self._first_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigError("the file is empty", file=self._file, line=1)
        if not isinstance(event, yaml.MappingStartEvent):
            self._fail(event, (), "the top level must be a mapping, lines of 'key: value'")
        self._refuse_reference(event, ())
        data = self._mapping(())
        self._refuse_second_document()
        return data

    def read_scalar(self) -> Scalar:
        """The only document, which is one value."""
        event = self._first_event()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event, (), "must be one value, no list or mapping")
        self._refuse_reference(event, ())
        value = self._scalar(event, ())
        self._refuse_second_document()
        return value

    def _first_event(self) -> yaml.Event:
        self._next()  # The start of the stream.
        event = self._next()
        return self._next() if isinstance(event, yaml.DocumentStartEvent) else event

    def _refuse_second_document(self) -> None:
        self._next()  # The end of the first document.
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail(event, (), "a second document begins here; only one is read")

    def _value(self, event: yaml.Event, path: KeyPath) -> Any:
        """One value of an own section."""
        self._refuse_reference(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) > DEPTH_MAX:
            self._fail(event, path, f"more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.places[here] = self._place(event)
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            if key in data:
                first = self.places[here].line
                self._fail(event, here, f"given twice, first on line {first}; remove one")
            self.places[here] = self._place(event)
            if path or key in self._own:
                data[key] = self._value(self._next(), here)
            else:
                data[key] = self._passed_through(here)
        return data

    def _passed_through(self, path: KeyPath) -> Any:
        try:
            return self._pass_through.read(self._next())
        except Refusal as refusal:
            where = (*path, *refusal.path)
            line = refusal.line or self.places[path].line
            raise ConfigError(
                refusal.problem, key=key_text(where), file=self._file, line=line
            ) from None

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        if isinstance(event, yaml.AliasEvent) or not isinstance(event, yaml.ScalarEvent):
            self._fail(event, path, "a key must be one word")
        here = (*path, event.value)
        if event.implicit[0] and event.value == "<<":
            self._fail(event, here, "merge keys are not read here; use base_config")
        self._refuse_reference(event, here)
        key = self._scalar(event, here)
        if not isinstance(key, str) or not key:
            found = event.value or "nothing"
            self._fail(event, here, f"a key must be text: found {found}; put it into quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Scalar:
        if not event.implicit[0]:
            return str(event.value)
        try:
            return plain_value(event.value)
        except ValueError as problem:
            self._fail(event, path, str(problem))

    def _refuse_reference(self, event: yaml.Event, path: KeyPath) -> None:
        """Refuse what our sections do without: tags, anchors and aliases."""
        if isinstance(event, yaml.AliasEvent):
            self._fail(
                event, path, f"aliases (*{event.anchor}) are not read here; repeat the value"
            )
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._fail(event, path, f"anchors (&{event.anchor}) are not read here; remove it")
        tag = getattr(event, "tag", None)
        if tag:
            self._fail(event, path, f"tags ({short_tag(tag)}) are not read here; remove it")

    def _next(self) -> yaml.Event:
        try:
            event = next(self._events)
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"not valid YAML: {error}", file=self._file, line=1) from None
        self._event_count += 1
        if self._event_count > VALUE_COUNT_MAX:
            self._fail(event, (), f"more than {VALUE_COUNT_MAX} values in one file")
        return event

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> ConfigError:
        lines = self._text.splitlines() or [""]
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, len(lines)) if mark else 1
        problem = f"not valid YAML: {error.problem}"
        if error.context:
            problem += f" {error.context}"
        begin = error.context_mark.line + 1 if error.context_mark else line
        if begin < line:
            problem += f" that begins on line {begin}"
        indent = lines[line - 1][: -len(lines[line - 1].lstrip()) or None]
        if "\t" in indent and not indent.strip():
            problem += "; indent with spaces, not with tabs"
        return ConfigError(problem, file=self._file, line=line)

    def _place(self, event: yaml.Event) -> Place:
        return Place(self._file, line_of(event))

    def _fail(self, event: yaml.Event, path: KeyPath, problem: str) -> NoReturn:
        line = self._place(event).line
        raise ConfigError(problem, key=key_text(path), file=self._file, line=line)
