"""The ``logging:`` section: which loggers there are, and how each is kept running."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from millpond.config.section import (
    ByteCount,
    Count,
    Name,
    Number,
    Section,
    empty_if_none,
    problem_at,
)
from millpond.expression import parse

PROCESS_COUNT_MAX: Final = 64
# Without quotes it is YAML's word for nothing.
_DRY_RUN: Final = 'for a dry run write ["null"], with the quotes'

_SAMPLE: Final = re.compile(r"1 */ *([0-9]{1,10})")


def is_file(module: str) -> bool:
    """Whether a logger's module is given as a file, not as a name."""
    return "/" in module or module.endswith(".py")


def default_logger_name(module: str) -> str:
    """The name of a logger whose configuration gives none.

    A word stays as it is; of a dotted path or a file it is the last part, without ``_logger``.
    """
    if is_file(module):
        name = PurePath(module).stem
    elif "." in module:
        name = module.rpartition(".")[2]
    else:
        return module or "logger"
    name = name.removesuffix("_logger") or name
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64].lstrip("-") or "logger"


def _every(sample: object) -> object:
    """``1/100`` as 100."""
    if sample == 1:
        return sample
    match = _SAMPLE.fullmatch(sample) if isinstance(sample, str) else None
    if not match or int(match[1]) == 0:
        raise ValueError("write a part such as 1/100, which is one of every hundred")
    return int(match[1])


def _refuse_module_as_key(given: Mapping[str, object], known: Container[str]) -> None:
    """Say what ``- image: {channels: [rgb]}`` must be."""
    unknown = [key for key in given if key not in known]
    if "module" in given or len(unknown) != 1 or not isinstance(given[unknown[0]], dict | None):
        return
    written = f"module: {unknown[0]}"
    if given[unknown[0]]:
        written += ", options: {...}"
    raise problem_at(f"found '{unknown[0]}:' as a key; write {written}")


@dataclass(frozen=True, slots=True)
class Process:
    """One of the processes of a logger.

    Args:
        logger: The logger.
        team: Its place in the configuration.
        instance: Which of its processes it is, from 1.
    """

    logger: LoggerConfig
    team: int
    instance: int

    @property
    def name(self) -> str:
        """The logger's name; with a number if it has several processes."""
        several = self.logger.instances > 1
        return f"{self.logger.name}/{self.instance}" if several else self.logger.name


class RestartConfig(Section):
    """When a logger that exits is started again."""

    intensity: Count = Field(
        5, ge=0, le=1000, description="Restarts within period_s before it is given up (FATAL)."
    )
    period_s: Number = Field(60.0, gt=0, le=86_400, description="Seconds that restarts count.")
    delay_s: Number = Field(
        0.1, ge=0.01, le=3600, description="Seconds before the first restart; doubles each time."
    )
    delay_s_max: Number = Field(
        30.0, ge=0.01, le=3600, description="Seconds that the delay grows to at most."
    )
    retry_s: Number = Field(
        300.0, ge=1, le=86_400, description="Seconds that a FATAL logger rests before a new try."
    )
    healthy_s: Number = Field(
        60.0, ge=1, le=86_400, description="Seconds without an exit after which the delay is new."
    )

    @model_validator(mode="after")
    def _check_delays(self) -> RestartConfig:
        if self.delay_s_max < self.delay_s:
            problem = f"found {self.delay_s_max}; it must be delay_s ({self.delay_s}) or more"
            raise problem_at(problem, "delay_s_max")
        return self


class LimitsConfig(Section):
    """What the process of a logger may use; null: as much as the daemon."""

    memory: ByteCount | None = Field(
        None, ge=64 * 2**20, description="Bytes of address space, the shared memory included."
    )
    file_size: ByteCount | None = Field(None, ge=1, description="Bytes of one file that it writes.")
    open_files: Count | None = Field(None, ge=16, le=2**20, description="Open files.")
    processes: Count | None = Field(
        None, ge=1, le=2**20, description="Processes of its user, in all; not for root."
    )
    oom_score_adj: Count = Field(
        500, ge=0, le=1000, description="Sooner than others: this logger when memory runs out."
    )


class LoggerConfig(Section):
    """One logger, in its own process."""

    module: str = Field(
        min_length=1,
        max_length=4096,
        description="A short name (csv), a dotted path (package.module) or a file (./mine.py).",
    )
    name: Name = Field(description="Its name in messages and files; made from module.")
    options: dict[str, Any] = Field({}, description="What the logger itself understands.")
    channels: tuple[str, ...] | None = Field(
        None, description="The only channels that it sees; null: all."
    )
    when: str | None = Field(
        None, description="Which results it gets, such as: not is_correct or loss > 2."
    )
    sample: Annotated[Count, BeforeValidator(_every)] = Field(
        1, ge=1, le=10**9, description="1/100: the first of every 100 of those."
    )
    instances: Count = Field(
        1, ge=1, le=PROCESS_COUNT_MAX, description="Processes that share its results."
    )
    arrays: Literal["numpy", "torch"] | None = Field(
        None, description="What its arrays are; null: numpy, but torch for 3DB's own loggers."
    )
    max_in_window: Count = Field(
        32, ge=1, le=1024, description="Results sent ahead of the logger's releases."
    )
    start_s: Number = Field(60.0, gt=0, le=3600, description="Seconds until it must be ready.")
    stop_s: Number = Field(5.0, ge=0, le=3600, description="Seconds to end before it is killed.")
    hang_s: Number = Field(
        30.0, ge=0.1, le=86_400, description="Seconds that one result may take before it is a hang."
    )
    when_full: Literal["block", "spill", "drop"] = Field(
        "block", description="When slots run short: renderers wait for it, or its results leave."
    )
    on_crash: Literal["redeliver", "drop"] = Field(
        "redeliver", description="What becomes of results that it had when it ended."
    )
    restart: RestartConfig = Field(
        RestartConfig(), description="When it is started again after an exit."
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="What its process may use.")
    env: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        (), description="Environment variables that it gets besides the usual; * matches any."
    )

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if channels == ():
            raise ValueError(
                "a logger that sees no channel is of no use; leave the key out for all"
            )
        if channels is not None and len(set(channels)) < len(channels):
            raise ValueError("a channel is named twice")
        return channels

    @field_validator("when")
    @classmethod
    def _check_when(cls, when: str | None) -> str | None:
        if when is not None:
            parse(when)
        return when

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: object) -> object:
        """Make the short form long, and the name from the module."""
        if isinstance(given, str):
            given = {"module": given}
        if not isinstance(given, (dict, LoggerConfig)):
            raise ValueError("write a module, or a mapping with 'module:'")
        if isinstance(given, dict):
            given = dict(given)
            _refuse_module_as_key(given, cls.model_fields)
            for section in ("options", "restart", "limits"):
                given[section] = empty_if_none(given.get(section))
            module = given.get("module")
            if isinstance(module, str):
                given.setdefault("name", default_logger_name(module))
        return given


class LoggingConfig(Section):
    """The loggers."""

    logger_modules: tuple[LoggerConfig, ...] = Field(
        (), validate_default=True, description="Each gets every result, in its own process."
    )

    @field_validator("logger_modules", mode="before")
    @classmethod
    def _check_list(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError(f"a list is needed; write [{given}]")
        if isinstance(given, list) and None in given:
            raise problem_at(f"found nothing here; {_DRY_RUN}", given.index(None))
        return () if given is None else given

    @field_validator("logger_modules")
    @classmethod
    def _check_loggers(cls, loggers: tuple[LoggerConfig, ...]) -> tuple[LoggerConfig, ...]:
        if not loggers:
            raise problem_at(f"at least one logger is required; {_DRY_RUN}")
        count = sum(logger.instances for logger in loggers)
        if count > PROCESS_COUNT_MAX:
            problem = f"{count} processes of loggers, at most {PROCESS_COUNT_MAX} are possible"
            raise problem_at(problem)
        first: dict[str, int] = {}
        for index, logger in enumerate(loggers):
            if first.setdefault(logger.name, index) != index:
                raise problem_at(
                    f"the name '{logger.name}' is taken by logger_modules[{first[logger.name]}]; "
                    "give one of the two another 'name:'",
                    index,
                    "name",
                )
        return loggers
