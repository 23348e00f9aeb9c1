"""The small language of ``when:``: a condition over the numbers and words of a result.

It is read by Python's parser and walked by this file; nothing of it is ever executed.  There are::

    loss  is_correct              channels with one number; channels["camera.fov"] for odd names
    render_args.zoom              also render_args["camera.zoom"]
    id  environment  model        what the renderer sent along; item["split"] for anything else
    1  2.5  "text"  True  None    values; lists of them
    and or not  == != < <= > >=  in  not in  + - * / // %;  is with None, True and False
    abs() min() max() isnan() isfinite()
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

CHARACTERS_MAX: Final = 1000  # Python's parser is recursive.
DEPTH_MAX: Final = 60  # And so are we, with some frames for each level, on any stack.
ITEM_NAMES: Final = ("id", "environment", "model")
CONSTANTS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None}  # As in YAML.
FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "isnan": math.isnan,
    "isfinite": math.isfinite,
}
_OF_SEVERAL: Final = ("min", "max")  # The others are of one.
_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, many: value in many,
    ast.NotIn: lambda value, many: value not in many,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_SIGNS: Final[Mapping[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class Values(Protocol):
    """What an expression is about: one result."""

    def channel(self, name: str) -> bool | int | float | complex:
        """The number in a channel."""

    @property
    def item(self) -> Mapping[str, Any]:
        """``id``, ``render_args`` and whatever else the renderer sent along."""


class UndecidedError(Exception):
    """An expression that cannot be answered for this result; the message says why."""


_Term = Callable[[Values], Any]


class Expression:
    """A condition that was read; made by `parse`.

    Attributes:
        text: As it was written.
        channels: The names in it that can only be channels.
    """

    def __init__(self, text: str, channels: set[str], term: _Term) -> None:
        self.text = text
        self.channels = channels
        self._term = term

    def holds(self, values: Values) -> bool:
        """Whether it is true of a result.

        Raises:
            UndecidedError: A value is missing, or of a kind that the question makes no sense for.
        """
        try:
            return bool(self._term(values))
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            what = f"there is no {error.args[0]}" if type(error) is KeyError else str(error)
            raise UndecidedError(what) from None


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        ValueError: It is none; says where, and what is possible.
    """
    if len(text) > CHARACTERS_MAX:
        raise ValueError(f"it has {len(text)} characters, at most {CHARACTERS_MAX} are possible")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f" at character {error.offset}" if isinstance(error, SyntaxError) else ""
        hint = "; equal is written ==" if "=" in text and "==" not in text else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"{text!r} cannot be read: {said}{at}{hint}") from None
    if _depth(tree.body) > DEPTH_MAX:
        raise ValueError(f"it is nested more than {DEPTH_MAX} levels deep")
    reader = _Reader()
    term = reader.term(tree.body)
    return Expression(text, reader.channels, term)


class _Reader:
    """Makes a function of each part of an expression."""

    def __init__(self) -> None:
        self.channels: set[str] = set()

    def term(self, node: ast.expr) -> _Term:
        match node:
            case ast.Constant(bool() | int() | float() | str() | None as value):
                return lambda _: value
            case ast.Name(name):
                return self._name(name)
            case ast.List(parts) | ast.Tuple(parts):
                terms = [self.term(part) for part in parts]
                return lambda values: [term(values) for term in terms]
            case ast.Attribute(ast.Name("render_args"), name):
                return _argument(name)
            case ast.Subscript(ast.Name("render_args" | "item" | "channels" as of), index):
                return self._subscript(of, index)
            case ast.BoolOp(kind, parts):
                return self._both(kind, [self.term(part) for part in parts])
            case ast.UnaryOp(sign, part) if type(sign) in _SIGNS:
                change, inner = _SIGNS[type(sign)], self.term(part)
                return lambda values: change(inner(values))
            case ast.BinOp(left, sign, right) if type(sign) in _ARITHMETIC:
                return self._arithmetic(_ARITHMETIC[type(sign)], left, right)
            case ast.Compare(left, signs, parts) if all(type(s) in _COMPARISONS for s in signs):
                return self._comparison(left, signs, parts)
            case ast.Call(ast.Name(name), parts, []) if name in FUNCTIONS:
                if len(parts) < 2 if name in _OF_SEVERAL else len(parts) != 1:
                    count = "two values or more" if name in _OF_SEVERAL else "one value"
                    raise ValueError(f"{ast.unparse(node)!r}: {name} is of {count}")
                function, terms = FUNCTIONS[name], [self.term(part) for part in parts]
                return lambda values: function(*[term(values) for term in terms])
        raise ValueError(self._refused(node))

    def _name(self, name: str) -> _Term:
        if name in CONSTANTS:
            return lambda _: CONSTANTS[name]
        if name in ITEM_NAMES:
            return lambda values: values.item[name]
        if name in ("render_args", "item", "channels"):
            raise ValueError(f"{name} must be followed by a name, such as {name}['...']")
        self.channels.add(name)
        return lambda values: values.channel(name)

    def _subscript(self, of: str, index: ast.expr) -> _Term:
        if not (isinstance(index, ast.Constant) and isinstance(index.value, str)):
            raise ValueError(f"write {of}['name'], not {of}[{ast.unparse(index)}]")
        name = index.value
        if of == "render_args":
            return _argument(name)
        if of == "item":
            return lambda values: values.item[name]
        self.channels.add(name)
        return lambda values: values.channel(name)

    def _both(self, kind: ast.boolop, terms: list[_Term]) -> _Term:
        if isinstance(kind, ast.And):
            return lambda values: all(term(values) for term in terms)
        return lambda values: any(term(values) for term in terms)

    def _arithmetic(
        self, compute: Callable[[Any, Any], Any], left: ast.expr, right: ast.expr
    ) -> _Term:
        first, second = self.term(left), self.term(right)
        # Of numbers only: a text times a billion is a question of memory.
        return lambda values: compute(_number(first(values)), _number(second(values)))

    def _comparison(self, left: ast.expr, signs: list[ast.cmpop], parts: list[ast.expr]) -> _Term:
        for sign, part in zip(signs, parts, strict=True):
            if isinstance(sign, ast.Is | ast.IsNot) and not _is_singular(part):
                # Two equal numbers are the same object only now and then.
                equal = "==" if isinstance(sign, ast.Is) else "!="
                raise ValueError(
                    f"'is' asks for None, True or False; write {equal} {ast.unparse(part)}"
                )
        terms = [self.term(part) for part in (left, *parts)]
        compares = [_COMPARISONS[type(sign)] for sign in signs]

        def holds(values: Values) -> bool:
            first = terms[0](values)
            for compare, term in zip(compares, terms[1:], strict=True):
                second = term(values)
                if not compare(first, second):
                    return False
                first = second
            return True

        return holds

    def _refused(self, node: ast.expr) -> str:
        part = ast.unparse(node)
        if isinstance(node, ast.Call):
            return f"{part!r}: the functions are {', '.join(FUNCTIONS)}"
        return f"{part!r} is not possible here; see docs/filters.md for what is"


def _depth(node: ast.expr) -> int:
    """How deep its parts lie in each other."""
    depth = 0
    level: list[ast.AST] = [node]
    while level:
        depth += 1
        level = [inner for one in level for inner in ast.iter_child_nodes(one)]
    return depth


def _is_singular(node: ast.expr) -> bool:
    match node:
        case ast.Constant(None | True | False):
            return True
        case ast.Name(name):
            return name in CONSTANTS
    return False


def _argument(name: str) -> _Term:
    def value(values: Values) -> Any:
        arguments = values.item.get("render_args", {})
        if name not in arguments:
            raise KeyError(f"render_args[{name!r}]")
        return arguments[name]

    return value


def _number(value: Any) -> Any:
    if not isinstance(value, bool | int | float | complex):
        raise TypeError(f"{value!r} is not a number")
    return value
