"""A logger that writes one row for each result to ``details.csv``, or to the file of an option.

The columns are ``id``, then ``environment``, ``model`` and whatever else the renderer sent along,
then the scalar channels in the order of their declaration, then the render arguments.  A result
without one of them has an empty cell there.  When a result brings a new one, the file is copied
once with one more column at its end, so that every row has the header's columns, always.

A file that is there already is continued under its header; results that are equal have equal rows.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pydantic import Field

from millpond_loggers.audit import Channels, open_to_read
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.parts import instance_name
from millpond_loggers.files.row_file import RowFile
from millpond_loggers.json_logger import to_json
from millpond_loggers.options import FileName

FILE_NAME: Final = "details.csv"
# A bound against renderers that put data into the names of their arguments; each new name
# costs a copy of the file, and spreadsheets end at 16,384.
COLUMN_COUNT_MAX: Final = 4096
# Renderers send few different sets of arguments; this many are remembered.
PLANS_MAX: Final = 256
# Fields of a result that have their column whatever the channels are called.
FIELDS: Final = ("id", "environment", "model")
# What a spreadsheet takes for a formula, also behind blanks, and in wide letters.
# Source: OWASP, CSV Injection.
_FORMULA: Final = re.compile(r"[\s\x00\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
# The types whose shortest digits only numpy knows: 0.1, where a Python float has 0.10000000149.
_TEXT_DTYPES: Final = frozenset({"float16", "float32", "complex64", "complex128"})


class CSVOptions(Options):
    """The options of the CSV logger."""

    file: FileName = Field(
        FILE_NAME, description="Its name in the output folder; two CSV loggers need two."
    )
    escape_formulas: bool = Field(
        True, description="Put ' before text that a spreadsheet would compute."
    )


@dataclass(frozen=True, slots=True)
class _ChannelColumn:
    name: str
    column: str
    index: tuple[int, ...]  # Of the one number in the array.
    as_text: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the values of results go that have the same fields and render arguments."""

    channels: tuple[int, ...]
    fields: tuple[tuple[int, str], ...]
    arguments: tuple[int, ...]


class CSVLogger(BaseLogger):
    """Writes the table."""

    Options = CSVOptions

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the file, and take over the columns that it has.

        Raises:
            OSError: It cannot be opened.
            ValueError: It is not a file of this logger.
        """
        super().__init__(root_dir, result_buffer, config)
        self._escapes: bool = self.options.escape_formulas
        self._line = _Line()
        # "\r\n" so that cells with either are quoted; the row itself ends with "\n".
        self._writer = csv.writer(self._line, lineterminator="\r\n")
        self._channels: list[_ChannelColumn] | None = None
        self._plans: dict[tuple[str, ...], _Plan] = {}
        file = instance_name(self.options.file, self.instance, self.instances)
        self._rows = RowFile(root_dir, file, starts_with=b"id", is_csv=True)
        try:
            self._columns = _read_header(self._rows.header, file)
        except ValueError:
            self._rows.close()
            raise
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take the row of one result; it is written by `flush`.

        Raises:
            OSError: A new column came, and the file could not be copied.  Nothing has changed.
            ValueError: There are more columns than `COLUMN_COUNT_MAX`, or two of one name.
        """
        if item is None:
            self.end()
            return
        values = self._channel_values(item["result_ix"])
        arguments = item["render_args"]
        names = (*item, "", *arguments)
        plan = self._plans.get(names) or self._new_plan(names, item)
        cells: list[Any] = [""] * len(self._columns)
        for place, name in plan.fields:
            cells[place] = self._cell(item[name])
        for place, value in zip(plan.channels, values, strict=True):
            cells[place] = value
        for place, value in zip(plan.arguments, arguments.values(), strict=True):
            cells[place] = self._cell(value)
        self._rows.append(self._row(cells), self.buffer.key_of(item["result_ix"]))

    def flush(self) -> None:
        """Write the rows of this batch, or none of them.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._rows.flush()

    def end(self) -> None:
        """Write what waits and close the file."""
        self._rows.close()

    def _channel_values(self, result_ix: int) -> list[Any]:
        channels = self._channels
        if channels is None:
            channels = self._channels = _scalar_channels(self.buffer)
        arrays = self.buffer[result_ix]
        return [
            str(arrays[channel.name][channel.index])
            if channel.as_text
            else arrays[channel.name].item()
            for channel in channels
        ]

    def _cell(self, value: Any) -> Any:
        """What the csv module is given: it writes floats by repr, and None as nothing."""
        if isinstance(value, str):
            if self._escapes and _FORMULA.match(value):
                return "'" + value
            return value
        if value is None or isinstance(value, int | float):
            return value
        return to_json(value).decode()

    def _row(self, cells: Sequence[Any]) -> bytes:
        self._writer.writerow(cells)
        return (self._line.text[:-2] + "\n").encode("utf-8", "backslashreplace")

    def _new_plan(self, names: tuple[str, ...], item: dict[str, Any]) -> _Plan:
        """Find the column of every value, and make those that are missing."""
        channels = [channel.column for channel in self._channels or ()]
        known = [name for name in FIELDS if name in item]
        others = sorted(set(item) - {*FIELDS, "render_args", "result_ix"})
        other_columns = [_free_name(name, "item", {*FIELDS, *channels}) for name in others]
        taken = {*FIELDS, *channels, *other_columns}
        arguments = [_free_name(name, "render_args", taken) for name in item["render_args"]]
        columns = [*known, *other_columns, *channels, *arguments]
        if len(set(columns)) < len(columns):
            raise ValueError(f"two values of a result have the same column: {columns}")
        self._add_columns([name for name in columns if name not in self._columns])
        place = self._columns
        plan = _Plan(
            tuple(place[name] for name in channels),
            tuple(
                (place[column], name)
                for column, name in zip(known + other_columns, known + others, strict=True)
            ),
            tuple(place[name] for name in arguments),
        )
        if len(self._plans) == PLANS_MAX:
            self._plans.clear()
        self._plans[names] = plan
        return plan

    def _add_columns(self, names: list[str]) -> None:
        if not names:
            return
        columns = [*self._columns, *names]
        if len(columns) > COLUMN_COUNT_MAX:
            raise ValueError(
                f"{len(columns)} columns, at most {COLUMN_COUNT_MAX} are possible; "
                f"the new ones are {names[:5]}"
            )
        self._rows.widen(self._row(columns), b"," * len(names))
        self._columns = {name: place for place, name in enumerate(columns)}

    @staticmethod
    def recorded(root_dir: str, options: CSVOptions, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is in the file, as it is written there; nothing is changed.

        Raises:
            OSError: It cannot be read.
        """
        with open_to_read(root_dir, options.file) as file:
            text = (line.decode() for line in file if line.endswith(b"\n"))
            counts: Counter[str] = Counter()
            # A last row that a crash has torn is no row; where it has quotes, it is an error.
            with suppress(csv.Error):
                counts.update(row[0] for row in islice(csv.reader(text, strict=True), 1, None))
            return counts

    @staticmethod
    def written_id(id: str, options: CSVOptions) -> str:
        """An id as it is in the file."""
        is_escaped = options.escape_formulas and _FORMULA.match(id)
        return ("'" + id if is_escaped else id).encode("utf-8", "backslashreplace").decode()


Logger = CSVLogger


class _Line:
    """Where the csv module writes: keeps the last line."""

    text = ""

    def write(self, text: str, /) -> None:
        self.text = text


def _scalar_channels(buffer: ResultBuffer) -> list[_ChannelColumn]:
    return [
        _ChannelColumn(
            name,
            _free_name(name, "channels", set(FIELDS)),
            (0,) * len(shape),
            dtype in _TEXT_DTYPES,
        )
        for name, (shape, dtype) in buffer.channels.items()
        if len(shape) <= 1 and math.prod(shape) == 1
    ]


def _free_name(name: str, prefix: str, taken: set[str]) -> str:
    """The name of a column; with a prefix if the plain one is taken, or is no safe text.

    The same value has the same column after every restart, for this depends on nothing but the
    result at hand.
    """
    name = name.encode("utf-8", "backslashreplace").decode()  # As the file will have it.
    if name in taken or not name or name.startswith(prefix + ".") or _FORMULA.match(name):
        return f"{prefix}.{name}"
    return name


def _read_header(header: bytes | None, file: str) -> dict[str, int]:
    """Name to place of the columns that the file has."""
    if header is None:
        return {}
    names = next(csv.reader([header.decode("utf-8")]))
    columns = {name: place for place, name in enumerate(names)}
    if names[0] != "id" or len(columns) < len(names):
        raise ValueError(
            f"{file} has the columns {names}, so it is not a file of this logger; "
            "move it away or choose another output folder"
        )
    return columns
