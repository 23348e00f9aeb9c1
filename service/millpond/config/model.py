"""What can be configured: every key with its default, range and unit.

The shape is that of the YAML file (``config.example.yaml`` shows all of it); `config.load`
reads one.  Nothing here opens a file: a model is checked when it is made, and never changes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from millpond.config.buffer import BufferConfig, ChannelConfig
from millpond.config.disk import DiskConfig
from millpond.config.loggers import LoggerConfig, LoggingConfig, Process, RestartConfig
from millpond.config.section import (
    Count,
    FilePath,
    Name,
    Number,
    Section,
    empty_if_none,
    problem_at,
)
from millpond.config.yaml_source import KeyPath, Place, find_place, key_text
from millpond.errors import ConfigError

__all__ = [
    "EXPERIMENT_SECTIONS",
    "BufferConfig",
    "ChannelConfig",
    "Config",
    "DiskConfig",
    "LoggerConfig",
    "LoggingConfig",
    "Origin",
    "RestartConfig",
    "ServiceConfig",
]

# The sections of 3DB's experiment files that loggers get and millpond does not read.
EXPERIMENT_SECTIONS: Final = ("inference", "evaluation", "render_args", "policy", "controls")
# sun_path has 108 bytes on Linux, the last of them a NUL.
SOCKET_PATH_BYTES_MAX: Final = 107

_PASSED_THROUGH: Final = "3DB's; given to the loggers as it is."


@dataclass(frozen=True, slots=True)
class Origin:
    """What a configuration was made from.

    Args:
        source: The file.
        experiment: All that the file, its bases and the overrides say, as plain values.
        places: Where each key was given.
    """

    source: Path
    experiment: Mapping[str, Any]
    places: Mapping[KeyPath, Place]


class ServiceConfig(Section):
    """The daemon itself."""

    socket: FilePath | None = Field(
        None, description="Where renderers connect; null: <output_dir>/millpond.sock."
    )
    health_socket: FilePath | None = Field(
        None, description="HTTP for health and metrics; null: <output_dir>/health.sock."
    )
    drain_s: Number = Field(
        10.0, ge=0, le=3600, description="Seconds for the loggers to catch up at the end."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="The daemon's own messages; auto: console, with colours on a terminal."
    )
    renderers_max: Count = Field(
        64, ge=1, le=1024, description="Renderers connected at the same time."
    )
    allow_uids: tuple[Annotated[Count, Field(ge=0, le=2**32 - 2)], ...] = Field(
        (), description="Users who may connect besides the daemon's own."
    )


class Config(Section):
    """The whole configuration."""

    name: Name = Field("millpond", description="Label in messages and metrics.")
    output_dir: FilePath = Field(
        Path("runs/millpond"), validate_default=True, description="Where the loggers write."
    )
    base_config: str | None = Field(None, description="A file whose keys this one inherits.")
    buffer: Annotated[BufferConfig, BeforeValidator(empty_if_none)] = Field(
        BufferConfig(), description="The shared memory that holds the results."
    )
    logging: Annotated[LoggingConfig, BeforeValidator(empty_if_none)] = Field(
        {}, validate_default=True, description="The loggers."
    )
    disk: Annotated[DiskConfig, BeforeValidator(empty_if_none)] = Field(
        DiskConfig(), description="What leaves the memory for the run folder."
    )
    service: Annotated[ServiceConfig, BeforeValidator(empty_if_none)] = Field(
        ServiceConfig(), description="The daemon itself."
    )
    inference: Any = Field(None, description=_PASSED_THROUGH)
    evaluation: Any = Field(None, description=_PASSED_THROUGH)
    render_args: Any = Field(None, description=_PASSED_THROUGH)
    policy: Any = Field(None, description=_PASSED_THROUGH)
    controls: Any = Field(None, description=_PASSED_THROUGH)

    _origin: Origin = PrivateAttr(
        default_factory=lambda: Origin(Path.cwd() / "config.yaml", {}, {})
    )

    @property
    def loggers(self) -> tuple[LoggerConfig, ...]:
        """The loggers in the order of the file."""
        return self.logging.logger_modules

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes of all loggers; those of one stand together."""
        return tuple(
            Process(logger, team, instance)
            for team, logger in enumerate(self.loggers)
            for instance in range(1, logger.instances + 1)
        )

    @property
    def socket_path(self) -> Path:
        """Where renderers connect."""
        return self.service.socket or self.output_dir / "millpond.sock"

    @property
    def health_socket_path(self) -> Path:
        """Where health and metrics are served."""
        return self.service.health_socket or self.output_dir / "health.sock"

    @property
    def spill_path(self) -> Path:
        """Where results wait for their loggers, in a folder for each.

        Runs that share a ``disk.spill_dir`` have folders of their own in it.
        """
        if self.disk.spill_dir is None:
            return self.output_dir / "spill"
        number = zlib.crc32(os.fsencode(self.output_dir))
        return self.disk.spill_dir / f"{self.output_dir.name}-{number:08x}"

    @property
    def source(self) -> Path:
        """The file that was loaded."""
        return self._origin.source

    @property
    def experiment(self) -> dict[str, Any]:
        """The merged file as plain values, for the loggers; the caller owns the outer mapping."""
        return dict(self._origin.experiment)

    def error(self, problem: str, *path: str | int) -> ConfigError:
        """An error about a key of this configuration, with the place where it was given."""
        place = find_place(self._origin.places, path)
        return ConfigError(problem, key=key_text(path), file=place.file, line=place.line)

    def only(self, names: Collection[str]) -> Config:
        """The same configuration with some of its loggers.

        Raises:
            ConfigError: It has no logger of such a name.
        """
        known = [logger.name for logger in self.loggers]
        for name in names:
            if name not in known:
                problem = f"there is no logger '{name}'; there are: {', '.join(known)}"
                raise self.error(problem, "logging", "logger_modules")
        chosen = tuple(logger for logger in self.loggers if logger.name in names)
        logging = self.logging.model_copy(update={"logger_modules": chosen})
        return self.model_copy(update={"logging": logging})

    def model_post_init(self, context: Any, /) -> None:
        """Remember what the configuration was made from."""
        if isinstance(context, Origin):
            self._origin = context

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: object) -> object:
        """Derive the output folder from the name."""
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            return {"output_dir": f"runs/{given['name']}", **given}
        return given

    @model_validator(mode="after")
    def _check_sockets(self) -> Config:
        sockets = {"socket": self.socket_path, "health_socket": self.health_socket_path}
        for key, path in sockets.items():
            byte_count = len(os.fsencode(path))
            if byte_count > SOCKET_PATH_BYTES_MAX:
                problem = (
                    f"the path of the socket has {byte_count} bytes, at most "
                    f"{SOCKET_PATH_BYTES_MAX} are possible; set service.{key} to a shorter path "
                    f"than {path}"
                )
                given = getattr(self.service, key) is not None
                raise problem_at(problem, *(("service", key) if given else ("output_dir",)))
        if self.socket_path == self.health_socket_path:
            raise problem_at("must differ from service.socket", "service", "health_socket")
        return self
