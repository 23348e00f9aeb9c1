"""The sections that are 3DB's: read as PyYAML's `safe_load` reads them, with bounds.

Aliases and merge keys work, since files written by `yaml.dump` have them.  They cannot explode:
an alias counts as often as it stands, in values and in depth.  ``!!python/tuple``, which 3DB's
own examples use for ranges, gives a tuple; every other tag of a program is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

DEPTH_MAX: Final = 64  # Deeper than any experiment, and far from Python's own limit.
VALUE_COUNT_MAX: Final = 50_000  # Read in half a second; experiments have hundreds.
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_TUPLE_TAG: Final = "tag:yaml.org,2002:python/tuple"


def line_of(event: yaml.Event) -> int:
    """The line where it begins, counted from 1."""
    return event.start_mark.line + 1 if event.start_mark else 1


def short_tag(tag: object) -> str:
    """The tag as people write it: ``!!int``."""
    return str(tag).replace("tag:yaml.org,2002:", "!!")


class Refusal(Exception):
    """A value that may not be read.

    Args:
        problem: What is wrong.
        path: The keys from the section down to it.
        line: The line, counted from 1; None when it is not known.
    """

    def __init__(self, problem: str, path: tuple[str | int, ...], line: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class _Size:
    """What a node comes to when every alias in it is written out."""

    value_count: int
    depth: int


def _construct_tuple(constructor: SafeConstructor, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(constructor.construct_sequence(node, deep=True))


class _Constructor(SafeConstructor):
    """`safe_load`'s own, and tuples."""

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        **SafeConstructor.yaml_constructors,
        _TUPLE_TAG: _construct_tuple,
    }


class PassThrough:
    """Reads values from a stream of events; anchors are known until the end of the file.

    Args:
        next_event: Gives the event after the last one.
    """

    def __init__(self, next_event: Callable[[], yaml.Event]) -> None:
        self._next = next_event
        self._resolve: Callable[..., Any] = Resolver().resolve
        self._anchors: dict[str, yaml.Node] = {}
        self._sizes: dict[int, _Size] = {}  # By the identity of nodes, which `_nodes` keeps.
        self._nodes: list[yaml.Node] = []

    def read(self, event: yaml.Event) -> Any:
        """The value that begins with this event.

        Raises:
            Refusal: It breaks a rule; the stream cannot be read further.
        """
        node = self._node(event, ())
        try:
            return _Constructor().construct_document(node)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            raise Refusal(str(error.problem), (), line) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What PyYAML lets through for `!!int x`, `!!bool x`, 2026-99-99 and their like.
            problem = f"a value does not fit its type: {error}"
            raise Refusal(problem, (), line_of(event)) from None

    def _node(self, event: yaml.Event, path: tuple[str | int, ...]) -> yaml.Node:
        if len(path) > DEPTH_MAX:
            self._fail(event, path, f"more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._fail(event, path, f"alias *{event.anchor} has no finished anchor above it")
            return self._anchors[event.anchor]
        assert isinstance(event, yaml.NodeEvent)
        tag = self._tag(event, path)
        node: yaml.Node
        begin: Any = event.start_mark
        end: Any = event.end_mark
        if isinstance(event, yaml.ScalarEvent):
            node = yaml.ScalarNode(tag, event.value, begin, end)
            children = []
        elif isinstance(event, yaml.SequenceStartEvent):
            children = self._items(path)
            node = yaml.SequenceNode(tag, children, begin, end)
        else:
            pairs = self._pairs(path)
            children = [child for pair in pairs for child in pair]
            node = yaml.MappingNode(tag, pairs, begin, end)
        self._measure(node, children, event, path)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _items(self, path: tuple[str | int, ...]) -> list[yaml.Node]:
        items: list[yaml.Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _pairs(self, path: tuple[str | int, ...]) -> list[tuple[yaml.Node, yaml.Node]]:
        pairs: list[tuple[yaml.Node, yaml.Node]] = []
        seen: set[tuple[str, str]] = set()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, (*path, "?"))
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            here = (*path, name)
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                if (key.tag, key.value) in seen:
                    self._fail(event, here, "given twice; remove one")
                seen.add((key.tag, key.value))
            pairs.append((key, self._node(self._next(), here)))
        return pairs

    def _tag(self, event: yaml.NodeEvent, path: tuple[str | int, ...]) -> str:
        if isinstance(event, yaml.ScalarEvent):
            kind: type[yaml.Node] = yaml.ScalarNode
            value: str | None = event.value
            implicit: Any = event.implicit
        else:
            assert isinstance(event, yaml.CollectionStartEvent)
            sequence = isinstance(event, yaml.SequenceStartEvent)
            kind = yaml.SequenceNode if sequence else yaml.MappingNode
            value, implicit = None, event.implicit
        tag = getattr(event, "tag", None)
        if tag in (None, "!"):
            return str(self._resolve(kind, value, implicit))
        if tag not in _Constructor.yaml_constructors:
            self._fail(event, path, f"the tag {short_tag(tag)} is not read; remove it")
        if tag == _TUPLE_TAG and kind is not yaml.SequenceNode:
            self._fail(event, path, "!!python/tuple needs a list")
        return str(tag)

    def _measure(
        self,
        node: yaml.Node,
        children: list[yaml.Node],
        event: yaml.Event,
        path: tuple[str | int, ...],
    ) -> None:
        """Note the size of a node; refuse one that is too large."""
        sizes = [self._sizes[id(child)] for child in children]
        size = _Size(
            1 + sum(child.value_count for child in sizes),
            1 + max((child.depth for child in sizes), default=0),
        )
        if size.value_count > VALUE_COUNT_MAX:
            problem = f"more than {VALUE_COUNT_MAX} values when every alias is written out"
            self._fail(event, path, problem)
        if size.depth > DEPTH_MAX:
            problem = f"more than {DEPTH_MAX} levels deep when every alias is written out"
            self._fail(event, path, problem)
        self._sizes[id(node)] = size
        self._nodes.append(node)

    def _fail(self, event: yaml.Event, path: tuple[str | int, ...], problem: str) -> NoReturn:
        raise Refusal(problem, path, line_of(event))
