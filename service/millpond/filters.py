"""What each logger wants of the results: its ``when:`` and its ``sample:``, asked at publishing.

A result for which a condition cannot be answered, because it lacks a render argument, say, is
wanted: rather a file too many than a failure that nobody sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from millpond.config.errors import nearest
from millpond.config.loggers import LoggerConfig
from millpond.config.model import Config
from millpond.core.deliveries import Result
from millpond.core.layout import Channel, Layout
from millpond.core.wire import HEADER_BYTES
from millpond.expression import Expression, UndecidedError, parse

TOLD_MAX: Final = 20  # Different reasons for one logger; a message that names each result has many.

log = structlog.get_logger(__name__)


def make_filters(
    config: Config, layout: Layout, slot_memory: Callable[[int], memoryview]
) -> dict[int, Callable[[Result], bool]]:
    """The filters of the loggers that have one, by their place in the configuration.

    Args:
        config: The configuration.
        layout: Where the channels lie.
        slot_memory: The bytes of a slot, from its first to its last channel.
    """
    places = {
        channel.name: (np.dtype(channel.dtype), offset)
        for channel, offset in zip(layout.channels, layout.offsets, strict=True)
    }
    present = _Present(places, slot_memory)
    filters: dict[int, Callable[[Result], bool]] = {}
    for index, logger in enumerate(config.loggers):
        if logger.when is not None or logger.sample > 1:
            expression = None if logger.when is None else parse(logger.when)
            filters[index] = _Filter(logger, expression, present).wants
    return filters


def check_channels(config: Config, channels: Sequence[Channel]) -> None:
    """See whether the channels that loggers are restricted to, or ask about, are there.

    Args:
        config: The configuration.
        channels: Its own, or those of the first renderer.

    Raises:
        ConfigError: One is not, or a condition is about one with more than a single number.
    """
    known = [channel.name for channel in channels]
    for index, logger in enumerate(config.loggers):
        if logger.when is not None:
            _check_names(config, index, parse(logger.when), channels)
        for name in logger.channels or ():
            if name not in known:
                problem = (
                    f"there is no channel '{name}'{nearest(name, known) or ';'} "
                    f"the channels are: {', '.join(known)}"
                )
                raise config.error(problem, "logging", "logger_modules", index, "channels")


def _check_names(
    config: Config, index: int, expression: Expression, channels: Sequence[Channel]
) -> None:
    scalars = [channel.name for channel in channels if math.prod(channel.shape) == 1]
    others = {channel.name for channel in channels} - set(scalars)
    for name in sorted(expression.channels - set(scalars)):
        if name in others:
            problem = f"channel '{name}' is an array; conditions are about single numbers"
        else:
            problem = (
                f"there is no channel '{name}'{nearest(name, scalars) or ';'} "
                f"those with a single number are: {', '.join(scalars) or 'none'}; a render "
                f"argument is written render_args.{name}"
            )
        raise config.error(problem, "logging", "logger_modules", index, "when")


class _Present:
    """The result that was published last, as conditions see it; all filters share it."""

    def __init__(
        self,
        places: Mapping[str, tuple[np.dtype[Any], int]],
        slot_memory: Callable[[int], memoryview],
    ) -> None:
        self._places = places
        self._slot_memory = slot_memory
        self._result: Result | None = None
        self._item: Mapping[str, Any] | None = None

    def show(self, result: Result) -> None:
        if result is not self._result:
            self._result, self._item = result, None

    def channel(self, name: str) -> Any:
        assert self._result is not None
        dtype, offset = self._places[name]
        memory = self._slot_memory(self._result.slot)
        return np.frombuffer(memory, dtype, 1, offset)[0].item()

    @property
    def item(self) -> Mapping[str, Any]:
        assert self._result is not None
        if self._item is None:
            self._item = msgspec.json.decode(self._result.frame[HEADER_BYTES:], type=dict[str, Any])
        return self._item


class _Filter:
    """What one logger wants."""

    def __init__(
        self, logger: LoggerConfig, expression: Expression | None, present: _Present
    ) -> None:
        self._name = logger.name
        self._expression = expression
        self._every = logger.sample
        self._present = present
        self._passed = 0
        self._told: set[str] = set()

    def wants(self, result: Result) -> bool:
        if self._expression is not None:
            self._present.show(result)
            try:
                if not self._expression.holds(self._present):
                    return False
            except UndecidedError as problem:
                self._tell(result, str(problem))
        self._passed += 1
        return (self._passed - 1) % self._every == 0

    def _tell(self, result: Result, problem: str) -> None:
        if problem in self._told or len(self._told) == TOLD_MAX:
            return
        self._told.add(problem)
        log.warning(
            "condition cannot be answered, so the result is logged",
            logger=self._name,
            when=self._expression and self._expression.text,
            result=result.id,
            problem=problem,
        )
