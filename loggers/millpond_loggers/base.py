"""What a logger is: the base class, and what it is given.

The contract is that of 3DB: a module exports ``Logger``; it is made in its own process as
``Logger(root_dir, result_buffer, config)``; ``log(item)`` is called once for each result.
A logger need not derive from `BaseLogger`; what counts are the methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from millpond_loggers.options import check_options
from millpond_loggers.process.diagnostics import diagnostics_of


class Options(BaseModel):
    """The ``options:`` of a logger in the configuration.  Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResultBuffer(Protocol):
    """The results, as a logger sees them: arrays that lie in shared memory."""

    @property
    def channels(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Name to (shape, dtype) of every channel, in the order of declaration."""

    @property
    def initialized(self) -> bool:
        """Whether the channels are known; true before the first item comes."""

    def register(self) -> int:
        """The number of this logger, from 1, which `free` takes."""

    def __getitem__(self, result_ix: int) -> dict[str, NDArray[Any]]:
        """The arrays of one result: read-only, valid until `log` returns.

        Raises:
            LookupError: This logger has no such result now.
        """

    def key_of(self, result_ix: int) -> tuple[int, int]:
        """What tells a result from every other one of its run, whatever their ids are.

        It is the same when a result comes again, because the logger died before the daemon knew
        that it is recorded: a logger that finds the key recorded need not record it twice.

        Args:
            result_ix: The ``result_ix`` of an item; valid as long as its arrays.

        Returns:
            The number of its renderer, unique in the run folder over all starts of the daemon; and
            which of that renderer's results it is, from 1.

        Raises:
            LookupError: This logger has no such result now.
        """

    def free(self, result_ix: int, regid: int) -> None:
        """Say that this logger is done with a result: needless, unless it keeps slots."""


class BaseLogger:
    """Records results; derive from it, or only do as it does.

    Besides ``log``, a logger may have

    - ``log_many(items)``, called instead of ``log`` with all the results that came at once;
    - ``flush()``, called once after each batch of results and before their slots are given back:
      what it wrote must be safe in the file when it returns;
    - ``end()``, called once when nothing is left; a logger without it gets ``log(None)``.

    Attributes:
        extra: The pip extra that brings its libraries; None: none is needed.
        libraries: Import names of what it needs.  It imports them where they are used, so that
            its options can be told without them.
        keeps_slots: Whether a result is the logger's until it calls ``buffer.free(result_ix,
            regid)``, or ends.  Its arrays may be kept until then; it is released with the next
            flush.  Keep fewer than ``max_in_window``, for no more come while so many are kept.
        root_dir: The folder for the files, which exists.
        buffer: The results.
        config: The whole experiment file as a mapping; ``config["logger"]`` holds this logger's
            own ``name``, ``module``, ``options``, ``instance`` and ``instances``.
        name: This logger's name in the configuration.
        instance: Which of the processes of this logger this is, from 1.
        instances: How many there are; each gets results of its own, and writes files of its own.
        logger: Its diagnostics: ``self.logger.warning("...")`` is a line in the daemon's log.
        options: An instance of `Options`, checked.
    """

    Options: ClassVar[type[BaseModel]] = Options
    extra: ClassVar[str | None] = None
    libraries: ClassVar[tuple[str, ...]] = ()
    keeps_slots: ClassVar[bool] = False

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Take note of the arguments, and check the options.

        Raises:
            millpond.errors.ConfigError: An option is unknown or has a wrong value.
        """
        self.root_dir = root_dir
        self.buffer = result_buffer
        self.config = config
        own = config.get("logger", {})
        self.name: str = own.get("name", type(self).__name__)
        self.instance: int = own.get("instance", 1)
        self.instances: int = own.get("instances", 1)
        self.logger = diagnostics_of(self.name)
        self.options: Any = check_options(
            type(self).Options, own.get("options", {}), key=f"{self.name}.options"
        )

    def log(self, item: dict[str, Any] | None) -> None:
        """Record one result.

        Args:
            item: ``id`` (str), ``render_args`` (dict), ``result_ix`` (int, for ``self.buffer``),
                and whatever else the renderer sent along, such as ``environment`` and ``model``.
                None at the end, for a logger that has no ``end``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no log(item)")
