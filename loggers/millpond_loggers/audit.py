"""Comparing the files of one logger with what it is said to have: ``python -m`` this, by `verify`.

On the standard input comes a line of JSON that says which logger, then one for each id::

    {"root_dir": ..., "kind": ..., "place": ..., "options": {...}, "channels": {...}, "folders": [],
     "instances": 1, "wanted": null}
    ["000001", 1, 0]    the id, how many results of it were delivered, how many more there are

On the standard output goes one JSON object, see `Findings`.  A logger takes part if its class has
one of two methods::

    recorded(root_dir, options, channels) -> Counter[str]
        How often each id is in its files; with written_id(id, options) -> str, if an id is not
        written as it is.  If the logger has several processes and an option ``file``, it is asked
        for the file of each.
    is_recorded(root_dir, options, channels) -> Callable[[str], bool]
        Whether all that it writes for an id is there.

Nothing is written.  Logger classes are loaded as a logger process does, but none is made.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import orjson
from pydantic import BaseModel

from millpond.core.layout import channels_from_json
from millpond.errors import ConfigError
from millpond_loggers.files.names import open_beneath, open_folder
from millpond_loggers.files.parts import instance_name
from millpond_loggers.options import check_options
from millpond_loggers.plugin import PluginError, load

Channels = Mapping[str, tuple[tuple[int, ...], str]]
"""Name to shape and dtype, in the order of declaration."""
Expected = Mapping[str, tuple[int, int]]


@dataclass
class Findings:
    """What was found.

    Attributes:
        not_checked: Why nothing was compared; empty if it was.
        expected: Results that should be there.
        missing: Id to how many of its results are not there.
        extra: Id, as it is written, to how many results are there beyond all that there are.
        unacknowledged: Results that are there, though they were not delivered: written, and then
            the logger or the daemon died before it could say so.
    """

    not_checked: str = ""
    expected: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    extra: dict[str, int] = field(default_factory=dict)
    unacknowledged: int = 0


def compare(logger: Mapping[str, Any], expected: Expected) -> Findings:
    """Compare the files of a logger with what it is said to have.

    Args:
        logger: The first line of the input.
        expected: Id to how many of its results were delivered, and how many more there are.
    """
    try:
        made: Any = load(logger["kind"], logger["place"])
        if not (hasattr(made, "recorded") or hasattr(made, "is_recorded")):
            return Findings(not_checked="this logger does not say what it has recorded")
        options = logger["options"]
        if hasattr(made, "Options"):
            options = check_options(made.Options, options)
        channels = None if logger["channels"] is None else _shapes(logger["channels"])
        wanted = logger.get("wanted")
        if channels is not None and wanted is not None:
            channels = {name: channels[name] for name in channels if name in wanted}
        if hasattr(made, "recorded"):
            write = getattr(made, "written_id", lambda id, _: id)
            return _compare_counts(
                _recorded(made, logger, options, channels or {}),
                expected,
                lambda id: write(id, options),
            )
        if channels is None:
            return Findings(not_checked="the ledger does not say which channels there were")
        return _compare_ids(made.is_recorded(logger["root_dir"], options, channels), expected)
    except (PluginError, ConfigError, OSError, ValueError) as error:
        return Findings(not_checked=str(error).strip().splitlines()[-1])


def _recorded(
    made: Any, logger: Mapping[str, Any], options: Any, channels: Channels
) -> Counter[str]:
    instances = logger.get("instances", 1)
    parts = [options]
    if instances > 1 and isinstance(options, BaseModel) and hasattr(options, "file"):
        parts = [
            options.model_copy(update={"file": instance_name(options.file, number, instances)})
            for number in range(1, instances + 1)
        ]
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(made.recorded(logger["root_dir"], part, channels))
    return counts


def open_to_read(root_dir: str, name: str) -> BinaryIO:
    """Open a file in the output folder, or nothing if it is not there.

    Raises:
        OSError: It cannot be opened, or is a symlink.
    """
    folder = open_folder(root_dir)
    try:
        return os.fdopen(open_beneath(folder, name, os.O_RDONLY), "rb")
    except FileNotFoundError:
        return io.BytesIO()
    finally:
        os.close(folder)


def _compare_counts(
    recorded: Counter[str], expected: Expected, write: Callable[[str], str]
) -> Findings:
    findings = Findings()
    wanted: Counter[str] = Counter()
    possible: Counter[str] = Counter()
    ids: dict[str, str] = {}
    for id, (delivered, others) in expected.items():
        written = write(id)
        ids[written] = id
        wanted[written] += delivered
        possible[written] += others
    for written, count in wanted.items():
        findings.expected += count
        found = recorded[written]
        if found < count:
            findings.missing[ids[written]] = count - found
    for written, found in recorded.items():
        beyond = found - wanted[written]
        if beyond > 0:
            findings.unacknowledged += min(beyond, possible[written])
            if beyond > possible[written]:
                findings.extra[written] = beyond - possible[written]
    return findings


def _compare_ids(is_recorded: Callable[[str], bool], expected: Expected) -> Findings:
    findings = Findings()
    for id, (delivered, _) in expected.items():
        if delivered:
            findings.expected += delivered
            if not is_recorded(id):
                findings.missing[id] = delivered
    return findings


def _shapes(channels: object) -> dict[str, tuple[tuple[int, ...], str]]:
    return {c.name: (c.shape, c.dtype) for c in channels_from_json(channels)}


def main(lines: Iterable[bytes]) -> bytes:
    """Read the input, compare, and make the output."""
    rest = iter(lines)
    logger = orjson.loads(next(rest))
    expected = {}
    for line in rest:
        id, delivered, others = orjson.loads(line)
        expected[id] = (delivered, others)
    sys.path.extend(logger["folders"])
    return orjson.dumps(asdict(compare(logger, expected)))


if __name__ == "__main__":
    # What a module prints when it is imported is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        answer = main(sys.stdin.buffer)
    sys.stdout.buffer.write(answer)
