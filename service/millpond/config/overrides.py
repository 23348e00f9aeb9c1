"""Values that are given outside the file: environment variables and ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_origin

from millpond.config.errors import key_paths, nearest, type_at
from millpond.config.model import Config
from millpond.config.yaml_source import KeyPath, Place, Source, key_text, parse_value
from millpond.errors import ConfigError

PREFIX: Final = "MILLPOND_"
# Variables that are no configuration: the tests' faults, and what marks the loggers of a daemon.
RESERVED: Final = frozenset(
    {"MILLPOND_FAULT", "MILLPOND_LOGGER", "MILLPOND_RUN", "MILLPOND_SOCKET"}
)
# The sections whose single values can be set; "" is the top.
_SETTABLE_SECTIONS: Final = frozenset({"", "buffer", "disk", "service"})


def from_environment(environ: Mapping[str, str]) -> Source:
    """What ``MILLPOND_SERVICE__DRAIN_S=3`` and its like say.

    Raises:
        ConfigError: A variable names no key that can be set, or its value is none.
    """
    variables = sorted(name for name in environ if name.startswith(PREFIX))
    layer = Source({}, {})
    for name in variables:
        if name not in RESERVED:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(layer, key, environ[name], origin=name)
    return layer


def from_arguments(arguments: Sequence[str]) -> Source:
    """What ``service.drain_s=3`` and its like say; the last of one key counts.

    Raises:
        ConfigError: A text has no ``=``, names no key that can be set, or its value is none.
    """
    layer = Source({}, {})
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError("write KEY=VALUE", file=f"--set {argument}")
        _put(layer, key.strip(), value, origin=f"--set {argument}")
    return layer


@cache
def settable_keys() -> Mapping[str, KeyPath]:
    """The keys of single values in millpond's own sections: ``service.drain_s``."""
    keys: dict[str, KeyPath] = {}
    for path in key_paths(Config):
        annotation, _ = type_at(path, Config)
        single = annotation in {int, float, bool, str, Path} or get_origin(annotation) is Literal
        section = key_text(path[:-1])
        if single and section in _SETTABLE_SECTIONS and path != ("base_config",):
            keys[key_text(path)] = path
    return keys


def _put(layer: Source, key: str, text: str, *, origin: str) -> None:
    """Add one value to the layer."""
    known = settable_keys()
    if key not in known:
        raise ConfigError(
            f"'{key}' cannot be set from outside the file{nearest(key, known) or '.'} "
            f"These can: {', '.join(known)}",
            key=key,
            file=origin,
        )
    path = known[key]
    data: dict[str, Any] = layer.data
    for step in path[:-1]:
        data = data.setdefault(str(step), {})
    data[str(path[-1])] = parse_value(text, key=key, origin=origin)
    layer.places[path] = Place(origin)
