"""Renderers that die, and peers that are none: nobody else notices, and nothing leaks."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

from faults.daemon_renderers import (
    are_closed,
    claimers,
    garbage,
    raw_peer,
    send_descriptors,
    send_garbage,
)
from faults.oracle import quantile
from faults.scene import RendererProcess, Scene, rows, wait_s
from system.harness import SMALL, wait_until

Figure = Callable[..., None]
KILLS = 200
SLOTS_BACK_S = 0.1
GARBAGE_COUNT, SLOW_COUNT, CONNECT_COUNT, DESCRIPTOR_COUNT = 10_000, 200, 1_000, 250
MEMORY_MAX_BYTES = 10 * 1024 * 1024
# Below this a p99 says more about the machine than about the daemon.
NOISE_S = 0.005


def test_killed_between_claim_and_publish(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    buffer = {"slots": 16, "channels": SMALL}
    daemon = scene.start([rows("csv"), rows("json")], buffer=buffer)
    took_s = []
    with claimers(daemon.run) as crowd:
        for _ in range(KILLS):
            pid = crowd.claim(chance.randint(1, 6), chance.randint(0, 3))
            assert daemon.status()["slots"]["free"] < 16
            start_s = time.monotonic()
            crowd.kill(pid)
            wait_until(lambda: daemon.status()["slots"]["free"] == 16, "all slots are back")
            took_s.append(time.monotonic() - start_s)
            crowd.wait_reaped()
    results = daemon.status()["results"]
    outcome = scene.epilogue()
    figure("kills", len(took_s))
    figure("slots back p99, ms", quantile(took_s, 0.99) * 1000)
    figure("slots back worst, ms", max(took_s) * 1000, "< 100")
    figure("results delivered", results, "0")
    outcome.assert_nothing_lost()
    assert results == 0
    assert outcome.accounts["csv"].recorded == outcome.accounts["json"].recorded == 1
    assert max(took_s) < SLOTS_BACK_S


def test_a_renderer_killed_under_load(
    scene: Scene, chance: random.Random, seconds: Callable[[float], float], figure: Figure
) -> None:
    """What it had sent is delivered as a whole or not at all, and once."""
    scene.start([rows("csv"), rows("json")])
    steady = scene.renderer("steady", think_s=0.001).wait_going()
    kills = 0
    end_s = time.monotonic() + seconds(15)
    while time.monotonic() < end_s:
        victim = scene.renderer(f"v{kills}", batch=chance.randint(1, 40)).wait_going()
        wait_s(chance.random() * 0.2)
        victim.kill()
        kills += 1
    steady.finish()
    now = scene.wait_settled()
    outcome = scene.epilogue()
    figure("kills", kills)
    figure("results", now["results"])
    outcome.assert_nothing_lost()
    assert not outcome.dead
    csv, json = (outcome.accounts[name].recorded for name in ("csv", "json"))
    assert csv == json == now["results"] + 1


def p99_of(renderer: RendererProcess) -> float:
    return quantile(renderer.finish().waits, 0.99)


def test_garbage_slow_peers_and_floods_at_once(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    daemon = scene.start([rows("csv"), rows("json")])
    place = daemon.socket
    quiet = scene.renderer("quiet", think_s=0.002).wait_going()
    for _ in range(100):  # So that what is made once is made.
        send_garbage(place, garbage(chance))
    wait_s(4)
    before_s = p99_of(quiet)
    wait_until(lambda: not daemon.status()["renderers"], "it has left")
    fds, memory_bytes = daemon.psutil.num_fds(), daemon.psutil.memory_info().rss

    good = scene.renderer("good", think_s=0.002).wait_going()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(raw_peer(place)) for _ in range(SLOW_COUNT)]
        for peer in slow[::2]:
            with contextlib.suppress(OSError):  # It may be out already: it was slow.
                peer.sendall(b"mp\x01"[: chance.randint(1, 3)])
        floods = [stack.enter_context(raw_peer(place)) for _ in range(CONNECT_COUNT)]
        send_descriptors(place, DESCRIPTOR_COUNT)
        for number in range(GARBAGE_COUNT):
            send_garbage(place, garbage(chance))
            if number % 1000 == 500:
                send_descriptors(place, DESCRIPTOR_COUNT)
        wait_until(lambda: are_closed([*slow, *floods]), "the daemon has closed what says nothing")
    after_s = p99_of(good)
    wait_until(lambda: daemon.psutil.num_fds() <= fds, "descriptors are as before")
    fds_after = daemon.psutil.num_fds()
    grown = daemon.psutil.memory_info().rss - memory_bytes
    outcome = scene.epilogue()
    figure("good client's p99 before, ms", before_s * 1000)
    figure("during, ms", after_s * 1000, "at most doubled, or < 5")
    figure("daemon's memory grew, MiB", grown / 2**20, "< 10")
    figure("descriptors grew", fds_after - fds, "<= 0")
    outcome.assert_nothing_lost()
    assert not outcome.dead
    assert "Traceback" not in daemon.log
    assert outcome.accounts["csv"].recorded == len(outcome.journals.acked)
    assert grown < MEMORY_MAX_BYTES
    assert after_s < max(2 * before_s, NOISE_S)
