"""A pond for those who deal in the numbers of slots, over one connection only.

Who shares the memory with forked children cannot connect again: they would still see the old
memory.  So the end of the daemon is the end of the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from millpond.client import ASK_AGAIN_S, GRACE_S, Pond
from millpond.client_connection import Connection
from millpond.client_values import write_value
from millpond.compat.threedb_values import shaped
from millpond.core.layout import Layout
from millpond.errors import DaemonUnreachable, InvalidResult

LOOK_S: Final = 0.02  # While a slot is waited for, this process's own matters are looked after.
SEND_S: Final = 60.0

Ref = tuple[int, int]
"""A slot, and the generation of its use."""


class SlotPond(Pond):
    """A connection to a daemon.

    Args:
        path: Its socket.
        channels: What will be written: name to (shape, dtype).
        connect_s: Seconds to wait for an answer.

    Raises:
        DaemonUnreachable: Nobody answered in time.
        ChannelsRefused: The pond has other channels.
    """

    def __init__(
        self, path: str | os.PathLike[str], channels: Mapping[str, Any], *, connect_s: float
    ) -> None:
        super().__init__(path, channels, claim_timeout_s=connect_s)
        self._claim_timeout_s = SEND_S

    @property
    def daemon_pid(self) -> int:
        """Who answered."""
        return self._live().daemon_pid

    @property
    def layout(self) -> Layout:
        """Where the channels lie."""
        return self._live().layout

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Each channel of every slot, in shared memory: the first axis is the slot."""
        return self._live().arrays

    def claim_slot(self, timeout_s: float, meanwhile: Callable[[], None]) -> Ref:
        """Take a free slot.

        Args:
            timeout_s: Seconds to wait for one.
            meanwhile: Called every `LOOK_S` of the wait; what it publishes may be what frees one.

        Raises:
            PondFull: None came free in time; the message names who holds them.
            DaemonUnreachable: The daemon is gone or does not answer.
        """
        deadline_s = time.monotonic() + timeout_s
        connection = self._live()
        try:
            while connection.receive():
                pass
            if not connection.credits:
                connection.want(asks_who=False, deadline_s=deadline_s + GRACE_S)
            last_s = deadline_s - min(ASK_AGAIN_S, timeout_s / 2)
            while not connection.credits and not connection.is_closing:
                meanwhile()
                now_s = time.monotonic()
                if now_s >= last_s:
                    self._ask_for_slot(connection, timeout_s, deadline_s)
                else:
                    connection.wait(min(now_s + LOOK_S, last_s))
        finally:
            if connection.is_closed:
                self._forget(connection)
        if not connection.credits:
            raise DaemonUnreachable(f"{self._path}: the daemon is shutting down")
        return connection.credits.pop()

    def write(self, slot: int, values: Mapping[str, Any]) -> None:
        """Copy a result into its slot.

        Raises:
            InvalidResult: A channel is missing or unknown, or a value does not fit.
        """
        connection = self._live()
        for name in (*values, *connection.channels):
            if name not in values or name not in connection.channels:
                known = ", ".join(map(str, connection.layout.channels))
                what = "without" if name in connection.channels else "with the unknown"
                raise InvalidResult(f"a result {what} channel {name!r}; the channels are {known}")
        for name, channel in connection.channels.items():
            write_value(connection.arrays[name], slot, channel, shaped(values[name], channel))

    def publish_slot(self, ref: Ref, id: str, body: bytes) -> None:
        """Hand a slot to the loggers.

        Raises:
            DaemonUnreachable: The daemon is gone or does not read.
        """
        self.send_published(self._live(), ref, id, body)

    def return_slot(self, ref: Ref) -> None:
        """Give a slot back that is not to be published.

        Raises:
            DaemonUnreachable: The daemon is gone or does not read.
        """
        self.give_back(self._live(), ref)

    def _live(self) -> Connection:
        if self._connection is None or self._connection.is_closed:
            raise DaemonUnreachable(f"{self._path}: the daemon has ended, and the run with it")
        return self._connection
