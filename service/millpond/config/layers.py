"""Layers of configuration: a file over the files named by ``base_config:``, and overrides on top.

In millpond's own sections mappings are merged key by key and lists are replaced.  A section of
3DB's is replaced whole, as 3DB itself does: a policy's arguments are those of one file.
"""

from __future__ import annotations

import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from millpond.config.yaml_source import KeyPath, Source, find_place, read
from millpond.errors import ConfigError

BASE_KEY: Final = "base_config"
BASE_LEVELS_MAX: Final = 8
# Keys that say the same thing in two ways: the one in the upper layer silences the lower one.
_ALTERNATIVES: Final[tuple[KeyPath, ...]] = (("buffer", "slots"), ("buffer", "size"))


def read_with_bases(path: Path, *, own: AbstractSet[str]) -> Source:
    """Read a file and the bases that it inherits from, and merge them.

    Args:
        path: The file; paths in ``base_config`` are relative to the file that names them, or
            else to the current folder.
        own: The names of the sections that are merged key by key.

    Raises:
        ConfigError: A file cannot be read or breaks a rule, bases form a circle or are too many.
    """
    layers: list[Source] = []
    names: list[str] = []
    next_path: Path | None = path
    seen: set[str] = set()
    while next_path is not None:
        layer = read(next_path, own=own)
        seen.add(os.path.realpath(next_path))
        names.append(str(next_path))
        layers.append(layer)
        next_path = _base_of(layer, next_path)
        if next_path is None:
            break
        if os.path.realpath(next_path) in seen:
            circle = " -> ".join([*names, str(next_path)])
            raise _error(layer, f"the files inherit from each other in a circle: {circle}")
        if len(layers) > BASE_LEVELS_MAX:
            raise _error(layer, f"more than {BASE_LEVELS_MAX} levels of inheritance")
    merged = layers.pop()
    while layers:
        merged = overlay(merged, layers.pop(), own=own)
    return merged


def overlay(base: Source, over: Source, *, own: AbstractSet[str]) -> Source:
    """The upper layer's values where it has any, else the base's; neither is changed."""
    replaced: set[KeyPath] = set()
    data = _merged(base.data, over.data, (), replaced, own)
    kept = {
        path: place
        for path, place in base.places.items()
        if not any(path[:length] in replaced for length in range(1, len(path) + 1))
    }
    return Source(data, {**kept, **over.places})


def _base_of(layer: Source, path: Path) -> Path | None:
    """The file that this one inherits from, or None."""
    named = layer.data.get(BASE_KEY)
    if named is None:
        return None
    if not isinstance(named, str) or not named:
        raise _error(layer, f"found {named!r}; write the path of a YAML file")
    candidates = [path.parent / named, Path(named)]
    try:
        for candidate in candidates:
            if candidate.exists():
                return candidate
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        raise _error(layer, f"{named!r} cannot be found: {error}") from None
    tried = " nor ".join(dict.fromkeys(map(str, candidates)))
    raise _error(layer, f"there is no file {tried}")


def _error(layer: Source, problem: str) -> ConfigError:
    place = find_place(layer.places, (BASE_KEY,))
    return ConfigError(problem, key=BASE_KEY, file=place.file, line=place.line)


def _merged(
    base: dict[str, Any],
    over: dict[str, Any],
    path: KeyPath,
    replaced: set[KeyPath],
    own: AbstractSet[str],
) -> dict[str, Any]:
    """`over` on top of `base`; adds to `replaced` what is no longer the base's."""
    data = dict(base)
    for key, value in over.items():
        here = (*path, key)
        for other in _ALTERNATIVES:
            rival = here in _ALTERNATIVES and other != here and other[-1] not in over
            if rival and value is not None:
                data.pop(str(other[-1]), None)
                replaced.add(other)
        below = data.get(key)
        mergeable = path or key in own
        if mergeable and isinstance(below, dict) and value is None:
            continue  # An empty section says nothing.
        if mergeable and isinstance(below, dict) and isinstance(value, dict):
            data[key] = _merged(below, value, here, replaced, own)
            continue
        data[key] = value
        replaced.add(here)
    return data
