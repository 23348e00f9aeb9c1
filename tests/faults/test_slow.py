"""Loggers that are slow, or whose results may be dropped: the others and the renderer go on."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.scene import OFTEN, Scene, diary, rows, wait_s
from system.harness import wait_until

Figure = Callable[..., None]
THINK_S = 0.005  # A rate that the machine can do, whoever else uses it.
BRISK_S = 0.0003  # Half of what loggers can do, or less.
SLOW_S = 10 * THINK_S
COUNT = 800
SPILL_BYTES = 4 << 20


@pytest.fixture
def other(tmp_path: Path, seed: int) -> Iterator[Scene]:
    """A second run folder, for what the first one is compared with."""
    stage = Scene(tmp_path / "other", seed)
    stage.folder.mkdir()
    yield stage
    stage.close()


def rate_without(other: Scene, count: int) -> float:
    """Results per second of a renderer whose daemon has only the CSV logger."""
    other.start([rows("csv")])
    rate = other.renderer("alone", count=count, think_s=THINK_S).wait().rate
    other.epilogue().assert_nothing_lost()
    return rate


def test_a_logger_ten_times_slower_spills(scene: Scene, other: Scene, figure: Figure) -> None:
    alone = rate_without(other, COUNT)
    slow = diary("slow", options={"slow_s": SLOW_S}, when_full="spill", max_in_window=8)
    limits = {"disk": {"spill_max": SPILL_BYTES}, "service": {"drain_s": 0.5}}
    scene.start([rows("csv"), slow], **limits)
    before = scene.renderer("before", count=COUNT, think_s=THINK_S).wait()
    assert not scene.look().dead, "the spill was full too early: nothing was compared"
    spilled = scene.row("slow")["spilled"]
    after = scene.renderer("after", count=2 * COUNT, think_s=THINK_S).wait()
    quick = [rows("csv"), diary("slow", max_in_window=8)]
    outcome = scene.epilogue(logging={"logger_modules": quick})
    outcome.assert_nothing_lost(exact=("csv",))
    figure("rate until the spill is full, part", before.rate / alone, ">= 0.9")
    figure("rate afterwards, part", after.rate / alone)
    figure("results on the disk by then", spilled)
    account = outcome.accounts["slow"]
    figure("acknowledged", account.acked)
    figure("recorded + spill_full", account.recorded + account.dead["spill_full"], "the same")
    assert spilled > COUNT / 2
    assert set(account.dead) == {"spill_full"}
    assert not outcome.accounts["csv"].dead
    assert account.recorded + account.dead["spill_full"] == account.acked
    assert not account.both
    assert before.rate >= 0.9 * alone


def test_a_logger_with_a_backlog_catches_up(scene: Scene, figure: Figure) -> None:
    """It gets slots for what comes back from the disk, though the renderer wants all of them."""
    scene.start([rows("csv", when_full="spill"), rows("json", when_full="spill")])
    renderer = scene.renderer("r", think_s=BRISK_S, batch=200).wait_going()
    before = rate_of(scene, "json")
    scene.daemon.signal_logger("csv", signal.SIGSTOP)
    wait_s(3)
    scene.daemon.signal_logger("csv", signal.SIGCONT)
    start_s = time.monotonic()
    backlog = scene.row("csv")["spilled"]
    wait_until(
        lambda: scene.row("csv")["spilled"] < backlog / 100 or time.monotonic() > start_s + 30,
        "nothing: it is looked at below",
    )
    took_s, left = time.monotonic() - start_s, scene.row("csv")["spilled"]
    after = rate_of(scene, "json")
    renderer.finish()
    scene.epilogue(within_s=120).assert_nothing_lost()
    figure("results on the disk", backlog)
    figure("caught up after, s", took_s, "< 30")
    figure("of these left", left, f"< {backlog / 100:.0f}")
    figure("rate of the other logger, part", after / before, ">= 0.5")
    assert left < backlog / 100
    assert after >= 0.5 * before


def rate_of(scene: Scene, logger: str) -> float:
    """What a logger is delivered in a second, over two."""
    before, start_s = scene.row(logger)["delivered"], time.monotonic()
    wait_s(2)
    return (scene.row(logger)["delivered"] - before) / (time.monotonic() - start_s)


def test_a_slow_logger_drops(scene: Scene, other: Scene, figure: Figure) -> None:
    alone = rate_without(other, COUNT)
    live = diary("live", options={"slow_s": SLOW_S}, when_full="drop", max_in_window=8)
    scene.start([rows("csv"), live])
    rate = scene.renderer("r", count=COUNT, think_s=THINK_S).wait().rate
    dead = scene.wait_settled()["loggers"]["live"]["dead"]
    outcome = scene.epilogue()
    outcome.assert_nothing_lost(exact=("csv", "live"))
    account = outcome.accounts["live"]
    figure("rate, part", rate / alone, ">= 0.9")
    figure("acknowledged", account.acked)
    figure("recorded + dropped", account.recorded + account.dead["dropped"], "the same")
    assert set(account.dead) == {"dropped"}
    assert dead == account.dead["dropped"] > COUNT / 2
    assert account.recorded + dead == account.acked
    assert rate >= 0.9 * alone


def test_a_logger_that_is_killed_drops(
    scene: Scene, seconds: Callable[[float], float], figure: Figure
) -> None:
    slow = {"options": {"slow_s": SLOW_S}, "max_in_window": 8}
    scene.start([rows("csv"), diary("live", on_crash="drop", restart=OFTEN, **slow)])
    renderer = scene.renderer("r", think_s=THINK_S).wait_going()
    end_s = time.monotonic() + seconds(10)
    kills = 0
    while time.monotonic() < end_s:
        kills += bool(scene.daemon.signal_logger("live", signal.SIGKILL))
        wait_s(0.5)
    renderer.finish()
    row = scene.wait_settled()["loggers"]["live"]
    outcome = scene.epilogue()
    outcome.assert_nothing_lost(exact=("csv",))
    account = outcome.accounts["live"]
    # What was flushed, and not yet released when the kill came, is recorded and dead: by a batch.
    figure("kills", kills)
    figure("dead", row["dead"])
    figure("recorded too", len(account.both), f"<= {kills}")
    assert row["dead"] == sum(account.dead.values()) > 0
    assert set(account.dead) == {"crash(SIGKILL)"}
    assert not account.doubled
    assert account.recorded + row["dead"] - len(account.both) == account.acked
    assert len(account.both) <= kills * 8
    assert Counter(line["logger"] for line in outcome.dead) == {"live": row["dead"]}
    wait_until(lambda: not scene.strays(), "nothing is left")
