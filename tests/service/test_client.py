"""What a renderer can rely on, whatever the daemon says: against daemons that follow a script."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.scripted_daemon import CHANNELS, RENDERER, WATCHDOG_S, Peer, serve

import millpond
from millpond.client import Pond
from millpond.client_connection import SOCKET_NAME
from millpond.core.wire import HEADER, MAGIC, Kind, pack, pack_grants

DECLARED = {channel.name: (channel.shape, channel.dtype) for channel in CHANNELS}
RGB = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS: dict[str, Any] = {"rgb": RGB, "loss": 0.5}
REFUSED_LATER = {
    "no JSON": b"it is late",
    "a list": b"[]",
    "no problem": b"{}",
    "no UTF-8": b'{"problem": "\xff"}',
    "too deep": b"[" * 50_000,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / SOCKET_NAME


def idle(peer: Peer) -> None:
    peer.welcome()
    peer.expect_end()


def connect(path: Path, **options: Any) -> Pond:
    return millpond.connect(path, DECLARED, **{"claim_timeout_s": WATCHDOG_S, **options})


# Where it is.


@pytest.mark.parametrize("form", ["socket", "folder", "text"])
def test_a_socket_or_the_folder_of_a_run_can_be_given(path: Path, form: str) -> None:
    given = {"socket": path, "folder": path.parent, "text": str(path)}[form]
    with serve(path, idle), millpond.connect(given) as pond:
        assert list(pond.channels.values()) == list(CHANNELS)


def test_a_run_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    ponds: list[Pond] = []
    waiting = threading.Thread(target=lambda: ponds.append(connect(tmp_path / "run")))
    waiting.start()
    (tmp_path / "run").mkdir()
    with serve(tmp_path / "run" / SOCKET_NAME, idle):
        waiting.join(WATCHDOG_S)
        ponds[0].close()


@pytest.mark.parametrize(
    ("given", "looked_for"), [("run", "run/millpond.sock"), ("run/own.sock", "run/own.sock")]
)
def test_what_is_not_there_is_named(tmp_path: Path, given: str, looked_for: str) -> None:
    with pytest.raises(millpond.DaemonUnreachable) as absent:
        connect(tmp_path / given, claim_timeout_s=0)
    assert f"{tmp_path / looked_for}: no daemon answers (No such file" in str(absent.value)
    assert "start it: millpond run CONFIG" in str(absent.value)


@pytest.mark.parametrize("given", ["notes.txt", "run"])
def test_a_file_that_is_no_socket_is_refused_at_once(tmp_path: Path, given: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "run" / SOCKET_NAME).mkdir(parents=True)
    with pytest.raises(millpond.DaemonUnreachable, match="is no socket: give the daemon's"):
        connect(tmp_path / given)


def test_a_folder_that_appears_while_it_is_looked_for_is_a_folder(tmp_path: Path) -> None:
    """It was asked twice once, and the answers differed when the daemon started meanwhile."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            (tmp_path / "run").mkdir()
            (tmp_path / "run").rmdir()

    flickering = threading.Thread(target=come_and_go)
    flickering.start()
    try:
        for _ in range(500):
            with pytest.raises(millpond.DaemonUnreachable, match="no daemon answers"):
                connect(tmp_path / "run", claim_timeout_s=0)
    finally:
        over.set()
        flickering.join(WATCHDOG_S)


# Claim and publish.


def test_a_result_is_one_frame_about_the_slot_that_was_granted(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((1, 3), (2, 9))
        frame = peer.expect(Kind.PUBLISH, slot=2, generation=9, sequence=1, renderer=RENDERER)
        assert json.loads(frame.body) == {
            "id": "a",
            "render_args": {"zoom": 1.5},
            "model": "teapot",
        }
        assert np.array_equal(peer.arrays["rgb"][2], RGB)
        assert peer.arrays["loss"][2] == np.float32(0.25)
        frame = peer.expect(Kind.PUBLISH, slot=1, generation=3, sequence=2, renderer=RENDERER)
        assert json.loads(frame.body) == {"id": "b", "render_args": {}}
        assert np.array_equal(peer.arrays["rgb"][1], RGB + 1)
        peer.acknowledge(2)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pond.claim() as slot:
            slot["rgb"][...] = RGB
            slot["loss"] = 0.25
            slot.publish("a", {"zoom": 1.5}, fields={"model": "teapot"})
        pond.publish("b", rgb=RGB + 1, loss=1)


def test_a_claim_without_slots_asks_for_one(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.answer_want((3, 1))
        peer.expect(Kind.RETURN, slot=3, generation=1, renderer=RENDERER)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pond.claim():
            pass
        now = pond.statistics()
        assert (now.waits, now.published, now.connects) == (1, 0, 1)
        assert 0 < now.wait_s == now.wait_s_max


def test_a_slot_that_is_not_published_is_given_back(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1), (2, 4))
        for slot, generation in ((2, 4), (1, 1), (0, 1)):
            peer.expect(Kind.RETURN, slot=slot, generation=generation, renderer=RENDERER)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pond.claim() as slot:
            slot["loss"] = 1.0
        with pytest.raises(ZeroDivisionError), pond.claim():
            raise ZeroDivisionError
        with pytest.raises(millpond.InvalidResult, match="expected shape"):
            pond.publish("x", rgb=RGB[0], loss=1.0)
        with pytest.raises(millpond.InvalidResult, match="published or given back"):
            slot["loss"] = 2.0


def test_a_result_is_published_once(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.expect(Kind.PUBLISH, sequence=1)
        peer.acknowledge(1)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pond.claim() as slot:
            slot["rgb"], slot["loss"] = RGB, 0.0
            slot.publish("once")
            for touch in (
                lambda: slot.publish("twice"),
                lambda: slot["rgb"],
                lambda: slot.__setitem__("loss", 1.0),
            ):
                with pytest.raises(millpond.InvalidResult, match="claim another one"):
                    touch()
        assert pond.statistics().published == 1


def test_what_was_never_written_is_not_published_and_can_be_mended(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        assert json.loads(peer.expect(Kind.PUBLISH, sequence=1).body)["id"] == "whole"
        peer.acknowledge(1)
        peer.expect_end()

    with serve(path, script), connect(path) as pond, pond.claim() as slot:
        with pytest.raises(millpond.InvalidResult, match="'x': nothing was written to rgb, loss"):
            slot.publish("x")
        slot["rgb"]  # To have it in one's hands is enough.
        with pytest.raises(millpond.InvalidResult, match="'x': nothing was written to loss"):
            slot.publish("x")
        slot["loss"] = 1.0
        with pytest.raises(millpond.InvalidResult, match="id must be text"):
            slot.publish("")
        slot.publish("whole")


def test_an_unknown_channel_is_answered_with_those_there_are(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.expect(Kind.RETURN)
        peer.expect_end()

    known = r"no channel 'depth'; the channels are rgb \(2, 3\) float32, loss \(\) float32"
    with serve(path, script), connect(path) as pond, pond.claim() as slot:
        with pytest.raises(millpond.InvalidResult, match=known):
            slot["depth"]
        with pytest.raises(millpond.InvalidResult, match=known):
            slot["depth"] = 1.0


# Acknowledgements.


def test_flush_waits_for_the_last_acknowledgement(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1))
        peer.expect(Kind.PUBLISH, sequence=1)
        peer.expect(Kind.PUBLISH, sequence=2)
        peer.expect(Kind.SYNC)
        peer.grant((2, 1), sequence=1)  # Not the last one yet.
        peer.send(Kind.SYNC, sequence=2)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        pond.flush()  # Nothing to wait for: nothing is said.
        pond.publish("a", **ARRAYS)
        pond.publish("b", **ARRAYS)
        assert (pond.statistics().published, pond.statistics().accepted) == (2, 0)
        pond.flush()
        assert (pond.statistics().published, pond.statistics().accepted) == (2, 2)
        pond.flush()


def test_a_flush_that_is_not_answered_names_what_may_be_lost(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1))
        peer.expect(Kind.PUBLISH, sequence=1)
        peer.expect(Kind.PUBLISH, sequence=2)
        peer.expect(Kind.SYNC)
        peer.send(Kind.SYNC, sequence=1)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        pond.publish("a", **ARRAYS)
        pond.publish("b", **ARRAYS)
        with pytest.raises(millpond.DaemonUnreachable) as lost:
            pond.flush(timeout_s=0.3)
        assert "no acknowledgement within 0.3 s" in str(lost.value)
        assert str(lost.value).endswith("1 published results were not acknowledged: b")
        assert pond.statistics().accepted == 1


def test_close_lists_what_was_not_acknowledged(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome(*((slot, 1) for slot in range(4)))
        for _ in range(3):
            for _ in range(4):
                peer.expect(Kind.PUBLISH)
            peer.answer_want(*((slot, 1) for slot in range(4)))
        peer.expect(Kind.SYNC)

    with serve(path, script):
        pond = connect(path)
        for number in range(12):
            pond.publish(f"r{number}", **ARRAYS)
        pond.claim()
        with pytest.raises(millpond.DaemonUnreachable) as lost:
            pond.close()
        ids = ", ".join(f"r{number}" for number in range(10))
        assert "the daemon ended; 12 published results were not ack" in str(lost.value)
        assert str(lost.value).endswith(f": {ids} and 2 more")
        pond.close()
        with pytest.raises(millpond.DaemonUnreachable, match="this pond was closed"):
            pond.claim()


def test_an_error_in_the_block_is_not_hidden_by_one_of_closing(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.expect(Kind.PUBLISH)

    with serve(path, script), pytest.raises(ZeroDivisionError), connect(path) as pond:
        pond.publish("a", **ARRAYS)
        raise ZeroDivisionError


@pytest.mark.parametrize("error", [ZeroDivisionError, None])
def test_an_error_in_a_slot_is_not_hidden_by_a_lost_daemon(
    path: Path, error: type[Exception] | None
) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.socket.close()
        closed.set()

    closed = threading.Event()
    with serve(path, script), connect(path) as pond:
        expected = error or millpond.DaemonUnreachable
        with pytest.raises(expected), pond.claim():
            assert closed.wait(WATCHDOG_S)
            if error is not None:
                raise error


# A daemon without slots, and one without answers.


def test_a_full_pond_says_who_holds_the_slots_at_the_end_of_the_wait(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.answer_who("4 of 4 held by '\N{TEACUP WITHOUT HANDLE}'")
        peer.answer_want((1, 1))
        peer.expect(Kind.RETURN, slot=1, generation=1)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pytest.raises(millpond.PondFull) as full:
            pond.claim(timeout_s=0.4)
        expected = "no free slot for 0.4 s: 4 of 4 held by '\N{TEACUP WITHOUT HANDLE}'"
        assert str(full.value) == expected
        assert isinstance(full.value, TimeoutError)
        with pond.claim():  # It is as good as before.
            pass
        assert (pond.statistics().connects, pond.statistics().waits) == (1, 2)


def test_a_daemon_that_does_not_answer_is_not_called_full(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.expect(Kind.WANT, slot=0)
        asked = peer.expect(Kind.WANT, slot=1)
        # An answer that comes late is to an older question.
        late = pack(Kind.HOLDERS, b"4 of 4", generation=asked.generation - 1)
        peer.socket.sendall(late)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        with pytest.raises(millpond.DaemonUnreachable) as silent:
            pond.claim(timeout_s=0.8)
        assert "the daemon (pid 4711) did not answer within 0.8 s" in str(silent.value)


def test_a_slot_that_comes_during_the_wait_is_taken(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.expect(Kind.WANT)
        grant = pack(Kind.GRANT, pack_grants([(3, 5)]))
        for byte in grant:
            peer.socket.sendall(bytes([byte]))
        peer.expect(Kind.RETURN, slot=3, generation=5)
        peer.expect_end()

    with serve(path, script), connect(path) as pond, pond.claim(timeout_s=math.inf):
        pass


def test_no_time_to_wait_is_enough_for_a_slot_that_is_there(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.expect(Kind.PUBLISH)
        peer.answer_who("4 of 4")
        peer.acknowledge(1)
        peer.expect_end()

    with serve(path, script), connect(path) as pond:
        pond.publish("a", timeout_s=0, **ARRAYS)
        # Without load the answer comes within the grace; with it the daemon may seem silent.
        with pytest.raises((millpond.PondFull, millpond.DaemonUnreachable)):
            pond.claim(timeout_s=0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_daemon_that_ends_gives_no_slots_and_still_takes_results(path: Path, when: str) -> None:
    def script(peer: Peer) -> None:
        peer.welcome((0, 1))
        if when == "before":
            peer.send(Kind.CLOSING)
        said.set()
        peer.expect(Kind.PUBLISH)
        if when == "after":
            peer.expect(Kind.WANT)
            peer.send(Kind.CLOSING)
        peer.acknowledge(1)
        peer.expect_end()

    said = threading.Event()
    with serve(path, script), connect(path) as pond:
        assert said.wait(WATCHDOG_S)  # Else the claim might come before it.
        pond.publish("a", **ARRAYS)
        for _ in range(2):
            with pytest.raises(millpond.DaemonUnreachable, match="the daemon is shutting down"):
                pond.claim()
        assert pond.statistics().connects == 1


# A lost daemon.


@pytest.mark.parametrize("verb", ["claim", "publish", "give back"])
def test_a_refusal_is_told_by_whatever_comes_next(path: Path, verb: str) -> None:
    """Also by a call that only sends, and finds the socket closed."""

    def script(peer: Peer) -> None:
        peer.welcome((0, 1), *([] if verb == "claim" else [(1, 1)]))
        peer.expect(Kind.PUBLISH)
        peer.refuse("sent sequence 3 after 1")
        peer.socket.close()
        closed.set()

    closed = threading.Event()
    with serve(path, script):
        pond = connect(path)
        pond.publish("a", **ARRAYS)
        assert closed.wait(WATCHDOG_S)
        with pytest.raises(millpond.DaemonUnreachable) as lost:
            if verb == "publish":
                pond.publish("b", **ARRAYS)
            else:
                with pond.claim():
                    pass
        count, ids = (2, "a, b") if verb == "publish" else (1, "a")
        assert str(lost.value) == (
            f"{path}: connection lost: sent sequence 3 after 1; "
            f"{count} published results were not acknowledged: {ids}"
        )
        pond.close()


def test_after_a_loss_the_next_claim_connects_again(path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1))
        peer.expect(Kind.PUBLISH, sequence=1)
        peer.acknowledge(1)

    def second(peer: Peer) -> None:
        assert peer.welcome((2, 2))["channels"] == {
            "rgb": [[2, 3], "float32"],
            "loss": [[], "float32"],
        }
        peer.expect(Kind.PUBLISH, slot=2, generation=2, sequence=1)
        peer.acknowledge(1)
        peer.expect_end()

    with serve(path, first, second), connect(path) as pond:
        pond.publish("a", **ARRAYS)
        pond.flush()
        slot = pond.claim()
        slot["rgb"], slot["loss"] = RGB, 1.0
        with pytest.raises(millpond.DaemonUnreachable, match="connection lost: "):
            pond.claim()
        # The slot went with the connection that gave it; what was sent counts once.
        with pytest.raises(millpond.DaemonUnreachable, match="'late' not sent: the connection"):
            slot.publish("late")
        with slot:
            pass
        pond.publish("b", **ARRAYS)
        pond.flush()
        now = pond.statistics()
        assert (now.connects, now.published, now.accepted) == (2, 2, 2)


GARBAGE = {
    "noise": os.urandom(8) + b"no frame" * 8,
    "another version": HEADER.pack(MAGIC, 9, Kind.GRANT, 0, 0, 0, 0, 0),
    "too long": HEADER.pack(MAGIC, 1, Kind.GRANT, 2**31, 0, 0, 0, 0),
    "a grant cut short": pack(Kind.GRANT, b"\0" * 13),
    "holders that are no text": pack(Kind.HOLDERS, b"\xff\xfe"),
    **{f"refused with {name}": pack(Kind.REFUSED, body) for name, body in REFUSED_LATER.items()},
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_nonsense_ends_the_connection_and_nothing_else(path: Path, data: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.expect(Kind.WANT)
        peer.socket.sendall(data)
        peer.expect_end()

    with serve(path, script, idle), connect(path) as pond:
        with pytest.raises(millpond.DaemonUnreachable, match="this is no millpond daemon: "):
            pond.claim()
        assert pond.channels  # It connected again.


def test_a_daemon_that_does_not_read_costs_no_more_than_the_deadline(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome(*((0, 1) for _ in range(2000)))
        assert over.wait(WATCHDOG_S)

    over = threading.Event()
    large = {"text": "x" * 60_000}
    with serve(path, script):
        pond = connect(path, claim_timeout_s=0.3)
        begin_s = time.monotonic()
        with pytest.raises(millpond.DaemonUnreachable, match="the daemon does not read"):
            for number in range(2000):
                pond.publish(f"{number}", large, **ARRAYS)
        assert time.monotonic() - begin_s < WATCHDOG_S
        over.set()
        pond.close()


# Forks.


def test_the_child_of_a_fork_leaves_its_parents_connection_alone(path: Path) -> None:
    def parent(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1))
        peer.expect(Kind.PUBLISH, slot=1, sequence=1)
        peer.expect(Kind.PUBLISH, slot=0, sequence=2)
        peer.acknowledge(2)
        peer.expect_end()

    source = """
import os, sys, numpy as np, millpond
arrays = dict(rgb=np.zeros((2, 3), np.float32), loss=0.0)
pond = millpond.connect(sys.argv[1])
pond.publish("parent-1", {}, **arrays)
with pond.claim() as slot:
    for name, value in arrays.items():
        slot[name] = value
    child = os.fork()
    if child == 0:
        pond.flush()
        try:
            slot.publish("child")
        except millpond.DaemonUnreachable as error:
            assert "not sent" in str(error), error
    else:
        assert os.waitpid(child, 0)[1] == 0
        slot.publish("parent-2")
pond.close()
"""
    with serve(path, parent):
        subprocess.run([sys.executable, "-c", source, path], check=True, timeout=60)


def test_the_child_of_a_fork_counts_from_the_beginning(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.answer_want((0, 1))
        peer.expect(Kind.PUBLISH, sequence=1)
        peer.acknowledge(1)

    source = """
import os, sys, numpy as np, millpond
arrays = dict(rgb=np.zeros((2, 3), np.float32), loss=0.0)
pond = millpond.connect(sys.argv[1])
pond.publish("parent", {}, **arrays)
pond.flush()
child = os.fork()
if child == 0:
    pond.publish("child", {}, **arrays)
    pond.flush()
now = pond.statistics()
assert (now.connects, now.published, now.accepted, now.waits) == (1, 1, 1, 1), now
assert now.wait_s == now.wait_s_max, now
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    with serve(path, script, script):
        subprocess.run([sys.executable, "-c", source, path], check=True, timeout=60)


def test_an_interruption_in_the_middle_of_a_publish_costs_the_connection_only(path: Path) -> None:
    """Ctrl-C may come when half a frame is out: what follows must not be taken for the rest."""
    interrupted = threading.Event()

    def does_not_read(peer: Peer) -> None:
        peer.welcome((0, 1), (1, 1), (2, 1), (3, 1))
        assert interrupted.wait(WATCHDOG_S)

    def next_one(peer: Peer) -> None:
        peer.welcome((0, 1))
        peer.expect(Kind.RETURN)
        peer.expect_end()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with serve(path, does_not_read, next_one), connect(path) as pond:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            args = {"text": "x" * 60_000}  # Four of them fill the socket's buffer.
            with pytest.raises(KeyboardInterrupt):
                for number in range(4):
                    pond.publish(f"{number}", args, timeout_s=WATCHDOG_S, **ARRAYS)
            interrupted.set()
            with pond.claim():
                pass
            assert pond.statistics().connects == 2
    finally:
        signal.signal(signal.SIGALRM, before)
