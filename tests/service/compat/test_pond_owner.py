"""The owner claims for its children, and publishes what they have done with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from service.compat.conftest import CHANNELS, rows, wait_until
from service.compat.forked import in_fork
from service.scripted_daemon import CHANNELS as SCRIPTED
from service.scripted_daemon import Peer, serve

from millpond.compat.mailbox import Mailbox
from millpond.compat.messages import End, Free, Log, encode
from millpond.compat.pond_owner import PondOwner
from millpond.compat.slot_pond import SlotPond
from millpond.errors import DaemonUnreachable, InvalidResult, PondFull

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

DECLARED = {channel.name: (channel.shape, channel.dtype) for channel in CHANNELS}
VALUES = {"rgb": np.ones((3, 4, 4), "float32"), "is_correct": True, "loss": 0.5}


def log_of(slot: int, id: str) -> Log:
    return Log(slot, id, b'{"id":"%s","render_args":{}}' % id.encode())


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


@pytest.fixture
def owner(served: Path, mailbox: Mailbox) -> Iterator[PondOwner]:
    made = PondOwner(SlotPond(served, DECLARED, connect_s=10), mailbox)
    yield made
    if not made.is_over:
        made.end()


def test_what_was_logged_and_freed_is_recorded(owner: PondOwner, served: Path) -> None:
    slot = owner.allocate(VALUES, {1, 2}, 5)
    owner.tell(log_of(slot, "two-holders"))
    owner.tell(Free(slot, 2))
    owner.tell(Free(slot, 1))
    wait_until(lambda: "two-holders,True,0.5" in rows(served))


def test_what_a_child_says_is_taken_in_without_a_call(
    owner: PondOwner, mailbox: Mailbox, served: Path
) -> None:
    slot = owner.allocate(VALUES, {1}, 5)

    def child() -> None:
        mailbox.send(encode(log_of(slot, "from-a-child")))
        mailbox.send(encode(Free(slot, 1)))

    in_fork(child)
    wait_until(lambda: "from-a-child" in rows(served))


def test_nothing_is_recorded_before_the_last_has_freed_it(
    owner: PondOwner, mailbox: Mailbox, served: Path
) -> None:
    slot = owner.allocate(VALUES, {1, 9}, 5)
    owner.tell(log_of(slot, "first"))
    owner.tell(Free(slot, 1))
    other = owner.allocate(VALUES, (), 5)
    owner.tell(log_of(other, "second"))
    wait_until(lambda: "second" in rows(served))
    assert "first" not in rows(served)
    owner.tell(Free(slot, 9))
    wait_until(lambda: "first" in rows(served))


def test_a_freed_slot_is_used_again_while_somebody_waits(
    owner: PondOwner, mailbox: Mailbox
) -> None:
    slots = [owner.allocate(VALUES, {1}, 5) for _ in range(3)]

    def child() -> None:
        for slot in slots:
            mailbox.send(encode(Free(slot, -1)))

    in_fork(child)
    for _ in range(20):
        owner.tell(Free(owner.allocate(VALUES, {1}, 5), -1))


def test_a_full_pond_says_what_this_process_waits_for(owner: PondOwner) -> None:
    slots = []
    told = r"held by renderer.*; of \d results in use by this process, \d to be logged"
    with pytest.raises(PondFull, match=told):
        while True:
            slots.append(owner.allocate(VALUES, {1}, 0.2))
    for slot in slots:
        owner.tell(Free(slot, -1))


def test_a_result_that_does_not_fit_costs_no_slot(owner: PondOwner) -> None:
    for _ in range(10):
        with pytest.raises(InvalidResult, match="without channel 'loss'"):
            owner.allocate({"rgb": VALUES["rgb"], "is_correct": True}, {1}, 5)
    owner.tell(Free(owner.allocate(VALUES, {1}, 5), -1))


def test_what_cannot_be_logged_is_an_error_here_and_a_line_for_a_child(
    owner: PondOwner, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LookupError, match="result 'nothing' cannot be logged: result_ix 77"):
        owner.tell(log_of(77, "nothing"))
    with caplog.at_level(logging.ERROR):
        in_fork(mailbox.send, encode(log_of(78, "nothing")))
        wait_until(lambda: "result_ix 78 is free" in caplog.text)


def test_the_end_publishes_what_was_logged_and_gives_the_rest_back(
    owner: PondOwner, served: Path
) -> None:
    logged = owner.allocate(VALUES, {1}, 5)
    owner.tell(log_of(logged, "not-freed"))
    owner.allocate(VALUES, {1}, 5)
    owner.end()
    assert owner.is_over
    wait_until(lambda: "not-freed" in rows(served))
    with pytest.raises(DaemonUnreachable):
        owner.allocate(VALUES, {1}, 5)
    owner.end()


def test_a_child_may_end_it(owner: PondOwner, mailbox: Mailbox, served: Path) -> None:
    slot = owner.allocate(VALUES, (), 5)

    def child() -> None:
        mailbox.send(encode(log_of(slot, "the-last")))
        mailbox.send(encode(End()))

    in_fork(child)
    wait_until(lambda: owner.is_over)
    wait_until(lambda: "the-last" in rows(served))


def test_what_is_logged_after_the_end_is_told_and_counted(
    served: Path, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox.send(encode(End()))
    mailbox.send(encode(log_of(0, "too-late")))
    mailbox.send(encode(Free(0, 1)))
    owner = PondOwner(SlotPond(served, DECLARED, connect_s=10), mailbox)
    wait_until(lambda: owner.late == ["too-late"])
    assert "'too-late' cannot be logged: it comes after the end" in caplog.text
    with pytest.raises(LookupError, match="'here' cannot be logged: it comes after the end"):
        owner.tell(log_of(0, "here"))
    with pytest.raises(DaemonUnreachable):
        in_fork(mailbox.send, encode(log_of(0, "refused")))
    owner.end()
    assert owner.late == ["too-late"]  # The others know it.


def test_after_an_end_that_failed_nothing_is_taken_either(tmp_path: Path, mailbox: Mailbox) -> None:
    path = tmp_path / "scripted.sock"
    is_used = threading.Event()

    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        assert is_used.wait(20)

    with serve(path, script):
        pond = SlotPond(path, {c.name: (c.shape, c.dtype) for c in SCRIPTED}, connect_s=5)
        owner = PondOwner(pond, mailbox)
        slot = owner.allocate({"rgb": np.ones((2, 3), "float32"), "loss": 1.0}, (), 5)
        is_used.set()
    mailbox.send(encode(log_of(slot, "unsent")))
    wait_until(lambda: _fails(owner))
    for _ in range(2):
        with pytest.raises(DaemonUnreachable):
            owner.end()
        with pytest.raises(DaemonUnreachable, match="nothing is logged"):
            mailbox.send(encode(End()))


def _fails(owner: PondOwner) -> bool:
    try:
        owner.drain()
    except DaemonUnreachable:
        return True
    return False


def test_the_end_of_the_daemon_is_told_to_whoever_calls_next(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    path = tmp_path / "scripted.sock"

    def script(peer: Peer) -> None:
        peer.welcome((0, 1))

    with serve(path, script):
        pond = SlotPond(path, {c.name: (c.shape, c.dtype) for c in SCRIPTED}, connect_s=5)
        owner = PondOwner(pond, mailbox)
    for _ in range(2):
        with pytest.raises(DaemonUnreachable):
            owner.allocate({"rgb": np.ones((2, 3), "float32"), "loss": 1.0}, {1}, 1)
    owner.end()
