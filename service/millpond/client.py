"""The renderer's side: claim a slot, write into it, publish it.

Needs numpy and the standard library only, so that it runs in Blender's Python.  One `Pond` belongs
to one thread; a process may have several, and after a fork each process gets its own connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from numpy.typing import NDArray

from millpond.client_connection import Connection, find_socket
from millpond.client_values import channels_of, encode_job, unknown_channel, write_value
from millpond.core.layout import Channel
from millpond.core.wire import Kind, pack
from millpond.errors import DaemonUnreachable, InvalidResult, PondFull

# A call may last this much longer than its deadline: for the daemon's answer to who holds what.
GRACE_S: Final = 0.04
ASK_AGAIN_S: Final = 0.2  # Before the deadline, so that the answer is fresh.


@dataclass(frozen=True, slots=True)
class PondStatistics:
    """What one `Pond` did so far."""

    published: int
    accepted: int  # Of those, as far as the daemon's word has come.
    waits: int  # Claims that had to wait for a slot.
    wait_s: float  # Seconds spent in them, all together.
    wait_s_max: float  # The longest of them.
    connects: int


def connect(
    path: str | os.PathLike[str],
    channels: Mapping[str, Any] | None = None,
    *,
    claim_timeout_s: float = 5.0,
) -> Pond:
    """Connect to a daemon.

    Args:
        path: Its socket, or the folder of its run, which contains ``millpond.sock``.
        channels: What will be written: name to (shape, dtype), such as
            ``{"rgb": ((3, 256, 256), "float32"), "is_correct": ((), "bool")}``.  None takes what
            the pond has.  The first renderer decides when the configuration does not.
        claim_timeout_s: Seconds that a claim, and this call, may wait.

    Raises:
        DaemonUnreachable: Nobody answered in time.
        ChannelsRefused: The pond has other channels; the message lists both.
        InvalidResult: A channel is not possible.
    """
    return Pond(path, channels, claim_timeout_s=claim_timeout_s)


class Pond:
    """A connection to a daemon; made by `connect`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        channels: Mapping[str, Any] | None,
        *,
        claim_timeout_s: float,
    ) -> None:
        self._path = str(find_socket(Path(path)))
        self._declared = None if channels is None else channels_of(channels)
        self._claim_timeout_s = claim_timeout_s
        self._published = self._accepted = self._waits = self._connects = 0
        self._wait_s = self._wait_s_max = 0.0
        self._pid = os.getpid()
        self._is_closed = False
        self._connection: Connection | None = None
        self._connected(time.monotonic() + claim_timeout_s)

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels of the pond by name, in the order of declaration."""
        connection = self._connected(time.monotonic() + self._claim_timeout_s)
        return {channel.name: channel for channel in connection.layout.channels}

    def claim(self, timeout_s: float | None = None) -> Slot:
        """Take a free slot to write into.

        Args:
            timeout_s: Seconds to wait for one; by default the `claim_timeout_s` of `connect`.

        Raises:
            PondFull: None came free in time; the message names who holds them.
            DaemonUnreachable: The daemon is gone or does not answer.  The next claim connects
                again.
        """
        timeout_s = self._claim_timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + timeout_s
        connection = self._connected(deadline_s)
        if not connection.credits:
            self._wait_for_slot(connection, timeout_s, deadline_s)
        return Slot(self, connection, connection.credits.pop())

    def publish(
        self,
        id: str,
        render_args: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        **arrays: Any,
    ) -> None:
        """Publish a result in one call, with one copy of each array.

        Args:
            id: Its name; text of 1 to 1,024 bytes.
            render_args: What it was rendered with; anything that JSON holds.
            fields: What else the loggers should know, such as ``environment`` and ``model``.
            timeout_s: As for `claim`.
            **arrays: Every channel by its name.

        Raises:
            InvalidResult: Something does not fit.  Nothing was sent, no slot is lost.
            PondFull, DaemonUnreachable: As for `claim`.
        """
        with self.claim(timeout_s) as slot:
            for name, value in arrays.items():
                slot[name] = value
            slot.publish(id, render_args, fields=fields)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the daemon has acknowledged everything that was published.

        Raises:
            DaemonUnreachable: It did not in time.
        """
        connection = self._connection
        if connection is None or not connection.unaccepted:
            return
        timeout_s = self._claim_timeout_s if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + timeout_s
        try:
            connection.send(pack(Kind.SYNC, renderer=connection.renderer), deadline_s)
            while connection.unaccepted:
                if not connection.wait(deadline_s) and time.monotonic() >= deadline_s:
                    raise connection.lost(f"no acknowledgement within {timeout_s:g} s")
        finally:
            if connection.is_closed:
                self._forget(connection)

    def close(self, timeout_s: float | None = None) -> None:
        """Wait for the acknowledgement of what was published, and leave.

        Raises:
            DaemonUnreachable: It did not come; the message lists the results.
        """
        self._is_closed = True
        self.flush(timeout_s)
        connection = self._connection
        if connection is not None:
            connection.close()
            self._forget(connection)

    def statistics(self) -> PondStatistics:
        """What this pond did so far."""
        accepted = self._connection.accepted if self._connection else 0
        return PondStatistics(
            published=self._published,
            accepted=self._accepted + accepted,
            waits=self._waits,
            wait_s=self._wait_s,
            wait_s_max=self._wait_s_max,
            connects=self._connects,
        )

    def send_published(
        self,
        connection: Connection,
        ref: tuple[int, int],
        id: str,
        body: bytes,
    ) -> None:
        """Send what a `Slot` publishes; for its use only."""
        if connection.is_closed:
            raise DaemonUnreachable(
                f"{self._path}: result {id!r} not sent: the connection that gave its slot is over"
            )
        connection.sequence += 1
        slot, generation = ref
        frame = pack(
            Kind.PUBLISH,
            body,
            slot=slot,
            renderer=connection.renderer,
            generation=generation,
            sequence=connection.sequence,
        )
        self._published += 1
        connection.unaccepted.append((connection.sequence, id))
        try:
            connection.send(frame, time.monotonic() + self._claim_timeout_s)
        finally:
            if connection.is_closed:
                self._forget(connection)

    def give_back(self, connection: Connection, ref: tuple[int, int]) -> None:
        """Return the slot of a `Slot` that was not published; for its use only."""
        if connection.is_closed:
            return  # The daemon took it back when the connection ended, or it is our parent's.
        slot, generation = ref
        frame = pack(Kind.RETURN, slot=slot, renderer=connection.renderer, generation=generation)
        try:
            connection.send(frame, time.monotonic() + self._claim_timeout_s)
        finally:
            if connection.is_closed:
                self._forget(connection)

    def __enter__(self) -> Self:
        """Use it in a ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; an error on the way here is not hidden by one of closing."""
        try:
            self.close()
        except DaemonUnreachable:
            if error is None:
                raise

    def _connected(self, deadline_s: float) -> Connection:
        if self._is_closed:
            raise DaemonUnreachable(f"{self._path}: this pond was closed")
        if self._pid != os.getpid():  # We are the child of a fork: the connection is the parent's.
            self._pid = os.getpid()
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._published = self._accepted = self._waits = self._connects = 0
            self._wait_s = self._wait_s_max = 0.0
        if self._connection is None:
            self._connection = Connection(self._path, self._declared, deadline_s=deadline_s)
            self._connects += 1
        return self._connection

    def _forget(self, connection: Connection) -> None:
        """The connection is over; the next claim makes a new one."""
        if self._connection is connection:
            self._accepted += connection.accepted
            self._connection = None

    def _wait_for_slot(self, connection: Connection, timeout_s: float, deadline_s: float) -> None:
        start_s = time.monotonic()
        try:
            while connection.receive():
                pass
            if not connection.credits:
                self._ask_for_slot(connection, timeout_s, deadline_s)
        finally:
            if connection.is_closed:
                self._forget(connection)
            waited_s = time.monotonic() - start_s
            self._waits += 1
            self._wait_s += waited_s
            self._wait_s_max = max(self._wait_s_max, waited_s)

    def _ask_for_slot(self, connection: Connection, timeout_s: float, deadline_s: float) -> None:
        """Say that we wait; shortly before the deadline ask who holds the slots.

        The answer to that also tells a full pond from a daemon that is stopped.
        """
        early_s = deadline_s - min(ASK_AGAIN_S, timeout_s / 2)
        for asks_who, until_s, grace_s in ((False, early_s, 0.0), (True, deadline_s, GRACE_S)):
            if connection.is_closing:
                raise DaemonUnreachable(f"{self._path}: the daemon is shutting down")
            connection.want(asks_who=asks_who, deadline_s=deadline_s + GRACE_S)
            self._wait_for_credit(connection, until_s, grace_s)
            if connection.credits:
                return
        if connection.is_closing:
            raise DaemonUnreachable(f"{self._path}: the daemon is shutting down")
        if not connection.is_answered:
            raise DaemonUnreachable(
                f"{self._path}: the daemon (pid {connection.daemon_pid}) did not answer within "
                f"{timeout_s:g} s; is it stopped or overloaded?"
            )
        raise PondFull(f"no free slot for {timeout_s:.1f} s: {connection.holders}")

    def _wait_for_credit(self, connection: Connection, until_s: float, grace_s: float) -> None:
        """Wait for a slot; by `grace_s` longer for an answer that is still to come."""
        while not connection.credits and not connection.is_closing:
            end_s = until_s if connection.is_answered else until_s + grace_s
            if not connection.wait(end_s) and time.monotonic() >= end_s:
                return


class Slot:
    """A slot that was claimed: write its channels, then publish it.

    ``slot["rgb"]`` is the array in shared memory itself; ``slot["loss"] = 0.3`` copies a value.
    Leaving its ``with`` without `publish` gives it back.
    """

    __slots__ = ("_connection", "_is_open", "_pond", "_ref", "_touched")

    def __init__(self, pond: Pond, connection: Connection, ref: tuple[int, int]) -> None:
        self._pond = pond
        self._connection = connection
        self._ref = ref  # (slot, generation)
        self._touched: set[str] = set()
        self._is_open = True

    def __getitem__(self, channel: str) -> NDArray[Any]:
        """One channel, to write into: the channel's shape and dtype, in shared memory."""
        self._check_open()
        try:
            array: NDArray[Any] = self._connection.arrays[channel][self._ref[0], ...]
        except KeyError:
            raise self._unknown(channel) from None
        self._touched.add(channel)
        return array

    def __setitem__(self, channel: str, value: Any) -> None:
        """Copy a value into one channel.

        Raises:
            InvalidResult: There is no such channel, or shape or dtype differ.
        """
        self._check_open()
        spec = self._connection.channels.get(channel)
        if spec is None:
            raise self._unknown(channel)
        write_value(self._connection.arrays[channel], self._ref[0], spec, value)
        self._touched.add(channel)

    def publish(
        self,
        id: str,
        render_args: Mapping[str, Any] | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Hand the slot to the loggers; it may not be written any more.

        Raises:
            InvalidResult: Something does not fit, or a channel was never touched: it would still
                hold an older result.  Nothing was sent; the slot may be mended and published.
            DaemonUnreachable: The daemon is gone or does not read.
        """
        self._check_open()
        connection = self._connection
        if len(self._touched) < len(connection.arrays):
            missing = ", ".join(name for name in connection.arrays if name not in self._touched)
            raise InvalidResult(f"result {id!r}: nothing was written to {missing}")
        body = encode_job(id, render_args or {}, fields)
        self._is_open = False
        self._pond.send_published(connection, self._ref, id, body)

    def __enter__(self) -> Self:
        """Use it in a ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the slot back when it was not published; an error on the way is not hidden."""
        if self._is_open:
            self._is_open = False
            try:
                self._pond.give_back(self._connection, self._ref)
            except DaemonUnreachable:
                if error is None:
                    raise

    def _check_open(self) -> None:
        if not self._is_open:
            raise InvalidResult("this slot was published or given back; claim another one")

    def _unknown(self, channel: str) -> InvalidResult:
        return unknown_channel(channel, self._connection.layout.channels)
