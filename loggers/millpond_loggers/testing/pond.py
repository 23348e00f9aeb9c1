"""A pond in this process: real results in real shared memory, given to a logger by the real runner.

Nothing is started: an error that the logger raises is raised here, a debugger stops in it, and what
it has written can be looked at after each call.
"""

from __future__ import annotations

import gc
import itertools
import math
import mmap
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from millpond.client_values import channels_of, encode_job, unknown_channel, write_value
from millpond.core.layout import Channel, Layout, plan
from millpond.core.wire import SETUP_BYTES_MAX, FrameReader, Kind, pack
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment
from millpond_loggers.process.logger_setup import make_logger
from millpond_loggers.process.runner import Runner
from millpond_loggers.testing.abandoned import abandon_files
from millpond_loggers.testing.points import Watch, WatchedWords, watch_logger

Key = tuple[int, int]
# No two ponds have results of the same key: they are renderers of one run.
_renderers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What a renderer has published.

    Attributes:
        id: Its id.
        render_args: Its render arguments.
        fields: What the renderer sent along, such as ``environment`` and ``model``.
        arrays: Channel name to value; channels that are missing are 0.
        key: What `ResultBuffer.key_of` gives for it, however often it is delivered.
    """

    id: str
    render_args: Mapping[str, Any]
    fields: Mapping[str, Any]
    arrays: Mapping[str, Any]
    key: Key


@dataclass(slots=True)
class _Raised:
    """Keeps what the runner would tell the daemon."""

    errors: dict[int, Exception] = field(default_factory=dict)

    def raised(self, slot: int, generation: int, error: Exception) -> None:  # noqa: ARG002
        self.errors[slot] = error


def _look_away(_: str) -> None:
    """Watch nothing."""


class MemoryPond:
    """Gives results to a logger, as the daemon does.

    Args:
        root_dir: The folder for the logger's files; it is made.
        channels: As a renderer declares them: ``{"rgb": ((3, 8, 8), "float32")}``.
        slots: How many results there is room for: the most in a batch, and the most that a logger
            can keep.
        options: The ``options:`` of the logger.
        name: Its name.
        config: The rest of the experiment file.
        instance: Which of its processes it is, from 1.
        instances: How many there are.
        wanted: Its ``channels:``; None: all.
        arrays: Its ``arrays:``: ``numpy``, ``torch``, or None for what suits it.

    Attributes:
        root_dir: The folder.
        logger: The logger, while it runs.
        released: What the logger was given and has released, in this order: it must be safe.
        result_count: How many results were made.

    Raises:
        InvalidResult: The channels are not possible.
    """

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        channels: Mapping[str, Any],
        *,
        slots: int = 8,
        options: Mapping[str, Any] | None = None,
        name: str = "mine",
        config: Mapping[str, Any] | None = None,
        instance: int = 1,
        instances: int = 1,
        wanted: Sequence[str] | None = None,
        arrays: str | None = None,
    ) -> None:
        self.root_dir = Path(root_dir)
        self.root_dir.mkdir(parents=True, exist_ok=True)
        self.logger: Any = None
        self.released: list[Result] = []
        self._layout: Layout = plan(channels_of(channels), slots)
        self._setup = {
            "index": 0,
            "name": name,
            "options": dict(options or {}),
            "root_dir": str(self.root_dir),
            "experiment": dict(config or {}),
            "instance": instance,
            "instances": instances,
            "wanted": wanted,
            "arrays": arrays,
        }
        self._segment = Segment(self._layout, 1)
        self._doorbell_fd = os.eventfd(0, os.EFD_CLOEXEC)
        weakref.finalize(self, _close, self._segment, self._doorbell_fd)
        acks = mmap.mmap(self._segment.acks_fds[0], self._layout.acks_bytes, mmap.MAP_SHARED)
        self._acks = memoryview(acks).cast("Q")
        self._slots = map_arrays(self._layout, self._segment.fd, writable=True)
        self._held: dict[int, Result] = {}
        self._unreleased: dict[Key, Result] = {}
        self._generation = 0
        self._renderer = next(_renderers)
        self.result_count = 0
        self._runner: Runner | None = None
        self._watch: Watch = _look_away
        self._status = _Raised()

    def start(self, logger_class: Callable[..., Any], *, watch: Watch = _look_away) -> Any:
        """Make the logger, as its process would.

        Args:
            logger_class: What its module exports as ``Logger``.
            watch: Is called with the name of each point of `points.POINTS` when it is reached.

        Returns:
            The logger.

        Raises:
            ConfigError: An option is wrong, or a channel is wanted that there is not.
            Exception: Whatever the class raises.
        """
        if self._runner is not None:
            raise RuntimeError("the logger runs already: end() it, or restart() it")
        place = getattr(logger_class, "__module__", "?")
        setup = {**self._setup, "place": place}
        self.logger, results = make_logger(
            logger_class, setup, self._layout, self._segment.fd_read_only
        )
        self._status = _Raised()
        self._runner = Runner(
            watch_logger(self.logger, watch),
            results,
            want=self._segment.want[0],
            acks=WatchedWords(self._acks, watch, self._note_release),
            status=self._status,
            doorbell_fd=self._doorbell_fd,
        )
        self._watch = watch
        watch("after_ready")
        return self.logger

    def log(
        self,
        id: str,
        render_args: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
        **arrays: Any,
    ) -> Result:
        """Give the logger one result: `log`, `flush`, release.

        Args:
            id: Its id.
            render_args: Its render arguments.
            fields: What the renderer sends along.
            arrays: Channel name to value; a single number fills an array.  The rest is 0.

        Raises:
            KeptArrayError: The logger kept an array of it.
            InvalidResult: A renderer could not publish it.
            Exception: Whatever the logger raised; the result is not recorded, see `redeliver`.
        """
        result = self.result(id, render_args, fields=fields, **arrays)
        self.deliver([result])
        return result

    def log_batch(self, results: Iterable[Mapping[str, Any]]) -> list[Result]:
        """Give the logger several results at once: one `flush`, and one `log_many` if it has that.

        Args:
            results: For each the arguments of `log`: ``{"id": "1", "loss": 0.5}``.

        Raises:
            Exception: As `log`; if several raised, the first one.
        """
        made = [self.result(**result) for result in results]
        self.deliver(made)
        return made

    def result(
        self,
        id: str,
        render_args: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
        **arrays: Any,
    ) -> Result:
        """Make a result for `deliver`, with a key of its own; the arguments are those of `log`."""
        self.result_count += 1
        key = (self._renderer, self.result_count)
        return Result(id, render_args or {}, fields or {}, arrays, key)

    def deliver(self, results: Sequence[Result]) -> None:
        """Give the logger a batch; one that it has had already is one that comes again.

        Raises:
            Exception: As `log_batch`.
        """
        runner = self._running()
        frames = FrameReader(SETUP_BYTES_MAX).feed(b"".join(map(self._publish, results)))
        count = len(self.released)
        runner.run_batch(frames)
        if len(self.released) > count:
            self._watch("after_release")
        errors = self._status.errors
        self._status.errors = {}
        for slot in errors:
            self._take_back(slot)
        for error in errors.values():
            raise error

    @property
    def waiting(self) -> list[Result]:
        """What the logger was given and does not have: it raised, or it died before the release."""
        held = {result.key for result in self._held.values()}
        return [result for key, result in self._unreleased.items() if key not in held]

    def redeliver(self) -> None:
        """Give the logger again what is `waiting`, as the daemon does: each alone, in order.

        Raises:
            Exception: As `log`.
        """
        for result in self.waiting:
            self.deliver([result])

    def end(self) -> None:
        """Let the logger finish: its `end`, or `log(None)`.

        Raises:
            Exception: Whatever it raises.
        """
        self._running().end()
        self._runner = self.logger = None

    def restart(self, logger_class: Callable[..., Any], *, watch: Watch = _look_away) -> Any:
        """Make a new logger as after a crash: no `end`, and what was not written is lost.

        What the old one has open in the folder is taken from it.  What it had not released is
        `waiting`; a real daemon would deliver it now, see `redeliver`.

        Returns:
            The new logger.
        """
        abandon_files(self.root_dir)
        with warnings.catch_warnings():
            # Its files are not closed: that is the point.
            warnings.simplefilter("ignore", ResourceWarning)
            self._runner = self.logger = None
            gc.collect()
        for slot in list(self._held):
            self._take_back(slot)
        return self.start(logger_class, watch=watch)

    def _running(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("no logger runs: start(Logger) it")
        return self._runner

    def _publish(self, result: Result) -> bytes:
        """Write a result into a free slot; its frame."""
        slot = self._free_slot()
        body = encode_job(result.id, result.render_args, result.fields)
        for channel in self._layout.channels:
            self._slots[channel.name][slot] = 0
        for name, value in result.arrays.items():
            self._write(slot, name, value)
        self._generation += 1
        self._segment.want[0][slot] = self._generation
        self._held[slot] = result
        self._unreleased[result.key] = result
        renderer, sequence = result.key
        return pack(
            Kind.PUBLISH,
            body,
            slot=slot,
            generation=self._generation,
            renderer=renderer,
            sequence=sequence,
        )

    def _free_slot(self) -> int:
        for slot in range(self._layout.slot_count):
            if slot not in self._held:
                return slot
        raise RuntimeError(
            f"all {self._layout.slot_count} slots are in use, by this batch or by what the logger "
            "keeps: give MemoryPond more `slots`"
        )

    def _write(self, slot: int, name: str, value: Any) -> None:
        channel = next((c for c in self._layout.channels if c.name == name), None)
        if channel is None:
            raise unknown_channel(name, self._layout.channels)
        if isinstance(value, bool | int | float) and math.prod(channel.shape) > 1:
            one = np.zeros(1, channel.dtype)
            write_value(one, 0, Channel(name, (), channel.dtype), value)
            self._slots[name][slot] = one[0]
        else:
            write_value(self._slots[name], slot, channel, value)

    def _note_release(self, slot: int) -> None:
        result = self._held[slot]
        self._take_back(slot)
        self._unreleased.pop(result.key, None)
        self.released.append(result)

    def _take_back(self, slot: int) -> None:
        self._segment.want[0][slot] = 0
        del self._held[slot]


def _close(segment: Segment, doorbell_fd: int) -> None:
    segment.close()
    os.close(doorbell_fd)
