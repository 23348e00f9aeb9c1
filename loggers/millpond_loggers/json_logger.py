"""A logger that writes a JSON object for each result to ``details.log``, as 3DB has it.

A line is, in this order: ``id``, ``environment``, ``model``, ``render_args``, whatever else the
renderer sent along, the scalar and small channels as numbers and nested lists, ``output_type``.
It is strict JSON: NaN and the infinities are null.  Larger arrays are left out.  The option
``file`` gives the file another name; one that is there already is continued.

``output_type`` says in 3DB what the channel ``output`` holds.  3DB imports the evaluator to ask;
nothing of the user's is imported here: it is ``evaluation.output_type`` of the configuration,
else what is known of 3DB's own evaluators, else left out.

``class_maps.json`` is a copy of the file that ``inference.label_map`` names, byte for byte.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from pydantic import Field

from millpond.errors import ConfigError
from millpond_loggers.audit import Channels, open_to_read
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.names import open_folder, remove_leftovers, write_atomically
from millpond_loggers.files.parts import instance_name
from millpond_loggers.files.row_file import RowFile
from millpond_loggers.options import FileName

FILE_NAME: Final = "details.log"
CLASS_MAPS_NAME: Final = "class_maps.json"
# The fields of a line that lead it; channels of these names become ``channels.<name>``.
LEADING_FIELDS: Final[tuple[str, ...]] = ("id", "environment", "model", "render_args")
# Source: threedb/evaluators/classification.py and detection.py.
OUTPUT_TYPES: Final[Mapping[str, str]] = {
    "threedb.evaluators.classification": "classes",
    "threedb.evaluators.detection": "bboxes",
}
# What renderers send along is the same from result to result; this many kinds are remembered.
PLANS_MAX: Final = 256


class JSONOptions(Options):
    """The options of the JSON logger."""

    file: FileName = Field(
        FILE_NAME, description="Its name in the output folder; two JSON loggers need two."
    )
    array_elements_max: int = Field(
        64, ge=1, description="Channels with more numbers than this are left out."
    )


class JSONLogger(BaseLogger):
    """Writes the lines and, if there is a label map, ``class_maps.json``."""

    Options = JSONOptions

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the file, and copy the label map.

        Raises:
            ConfigError: The label map cannot be read.
            OSError: A file cannot be written.
            ValueError: The file is not one of this logger.
        """
        super().__init__(root_dir, result_buffer, config)
        class_maps = _class_maps(config)
        self._output_type = _output_type(config)
        self._channels: list[tuple[str, str, bool]] | None = None  # Key, channel, is a scalar.
        self._plans: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # Key, field of the item.
        if class_maps is not None:
            _write(root_dir, CLASS_MAPS_NAME, class_maps)
        file = instance_name(self.options.file, self.instance, self.instances)
        self._rows = RowFile(root_dir, file, starts_with=b"{")
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take the line of one result; it is written by `flush`."""
        if item is None:
            self.end()
        else:
            self._rows.append(self._line(item), self.buffer.key_of(item["result_ix"]))

    def flush(self) -> None:
        """Write the lines of this batch, or none of them.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._rows.flush()

    def end(self) -> None:
        """Write what waits and close the file."""
        self._rows.close()

    def _line(self, item: dict[str, Any]) -> bytes:
        channels = self._channels
        if channels is None:
            channels = self._channels = self._plan_channels()
        names = tuple(item)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan_fields(names)
        line = {key: item[name] for key, name in plan}
        arrays = self.buffer[item["result_ix"]]
        for key, name, is_scalar in channels:
            line[key] = arrays[name][()] if is_scalar else arrays[name]
        if self._output_type is not None:
            line.setdefault("output_type", self._output_type)
        return to_json(line) + b"\n"

    def _plan_channels(self) -> list[tuple[str, str, bool]]:
        renamed = {*LEADING_FIELDS, "output_type"}
        return [
            (
                f"channels.{name}" if name in renamed or name.startswith("channels.") else name,
                name,
                shape == (),
            )
            for name, (shape, _) in self.buffer.channels.items()
            if math.prod(shape) <= self.options.array_elements_max
        ]

    def _plan_fields(self, names: tuple[str, ...]) -> list[tuple[str, str]]:
        taken = {key for key, _, _ in self._channels or ()}
        others = sorted(set(names) - {*LEADING_FIELDS, "result_ix"})
        plan = [(name, name) for name in LEADING_FIELDS if name in names]
        plan += [(f"item.{name}" if name in taken else name, name) for name in others]
        if len(self._plans) == PLANS_MAX:
            self._plans.clear()
        self._plans[names] = plan
        return plan

    @staticmethod
    def recorded(root_dir: str, options: JSONOptions, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is in the file; nothing is changed.

        Raises:
            OSError: It cannot be read.
        """
        with open_to_read(root_dir, options.file) as file:
            # A last line that a crash has torn is no line.
            ids = (_id(line) for line in file if line.endswith(b"\n"))
            return Counter(id for id in ids if id is not None)


Logger = JSONLogger


def to_json(value: Any) -> bytes:
    """Strict JSON of plain values and arrays: NaN and the infinities are null.

    Complex numbers are ``[real, imaginary]``.  Whole numbers may have any size, and strings any
    characters.
    """
    try:
        return orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:
        # Beyond 64 bits, or half a surrogate pair: rare, so it may take its time.
        return json.dumps(_strict(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """What orjson does not know: complex numbers, and arrays that it cannot read in place."""
    if isinstance(value, np.ndarray | np.generic):
        if np.iscomplexobj(value):
            return np.stack([value.real, value.imag], axis=-1)
        return value.tolist()
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _id(line: bytes) -> str | None:
    """The id in a line; None if it has none."""
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    return found.get("id") if isinstance(found, dict) else None


def _strict(value: Any) -> Any:
    """The value as the standard library's encoder takes it."""
    match value:
        case dict():
            return {str(key): _strict(part) for key, part in value.items()}
        case list() | tuple():
            return [_strict(part) for part in value]
        case None | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case _:
            return orjson.loads(orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY))


def _output_type(config: Mapping[str, Any]) -> str | None:
    evaluation = config.get("evaluation") or {}
    known = OUTPUT_TYPES.get(str(evaluation.get("module")))
    stated: str | None = evaluation.get("output_type", known)
    return stated


def _class_maps(config: Mapping[str, Any]) -> bytes | None:
    """The bytes of ``class_maps.json``, or None if there is no label map."""
    label_map = (config.get("inference") or {}).get("label_map")
    if label_map is None:
        return None
    if not isinstance(label_map, str):
        return to_json(label_map)
    try:
        return Path(label_map).read_bytes()
    except OSError as problem:
        raise ConfigError(
            f"the file {label_map!r} cannot be read: {problem.strerror}", key="inference.label_map"
        ) from problem


def _write(root_dir: str, name: str, content: bytes) -> None:
    folder = open_folder(root_dir)
    try:
        remove_leftovers(folder)
        write_atomically(folder, name, content)
    finally:
        os.close(folder)
