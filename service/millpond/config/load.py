"""Loading a configuration: the file and its bases, then the environment, then ``--set``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from millpond.config.errors import located_error
from millpond.config.layers import overlay, read_with_bases
from millpond.config.model import EXPERIMENT_SECTIONS, Config, Origin
from millpond.config.overrides import from_arguments, from_environment

OWN_SECTIONS: Final = frozenset(Config.model_fields) - frozenset(EXPERIMENT_SECTIONS)


def load(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read and check a configuration; nothing is imported, made or started.

    Args:
        path: The YAML file.
        overrides: Texts such as ``service.drain_s=3``; they win over all else.
        environ: Environment variables; those that begin with ``MILLPOND_`` win over the file.

    Raises:
        ConfigError: With file, line and key of the first problem; further ones are in its text.
    """
    path = Path(path)
    source = read_with_bases(path, own=OWN_SECTIONS)
    for layer in (from_environment(environ), from_arguments(overrides)):
        source = overlay(source, layer, own=OWN_SECTIONS)
    data = {"name": _default_name(path), **source.data}
    origin = Origin(Path.cwd() / path, source.data, source.places)
    try:
        return Config.model_validate(data, context=origin)
    except ValidationError as error:
        raise located_error(error, Config, source.places) from None


def _default_name(path: Path) -> str:
    """The file's name without its suffix, and with '-' for what a name cannot have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip(".-")[:64] or "millpond"
