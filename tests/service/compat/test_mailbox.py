"""Messages of forked processes arrive whole, in order, and no death stops the others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from service.compat.conftest import wait_until
from service.compat.forked import in_fork

from millpond.compat.mailbox import MESSAGE_BYTES_MAX, Mailbox
from millpond.core.wire import BODY_BYTES_MAX
from millpond.errors import DaemonUnreachable

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def test_nothing_has_come_at_first(mailbox: Mailbox) -> None:
    assert mailbox.is_ours
    assert mailbox.receive() == []


def test_messages_arrive_whole_and_in_order(mailbox: Mailbox) -> None:
    sent = [b"ab", b"cde" * 50, os.urandom(BODY_BYTES_MAX + 2000), b"\0\0"]
    for message in sent:
        mailbox.send(message)
    assert mailbox.receive() == sent
    assert len(sent[2]) < MESSAGE_BYTES_MAX


def test_a_waiting_thread_is_woken_by_a_refusal(mailbox: Mailbox) -> None:
    waiting = threading.Thread(target=mailbox.wait)
    waiting.start()
    mailbox.refuse()
    waiting.join(20)
    assert not waiting.is_alive()
    mailbox.wait()
    assert mailbox.receive() == []


def test_what_was_sent_before_a_refusal_arrives_and_later_sending_is_an_error(
    mailbox: Mailbox,
) -> None:
    in_fork(mailbox.send, b"before")
    for _ in range(2):
        mailbox.refuse()
        with pytest.raises(DaemonUnreachable, match=r"ended or closed it: nothing is logged"):
            in_fork(mailbox.send, b"after")
    assert mailbox.receive() == [b"before"]


def test_a_sender_that_waits_for_room_is_let_go_after_a_refusal(mailbox: Mailbox) -> None:
    pid = os.fork()
    if not pid:
        try:
            while True:
                mailbox.send(bytes(60_000))
        except DaemonUnreachable:
            os._exit(7)
    state = Path(f"/proc/{pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S")
    mailbox.refuse()
    assert mailbox.receive()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_forked_process_sends_and_is_not_the_owner(mailbox: Mailbox) -> None:
    def child() -> bool:
        mailbox.send(b"from the child")
        return mailbox.is_ours

    assert in_fork(child) is False
    mailbox.wait()
    assert mailbox.receive() == [b"from the child"]


def test_a_sender_waits_while_the_owner_takes_nothing_and_loses_nothing(mailbox: Mailbox) -> None:
    pid = os.fork()
    if not pid:
        for number in range(2000):  # Many times what a socket holds.
            mailbox.send(b"%04d" % number + bytes(1000))
        os._exit(0)
    numbers: list[int] = []
    while len(numbers) < 2000:
        mailbox.wait()
        numbers += [int(message[:4]) for message in mailbox.receive()]
    assert os.waitpid(pid, 0)[1] == 0
    assert numbers == list(range(2000))


def test_a_sender_that_is_killed_stops_nobody(mailbox: Mailbox) -> None:
    pid = os.fork()
    if not pid:
        while True:
            mailbox.send(bytes(60_000))
    mailbox.wait()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while messages := mailbox.receive():
        assert {len(message) for message in messages} == {60_000}
    in_fork(mailbox.send, b"the next one")
    assert mailbox.receive() == [b"the next one"]


def test_a_child_notices_that_the_owner_has_gone() -> None:
    read_end, write_end = os.pipe()
    owner = os.fork()
    if not owner:
        mailbox = Mailbox()
        start_read, start_write = os.pipe()
        if not os.fork():
            os.close(start_write)
            os.read(start_read, 1)  # Until the owner is dead.
            try:
                while True:  # The kernel closes what it had one after the other.
                    mailbox.send(b"hello")
            except DaemonUnreachable as error:
                os.write(write_end, str(error).encode())
            os._exit(0)
        os._exit(0)
    os.close(write_end)
    os.waitpid(owner, 0)
    with os.fdopen(read_end) as told:
        assert f"owns the buffer (pid {owner}) has ended" in told.read()


def test_sending_into_a_closed_one_is_an_error_that_says_so() -> None:
    mailbox = Mailbox()
    mailbox.close()
    assert mailbox.receive() == []
    with pytest.raises(DaemonUnreachable, match="ended or closed it"):
        mailbox.send(b"x")
