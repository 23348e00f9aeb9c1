"""The results of a 3DB experiment: 3DB's buffer, in the slots of a daemon.

The process that makes the buffer owns it: it declares, allocates and ends.  Processes forked from
it read results, free them and log them.
"""

from __future__ import annotations

import contextlib
import operator
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from millpond.compat.delivery import ResultsMissing
from millpond.compat.joined_daemon import SOCKET_VARIABLE, JoinedDaemon
from millpond.compat.mailbox import Mailbox
from millpond.compat.messages import Free, Message, encode
from millpond.compat.own_daemon import OwnDaemon, Plan
from millpond.compat.pond_owner import PondOwner
from millpond.compat.threedb_values import channels_of_3db
from millpond.core.layout import Channel
from millpond.errors import DaemonUnreachable, InvalidResult, MillpondError

# A slot comes free with every result that the slowest logger records: this long, and it is stuck.
WAIT_S: Final = 120.0
DEFAULT_OUTPUT_DIR: Final = "runs/threedb"
LATE_SHOWN: Final = 10

_buffers: weakref.WeakSet[CyclicBuffer] = weakref.WeakSet()


def _open_declared() -> None:
    """Before a fork: the child sees the memory only if it is there by then.

    Nobody here could be told what goes wrong: the buffer keeps it for who uses it next.  It is
    tried once, as each try may take long.
    """
    for buffer in list(_buffers):
        if buffer.problem is None:
            with contextlib.suppress(MillpondError, OSError):
                buffer.open()


os.register_at_fork(before=_open_declared)


class Loggers(Protocol):
    """What is to record the results."""

    def plan(self, slots: int) -> Plan:
        """The daemon that runs them."""


class CyclicBuffer:
    """The results of a 3DB experiment, in the slots of a daemon.

    Args:
        buffers: As for `declare_buffers`, which is called with it.
        size: Results in memory at once, when a daemon is started for this buffer.
        with_tqdm: Without effect: ``millpond status`` shows how full it is.
        socket: Of a running daemon to join, or its run folder, or its configuration, which tells
            of sockets that are elsewhere; by default what the environment variable
            ``MILLPOND_SOCKET`` says, and without it a daemon is started.
        wait_s: Seconds that `allocate` waits for a slot.

    Attributes:
        initialized: Whether the channels are declared.
        registration_count: How many registrations there are; there is no limit.
        size: Results in memory at once.
    """

    def __init__(
        self,
        buffers: Mapping[str, Any] | None = None,
        size: int = 256,
        with_tqdm: bool = True,  # noqa: ARG002
        *,
        socket: str | os.PathLike[str] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        self.initialized = False
        self.registration_count = 0
        self.size = size
        self.declared_buffers: Mapping[str, Any] = {}
        self._channels: tuple[Channel, ...] = ()
        self._join = socket or os.environ.get(SOCKET_VARIABLE)
        self._wait_s = wait_s
        self._mailbox = Mailbox()
        self._loggers: Loggers | None = None
        self._handed_over: set[int] = set()  # Registrations of loggers, which the daemon runs.
        self._arrays: dict[str, NDArray[Any]] = {}
        self._owner: PondOwner | None = None
        self._daemon: OwnDaemon | JoinedDaemon | None = None
        self._problem: MillpondError | OSError | None = None
        self._tensor_of: Callable[[NDArray[Any]], Any] | None = None
        _buffers.add(self)
        if buffers is not None:
            self.declare_buffers(buffers)

    @property
    def is_ours(self) -> bool:
        """Whether this process owns it."""
        return self._mailbox.is_ours

    @property
    def problem(self) -> MillpondError | OSError | None:
        """Why the daemon could not be started or joined when this was tried last."""
        return self._problem

    @property
    def channels(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name to (shape, dtype) of every channel; nothing before they are declared."""
        return {channel.name: (channel.shape, channel.dtype) for channel in self._channels}

    def declare_buffers(self, buffers: Mapping[str, Any]) -> bool:
        """Say what a result consists of.

        Args:
            buffers: Name to (shape, dtype), such as ``{"rgb": [[3, 256, 256], "float32"]}``.

        Returns:
            Whether these are the channels now: False if others were declared before.

        Raises:
            InvalidResult: A channel is not possible.
        """
        channels = channels_of_3db(buffers)
        if self.initialized:
            return set(channels) == set(self._channels)
        self._channels = channels
        self.declared_buffers = buffers
        self.initialized = True
        return True

    def register(self) -> int:
        """A number, from 1, for one who will free every result that is allocated from now on."""
        self.registration_count += 1
        return self.registration_count

    def allocate(self, data: Mapping[str, Any]) -> int:
        """Copy a result into a free slot; the owner's.

        Args:
            data: A tensor or array for every channel.

        Returns:
            The index of the result.

        Raises:
            InvalidResult: It does not fit the channels; no slot is lost.
            PondFull: No slot came free within `wait_s`; the message names who holds them.
            DaemonUnreachable: The daemon could not be started, has ended, or does not answer.
        """
        holders = set(range(1, self.registration_count + 1)) - self._handed_over
        return self._opened().allocate(data, holders, self._wait_s)

    def __getitem__(self, ind: int) -> dict[str, Any]:
        """The tensors of one result, which view the shared memory; arrays where torch is missing.

        They are good as long as the result is in use: who frees it last must not look any more.

        Raises:
            InvalidResult: The channels are not declared, or this process cannot see the memory.
            DaemonUnreachable: The daemon could not be started, for a forked process at its fork.
            IndexError: There is no such slot.
        """
        if not self._arrays:
            if not self.is_ours and self._problem is not None:
                raise DaemonUnreachable(
                    f"this process cannot see the results: when it was forked, {self._problem}"
                ) from self._problem
            if not self.is_ours:
                raise InvalidResult(
                    "this process was forked before the channels were declared: it cannot see "
                    "the results"
                )
            self._opened()
        ind = operator.index(ind)
        if not 0 <= ind < self.size:
            raise IndexError(f"result_ix {ind} is none of the {self.size} slots")
        if self._tensor_of is None:
            self._tensor_of = _tensor_of()
        return {
            name: self._tensor_of(array[ind, ...])  # ... keeps the array of a scalar one.
            for name, array in self._arrays.items()
        }

    def free(self, ind: int, reg_id: int) -> None:
        """Say that a registration is done with a result.

        Args:
            ind: Which result.
            reg_id: The number that `register` gave; -1: it is free for everybody, and whoever has
                logged it is not heard.

        Raises:
            DaemonUnreachable: The daemon, or the owner of the buffer, has ended.
        """
        self.tell(Free(operator.index(ind), operator.index(reg_id)))

    def process_events(self) -> None:
        """Take in what other processes have freed and logged; it happens by itself, too.

        Raises:
            DaemonUnreachable: The daemon has ended.
        """
        if self.is_ours:
            self._opened().drain()

    def close(self) -> None:
        """End it, unless loggers were started with it: those are ended by their ``log(None)``.

        Raises:
            ResultsMissing: As for `wait_delivered`.
            DaemonUnreachable: As for `wait_delivered`.
        """
        if self.is_ours and self._loggers is None and self._owner is not None:
            self.end()
            self.wait_delivered(self._wait_s)

    def tell(self, message: Message) -> None:
        """Tell the owner something; the loggers'."""
        if not self.initialized:
            raise InvalidResult("the buffer has no channels yet: call declare_buffers first")
        if self.is_ours:
            self._opened().tell(message)
        else:
            self._mailbox.send(encode(message))

    def attach(self, loggers: Loggers, regid: int | None) -> None:
        """Let the daemon run these loggers, one of which has this registration.

        Raises:
            InvalidResult: The daemon runs already.
        """
        if self._owner is not None:
            raise InvalidResult("the daemon runs already: append loggers before the first result")
        self._loggers = loggers
        if regid is not None:
            self._handed_over.add(regid)

    def open(self) -> None:
        """Start the daemon, or join it, if the channels are declared; the loggers'.

        Raises:
            MillpondError: It could not be started or joined; `problem` keeps it.
            OSError: The run folder cannot be written; `problem` keeps it.
        """
        if self._owner is not None or not self.initialized or not self.is_ours:
            return
        declared = {channel.name: (channel.shape, channel.dtype) for channel in self._channels}
        try:
            daemon = self._begin_daemon()
            pond = daemon.connect(declared)
        except (MillpondError, OSError) as problem:
            self._problem = problem
            raise
        self._problem = None
        self._daemon = daemon
        self.size = pond.layout.slot_count
        self._arrays = pond.arrays
        self._owner = PondOwner(pond, self._mailbox)

    def end(self) -> None:
        """Nothing more comes: publish what was logged, and leave; the loggers'.

        Raises:
            InvalidResult: This process does not own the buffer.
            DaemonUnreachable: The daemon did not start, is gone, or did not acknowledge everything.
        """
        self._check_ours("ends it")
        if self._owner is not None:
            self._owner.end()
        elif self._problem is not None:
            raise self._problem

    def wait_delivered(self, patience_s: float) -> None:
        """Wait until the loggers have everything; the loggers'.

        Raises:
            ResultsMissing: Some do not have everything; the message says which.
            DaemonUnreachable: Nothing was recorded for `patience_s`, or the daemon failed.
            InvalidResult: This process does not own the buffer.
        """
        self._check_ours("waits for the loggers")
        if self._daemon is not None:
            self._daemon.wait(patience_s)
        if self._owner is not None and (late := self._owner.late):
            more = ", ..." if len(late) > LATE_SHOWN else ""
            raise ResultsMissing(
                f"{len(late)} results were logged after the end, which log(None), join or close "
                f"has said, and are not recorded: {', '.join(late[:LATE_SHOWN])}{more}"
            )

    def _begin_daemon(self) -> OwnDaemon | JoinedDaemon:
        if self._join:
            return JoinedDaemon(self._join)
        return OwnDaemon((self._loggers or Nobody()).plan(self.size), self._channels)

    def _check_ours(self, deed: str) -> None:
        """Refuse what is the owner's: a forked process has copies of locks that nobody gives."""
        if not self.is_ours:
            raise InvalidResult(
                f"only the process that made the buffer (pid {self._mailbox.owner_pid}) {deed}"
            )

    def _opened(self) -> PondOwner:
        self._check_ours("allocates")
        if not self.initialized:
            raise InvalidResult("the buffer has no channels yet: call declare_buffers first")
        self.open()
        assert self._owner is not None
        return self._owner


class Nobody:
    """No loggers: a buffer that is used alone."""

    def plan(self, slots: int) -> Plan:
        """A daemon whose logger records nothing."""
        return Plan(Path(DEFAULT_OUTPUT_DIR).absolute(), ("null",), {}, slots)


def live_buffers() -> list[CyclicBuffer]:
    """The buffers that this process owns."""
    return [buffer for buffer in _buffers if buffer.is_ours]


def _tensor_of() -> Callable[[NDArray[Any]], Any]:
    """What makes a tensor that views an array; without torch, the array itself serves."""
    try:
        import torch  # noqa: PLC0415
    except ModuleNotFoundError:
        return lambda array: array
    made: Callable[[NDArray[Any]], Any] = torch.from_numpy
    return made
