"""The points that a logger draws, each exactly once and at a step of its own, over all restarts.

A step is the running number of a result, from 0.  A logger may die after it has drawn points and
before the daemon knows; then those results come again.  So before points are drawn, what is known
and what is about to be drawn are put on record; when the logger starts again, the place where the
points go is asked how many of them are there, and the next step follows from that.

In the folder are ``.<name>.curve``, which says where the curve stands, ``.<name>.curve.batch``,
which says which results are drawn (see `BatchRecord`), and ``.<name>.lock``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from millpond_loggers.base import BaseLogger
from millpond_loggers.files.batch_record import BatchRecord
from millpond_loggers.files.known_keys import Key
from millpond_loggers.files.locked_file import open_locked
from millpond_loggers.files.names import open_beneath, remove_leftovers, write_atomically
from millpond_loggers.points.live_points import Point, PointReader
from millpond_loggers.points.running_accuracy import Counts, RunningAccuracy

Place = dict[str, int]
"""Where a target stands, in numbers of its own, such as the bytes in its file."""

SAVED_BYTES_MAX: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One point, ready to be drawn: tag to value, the accuracies among them."""

    point: Point
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is on record: how it stood before the last batch, and what that batch adds.

    Attributes:
        step: Points before it.
        counts: The accuracies before it.
        place: Where the target stood before it.
        added: The flags and the groups of each of its points.
        place_after: Where the target stands when all of it is there.
    """

    step: int = 0
    counts: Counts = field(default_factory=dict)
    place: Place = field(default_factory=dict)
    added: list[tuple[dict[str, bool], dict[str, str]]] = field(default_factory=list)
    place_after: Place = field(default_factory=dict)


class Target(Protocol):
    """Where the points go."""

    @property
    def batch_point_max(self) -> int:
        """How many points `write` takes at most; they are there in order, whatever happens."""

    def recorded(self, standing: Standing) -> int:
        """How many points of the last batch are there; what is torn there is removed."""

    def prepare(self, rows: list[Row], place: Place) -> Place:
        """Make the batch ready; say where the target will stand.  Nothing is written."""

    def write(self, rows: list[Row]) -> None:
        """Draw what was made ready.  It must be safe from the death of this process after that."""


class Curve:
    """Takes results, numbers them and draws them.

    Use: `log` for each result, `flush` for each batch; `close` at the end.

    Args:
        logger: Its name, options and buffer are used; the options are `LiveOptions`.
        folder: The descriptor of the folder for the records; it stays the caller's, and open.
        name: What their names begin with.
        target: Where the points go; it stays the caller's.

    Raises:
        ConfigError: An option names a channel that cannot be drawn.
        OSError: The records cannot be read, or are another process's still after some seconds.
        ValueError: They are damaged.
    """

    def __init__(self, logger: BaseLogger, folder: int, name: str, target: Target) -> None:
        self._group_count_max: int = logger.options.group_count_max
        self._buffer = logger.buffer
        self._reader = PointReader(logger.name, logger.options, logger.buffer)
        self._target = target
        self._folder = folder
        self._name = f".{name}.curve"
        self._waiting: dict[Key, Point] = {}
        self._step = 0
        self._place: Place = {}
        self._running = RunningAccuracy(self._group_count_max)
        self._is_doubtful = False  # Whether a batch failed, and some of it may be there.
        self._lock = open_locked(
            folder, f".{name}.lock", remedy="give one of the two loggers another `name`"
        )
        try:
            remove_leftovers(folder)
            self._saved = self._load()
            self._take_up(target.recorded(self._saved))
            self._record = BatchRecord(folder, self._name[1:], self._step)
        except BaseException:
            os.close(self._lock)
            raise

    def log(self, item: dict[str, Any]) -> None:
        """Take one result, unless it is drawn already; its point is drawn by `flush`.

        Raises:
            Exception: What the target raises when it is asked, after it has failed, what is there.
        """
        if self._is_doubtful:
            count = self._target.recorded(self._saved)
            self._record.settle(count)
            self._take_up(count)
        key = self._buffer.key_of(item["result_ix"])
        if key not in self._record.known and key not in self._waiting:
            self._waiting[key] = self._reader.read(item, self._step + len(self._waiting))

    def flush(self) -> None:
        """Draw the points that wait.

        Raises:
            Exception: What the target raises.  The points are forgotten: their results come again,
                and those that are there by then are not drawn twice.
        """
        points = list(self._waiting.values())
        self._waiting.clear()
        size = self._target.batch_point_max
        for start in range(0, len(points), size):
            self._write(points[start : start + size])

    def close(self) -> None:
        """Let go of the records; what waits is forgotten.  The second time does nothing."""
        self._record.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _write(self, points: list[Point]) -> None:
        running = self._running.copy()
        rows = [
            Row(point, point.scalars | running.add(point.flags, point.groups)) for point in points
        ]
        place = self._target.prepare(rows, self._place)
        self._record.begin(self._step, [point.key for point in points], [1] * len(points))
        added = [(point.flags, point.groups) for point in points]
        try:
            self._save(Standing(self._step, self._running.counts, self._place, added, place))
        except BaseException:
            self._record.settle(0)
            raise
        self._is_doubtful = True
        self._target.write(rows)
        self._is_doubtful = False
        self._record.settle(len(points))
        self._step += len(points)
        self._running, self._place = running, place

    def _take_up(self, count: int) -> None:
        """Stand where the record and the target say: `count` points of the last batch are there."""
        saved = self._saved
        running = RunningAccuracy(self._group_count_max, saved.counts)
        for flags, groups in saved.added[:count]:
            running.add(flags, groups)
        self._running = running
        self._step = saved.step + count
        self._place = saved.place_after if count == len(saved.added) else saved.place
        self._is_doubtful = False

    def _load(self) -> Standing:
        try:
            file = open_beneath(self._folder, self._name, os.O_RDONLY)
        except FileNotFoundError:
            return Standing()
        with os.fdopen(file, "rb") as content:
            text = content.read(SAVED_BYTES_MAX)
        try:
            return Standing(**orjson.loads(text))
        except (ValueError, TypeError) as problem:
            raise ValueError(
                f"{self._name} is damaged ({problem}): move its folder away, and a new curve begins"
            ) from problem

    def _save(self, standing: Standing) -> None:
        write_atomically(self._folder, self._name, orjson.dumps(standing))
        self._saved = standing
