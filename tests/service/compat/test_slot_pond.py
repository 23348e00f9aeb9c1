"""Slots by their numbers, over one connection only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.compat.conftest import CHANNELS, rows, wait_until
from service.scripted_daemon import CHANNELS as SCRIPTED
from service.scripted_daemon import PID, Peer, serve

from millpond.compat.slot_pond import SlotPond
from millpond.core.wire import Kind
from millpond.errors import ChannelsRefused, DaemonUnreachable, InvalidResult, PondFull

DECLARED = {channel.name: (channel.shape, channel.dtype) for channel in CHANNELS}
VALUES = {"rgb": np.ones((3, 4, 4), "float32"), "is_correct": True, "loss": 0.5}


def nothing() -> None:
    pass


@pytest.fixture
def pond(served: Path) -> Iterator[SlotPond]:
    made = SlotPond(served, DECLARED, connect_s=10)
    yield made
    made.close()


def test_a_slot_is_written_by_its_number_and_seen_by_it(pond: SlotPond) -> None:
    slot, generation = ref = pond.claim_slot(5, nothing)
    pond.write(slot, {**VALUES, "is_correct": np.array([False])})
    assert pond.arrays["rgb"].shape == (4, 3, 4, 4)
    assert (pond.arrays["rgb"][slot] == 1).all()
    assert not pond.arrays["is_correct"][slot]
    assert generation > 0
    assert pond.layout.slot_count == 4
    pond.return_slot(ref)


def test_what_is_published_reaches_the_loggers(pond: SlotPond, served: Path) -> None:
    slot, generation = pond.claim_slot(5, nothing)
    pond.write(slot, VALUES)
    pond.publish_slot((slot, generation), "published", b'{"id":"published","render_args":{}}')
    pond.flush()
    wait_until(lambda: "published,True,0.5" in rows(served))


def test_a_full_pond_says_who_holds_it_and_meanwhile_is_called(pond: SlotPond) -> None:
    refs = []
    calls: list[int] = []
    with pytest.raises(PondFull, match=r"no free slot for 0\.5 s: . of 4 held by renderer"):
        while True:  # One more may be ready for the connection that keeps the daemon.
            refs.append(pond.claim_slot(0.5, lambda: calls.append(1)))
    assert len(refs) >= 3
    assert len(calls) > 1
    freed = [refs.pop()]
    got = pond.claim_slot(5, lambda: freed and pond.return_slot(freed.pop()))
    assert got[0] not in {slot for slot, _ in refs}
    for ref in (*refs, got):
        pond.return_slot(ref)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"rgb": VALUES["rgb"], "loss": 1.0}, "a result without channel 'is_correct'; the channel"),
        ({**VALUES, "depth": 1}, "a result with the unknown channel 'depth'; the channels are rgb"),
        ({**VALUES, "rgb": np.ones((4, 4, 3), "float32")}, "channel 'rgb': expected shape"),
        ({**VALUES, "rgb": np.ones((3, 4, 4), "float64")}, "float64"),
        ({**VALUES, "is_correct": 0.5}, "is_correct"),
    ],
)
def test_a_result_that_does_not_fit_is_named(
    pond: SlotPond, values: dict[str, Any], problem: str
) -> None:
    ref = pond.claim_slot(5, nothing)
    with pytest.raises(InvalidResult, match=problem):
        pond.write(ref[0], values)
    pond.return_slot(ref)


def test_other_channels_are_refused(served: Path) -> None:
    with pytest.raises(ChannelsRefused):
        SlotPond(served, {"other": ((3,), "uint8")}, connect_s=5)


def test_nobody_there_is_told_in_time(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="no daemon answers"):
        SlotPond(tmp_path / "none.sock", DECLARED, connect_s=0.05)


def leave(peer: Peer) -> None:
    peer.socket.close()


def close_first(peer: Peer) -> None:
    peer.send(Kind.CLOSING)
    peer.expect(Kind.WANT)
    peer.socket.recv(1)  # Until the renderer leaves.


@pytest.mark.parametrize(
    ("end", "problem"), [(leave, "the daemon ended"), (close_first, "is shutting down")]
)
def test_the_end_of_the_daemon_ends_a_wait_and_there_is_no_other_connection(
    tmp_path: Path, end: Callable[[Peer], None], problem: str
) -> None:
    path = tmp_path / "scripted.sock"

    def script(peer: Peer) -> None:
        peer.welcome()
        end(peer)

    with serve(path, script):
        pond = SlotPond(path, {c.name: (c.shape, c.dtype) for c in SCRIPTED}, connect_s=5)
        assert pond.daemon_pid == PID
        with pytest.raises(DaemonUnreachable, match=problem):
            pond.claim_slot(5, nothing)
        if end is leave:
            for use in (
                lambda: pond.claim_slot(1, nothing),
                lambda: pond.publish_slot((0, 1), "a", b"{}"),
                lambda: pond.return_slot((0, 1)),
                lambda: pond.arrays,
            ):
                with pytest.raises(DaemonUnreachable, match="has ended, and the run with it"):
                    use()
        pond.close()
