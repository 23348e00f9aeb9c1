"""Loggers that start processes and flood their output: nothing is left, and nobody suffers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
from faults.scene import OFTEN, STRAY_S, Scene, brood, diary, rows, wait_s
from system.harness import wait_until

Figure = Callable[..., None]
THINK_S = 0.005
COUNT = 1000
CHILDREN, GRANDCHILDREN = 200, 10
FLOOD_BYTES_PER_S = 100_000_000
GROWTH_BYTES_MAX = 5 << 20


def test_a_fork_bomb_and_grandchildren_far_away(scene: Scene, figure: Figure) -> None:
    options = {"children": CHILDREN, "grandchildren": GRANDCHILDREN}
    scene.start([brood("bomb", options=options, restart=OFTEN), rows("csv"), diary("plugin")])
    alone = scene.renderer("alone", count=COUNT, think_s=THINK_S).wait().rate
    scene.wait_settled()
    usual = len(scene.strays())
    scene.renderer("riot", count=1, moods={"0": "riot"}).wait()
    scene.wait_settled()
    assert len(scene.strays()) == usual + CHILDREN + GRANDCHILDREN
    beside = scene.renderer("beside", count=COUNT, think_s=THINK_S)
    beside.wait_going()
    known = set(scene.strays())
    start_s = time.monotonic()
    bomb = scene.daemon.signal_logger("bomb", signal.SIGKILL)
    names = {row["pid"] for row in scene.daemon.status()["loggers"].values()}
    victims = known - names - {scene.daemon.process.pid, bomb}
    wait_until(lambda: not victims & set(scene.strays()), "all of them are gone")
    wait_until(lambda: not zombies(scene), "all of them are reaped")
    gone_s = time.monotonic() - start_s
    rate = beside.wait().rate
    outcome = scene.epilogue()
    outcome.assert_nothing_lost(exact=("csv", "plugin"))
    figure("processes", len(victims))
    figure("none left after, s", gone_s, "< 1")
    figure("rate of the others, part", rate / alone, ">= 0.8")
    assert len(victims) >= CHILDREN + GRANDCHILDREN
    assert gone_s < STRAY_S
    assert rate >= 0.8 * alone
    assert not outcome.dead


def zombies(scene: Scene) -> list[int]:
    """What has ended below the daemon, and nobody has asked about."""
    found = []
    for child in scene.daemon.psutil.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def test_a_flood_of_output(scene: Scene, figure: Figure) -> None:
    options = {"flood_bytes_per_s": FLOOD_BYTES_PER_S}
    scene.start([brood("loud", options=options), rows("csv"), diary("plugin")])
    alone = scene.renderer("alone", count=COUNT, think_s=THINK_S).wait().rate
    before_bytes = scene.daemon.psutil.memory_info().rss
    log_bytes = len(scene.daemon.log)
    scene.renderer("riot", count=1, moods={"0": "riot"}).wait()
    wait_s(1.0)
    beside = scene.renderer("beside", count=COUNT, think_s=THINK_S).wait()
    growth_bytes = scene.daemon.psutil.memory_info().rss - before_bytes
    flooded = float((scene.run / "flooded").read_text())
    log_bytes = len(scene.daemon.log) - log_bytes
    scene.wait_settled()
    outcome = scene.epilogue()
    outcome.assert_nothing_lost(exact=("csv", "plugin"))
    figure("flood, MB/s", flooded, "100")
    figure("growth of the daemon, MiB", growth_bytes / 2**20, "< 5")
    figure("growth of its log, MiB", log_bytes / 2**20, "< 3")
    figure("rate of the others, part", beside.rate / alone, ">= 0.8")
    assert not outcome.dead
    assert growth_bytes < GROWTH_BYTES_MAX
    assert log_bytes < 3 << 20
    assert beside.rate >= 0.8 * alone
