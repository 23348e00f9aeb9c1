"""The files of a logger that runs in several processes: each writes its own."""

from __future__ import annotations

from pathlib import PurePath


def instance_name(name: str, instance: int, instances: int) -> str:
    """What one of the processes of a logger calls its file.

    Args:
        name: What the only process would call it, such as ``details.csv``.
        instance: Which process it is, from 1.
        instances: How many there are; with one, the name stays as it is.

    Returns:
        ``details-2.csv`` for the second of several.
    """
    if instances == 1:
        return name
    place = PurePath(name)
    return f"{place.stem}-{instance}{place.suffix}"
