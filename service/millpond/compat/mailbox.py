"""Short messages from a process and its forked children to that process.

Each message goes whole through a socket, without a lock: a sender that is killed at any moment
leaves nothing behind that could stop the others.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import weakref
from contextlib import suppress
from typing import Final

from millpond.errors import DaemonUnreachable

SEND_S: Final = 120.0  # The owner takes messages at once, unless it is stopped.
MESSAGE_BYTES_MAX: Final = 128 * 1024

_mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()


def _close_inherited() -> None:
    for mailbox in list(_mailboxes):
        mailbox.let_go()


os.register_at_fork(after_in_child=_close_inherited)


class Mailbox:
    """Owned by the process that makes it; every process forked from that one may send."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader.setblocking(False)
        # The kernel's own limit: Python's would wait for a socket that is nearly empty.
        limit = struct.pack("ll", int(SEND_S), 0)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        _mailboxes.add(self)

    @property
    def is_ours(self) -> bool:
        """Whether this process is the owner."""
        return os.getpid() == self.owner_pid

    def send(self, message: bytes) -> None:
        """Send one message, of 1 to `MESSAGE_BYTES_MAX` bytes.

        Raises:
            DaemonUnreachable: The owner has ended, refuses it, or takes nothing for `SEND_S`.
        """
        try:
            self._writer.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise DaemonUnreachable(
                f"the process that owns the buffer (pid {self.owner_pid}) has taken no message "
                f"for {SEND_S:g} s; is it stopped?"
            ) from None
        except OSError as error:
            raise DaemonUnreachable(
                f"the process that owns the buffer (pid {self.owner_pid}) has ended or closed it: "
                f"nothing is logged or freed after log(None), join or close ({error.strerror})"
            ) from None

    def refuse(self) -> None:
        """Take nothing more: sending is an error from now on, here and in the children.

        What was sent before can still be received.  A `wait` of another thread ends.  Only who
        receives afterwards lets those go who wait for room.  The owner's.
        """
        with suppress(OSError):  # It was closed.
            self._reader.shutdown(socket.SHUT_RD)

    def receive(self) -> list[bytes]:
        """All messages that have come, without waiting; the owner's."""
        messages: list[bytes] = []
        while True:
            try:
                message = self._reader.recv(MESSAGE_BYTES_MAX)
            except (BlockingIOError, OSError):  # Empty; or closed.
                return messages
            if not message:
                return messages
            messages.append(message)

    def wait(self) -> None:
        """Wait until a message has come, or `refuse` was called; the owner's."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.poll()

    def let_go(self) -> None:
        """Close the end that only the owner needs, so that its death is noticed by the others."""
        self._reader.close()

    def close(self) -> None:
        """Close it; sending is an error from now on, here and in the children."""
        self._reader.close()
        self._writer.close()

    def __del__(self) -> None:
        """Nobody can reach it any more; 3DB never closes what it makes."""
        self.close()
