"""What an unquoted word of our sections means: the core rules of YAML 1.2, and no surprises.

PyYAML follows YAML 1.1, where ``no`` is false, ``12:30`` is 750 and ``017`` is 15.  In our own
sections such words are refused, because two readers would understand them differently.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BOOLS_OF_OLD: Final = frozenset(
    form
    for word in ("yes", "no", "on", "off", "y", "n")
    for form in (word, word.title(), word.upper())
)
_INT: Final = re.compile(r"[-+]?[0-9]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_OCTAL: Final = re.compile(r"[-+]?0[0-9_]+|[-+]?0[oO][0-7_]+")
_BINARY: Final = re.compile(r"[-+]?0b[01_]+")
# More digits than any number of ours; Python refuses to read more than 4300.
_DIGITS_MAX: Final = 100


def plain_value(text: str) -> Scalar:
    """What an unquoted word stands for; a string when it is nothing else.

    Raises:
        ValueError: It means different things to different readers; says what to write.
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    _refuse_ambiguous(text)
    if _INT.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _refuse_ambiguous(text: str) -> None:
    if text in _BOOLS_OF_OLD:
        raise ValueError(f"found {text} without quotes: write true or false, or put it into quotes")
    if _BASE_60.fullmatch(text):
        raise ValueError(
            f"found {text} without quotes, which is a base-60 number to some readers: "
            "write a plain number, or put it into quotes"
        )
    if _OCTAL.fullmatch(text) or _BINARY.fullmatch(text):
        raise ValueError(
            f"found {text} without quotes, which is an octal or binary number to some readers: "
            "write it as a decimal number without leading zeros, or put it into quotes"
        )
    if len(text) > _DIGITS_MAX and (_INT.fullmatch(text) or _HEX.fullmatch(text)):
        raise ValueError(
            f"found a number of {len(text)} digits: put it into quotes if it is a text"
        )
