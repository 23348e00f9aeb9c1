"""The process that owns a buffer: it claims slots, and publishes what others have done with.

A thread takes in what forked processes say, so that nobody waits for the next `allocate`.  It and
the callers take turns: a pond belongs to one thread at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from millpond.compat.mailbox import Mailbox
from millpond.compat.messages import End, Free, Log, Message, decode
from millpond.compat.slot_pond import SlotPond
from millpond.compat.slots_in_use import SlotsInUse, Use
from millpond.errors import MillpondError, PondFull

log = logging.getLogger(__name__)

THREAD_END_S: Final = 10.0
GATHER_S: Final = 0.005  # Of messages that are taken in together.


class PondOwner:
    """Made in the process that made the mailbox.

    Args:
        pond: Where the slots come from; this owner closes it.
        mailbox: Where the messages of others come in.
    """

    def __init__(self, pond: SlotPond, mailbox: Mailbox) -> None:
        self._pond = pond
        self._mailbox = mailbox
        self._uses = SlotsInUse()
        self._turn = threading.RLock()
        self._failure: MillpondError | None = None
        self._is_over = False
        self._late: list[str] = []
        self._thread = threading.Thread(target=self._take_in, name="millpond", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the end has come: nothing more is allocated or logged."""
        return self._is_over

    @property
    def late(self) -> list[str]:
        """The ids of what others logged after the end: it is not recorded."""
        return self._late

    def allocate(self, values: Mapping[str, Any], holders: Iterable[int], timeout_s: float) -> int:
        """Copy a result into a free slot.

        Args:
            values: Every channel by its name.
            holders: The registrations that will free it.
            timeout_s: Seconds to wait for a slot.

        Returns:
            The slot.

        Raises:
            InvalidResult: The result does not fit; no slot is lost.
            PondFull: No slot came free in time; the message names who holds them.
            DaemonUnreachable: The daemon is gone, or the end has come.
        """
        with self._turn:
            self.drain()
            try:
                slot, generation = self._pond.claim_slot(timeout_s, self.drain)
            except PondFull as full:
                raise PondFull(f"{full}; {self._uses}") from None
            try:
                self._pond.write(slot, values)
            except BaseException:
                self._pond.return_slot((slot, generation))
                raise
            self._uses.begin(slot, generation, holders)
        return slot

    def tell(self, message: Message) -> None:
        """Take in a message of this process.

        Raises:
            LookupError: It logs what cannot be logged, or after the end.
            DaemonUnreachable: The daemon is gone.
        """
        with self._turn:
            self.drain()
            self._take(message)

    def drain(self) -> None:
        """Take in all that others have said so far.

        Raises:
            DaemonUnreachable: The daemon was gone when this was tried before, or is now.
        """
        with self._turn:
            self._receive()
            if self._failure is not None:
                raise self._failure

    def end(self) -> None:
        """Publish what was logged, give back what was not, and leave the pond.

        Raises:
            DaemonUnreachable: The daemon is gone, or did not acknowledge everything; also when
                somebody else has said before that the end has come.
        """
        with self._turn:
            try:
                self.drain()
                self._end()
            finally:
                self._refuse()
        if threading.current_thread() is not self._thread:
            self._thread.join(THREAD_END_S)

    def _take_in(self) -> None:
        while not self._is_over:
            self._mailbox.wait()
            # A caller who allocates one result after the other takes in the messages himself.
            time.sleep(GATHER_S)
            try:
                self.drain()
            except MillpondError:
                continue  # It is told to whoever calls next.

    def _receive(self) -> None:
        for data in self._mailbox.receive():
            message = decode(data)
            try:
                self._take(message)
            except LookupError as error:
                log.error("%s", error)
                if self._is_over and isinstance(message, Log):
                    self._late.append(message.id)
            except MillpondError as error:
                self._failure = self._failure or error

    def _take(self, message: Message) -> None:
        match message:
            case Free(slot, registration):
                self._finish(self._uses.free(slot, registration))
            case Log(_, id) if self._is_over:
                raise LookupError(
                    f"result {id!r} cannot be logged: it comes after the end, which log(None), "
                    "join or close has said"
                )
            case Log(slot, id, body):
                self._finish(self._uses.log(slot, (id, body)))
            case End():
                self._end()

    def _finish(self, use: Use | None) -> None:
        if use is None:
            return
        ref = (use.slot, use.generation)
        if use.job is None:
            self._pond.return_slot(ref)
        else:
            self._pond.publish_slot(ref, *use.job)

    def _end(self) -> None:
        if self._is_over:
            return
        self._refuse()
        for use in self._uses.end():
            self._finish(use)
        self._pond.close()

    def _refuse(self) -> None:
        """Take nothing more from others; what has come meanwhile is too late."""
        self._is_over = True
        self._mailbox.refuse()
        self._receive()
