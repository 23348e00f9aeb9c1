"""Loggers that are killed, crash, raise or hang: nothing is lost, and nobody waits for them."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from faults.bystander import Bystander
from faults.oracle import quantile
from faults.scene import OFTEN, Scene, diary, random_logger, rows, wait_s
from system.harness import wait_until

Figure = Callable[..., None]
KILL_EVERY_S = 0.5
WAIT_P99_S, WAIT_WORST_S = 0.010, 0.100
RAISES_MAX, CRASHES_MAX = 5, 3


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    """Tells what of the renderer's waits is the machine's own share."""
    process = Bystander()
    yield process
    process.close()


def check_waits(figure: Figure, waits: list[float], bystander: Bystander) -> None:
    """The renderer's waits are within the bounds, once the machine's own share is granted."""
    share_p99_s, share_worst_s = bystander.delays()
    p99_s, worst_s = quantile(waits, 0.99), max(waits)
    for name, wait, share, bound in (
        ("p99", p99_s, share_p99_s, WAIT_P99_S),
        ("worst", worst_s, share_worst_s, WAIT_WORST_S),
    ):
        limit = f"< {bound * 1000:g} (the machine's share: {share * 1000:.3g})"
        figure(f"wait {name}, ms", wait * 1000, limit)
    assert p99_s < WAIT_P99_S + share_p99_s
    assert worst_s < WAIT_WORST_S + share_worst_s


def test_kill_a_random_logger_again_and_again(
    scene: Scene,
    chance: random.Random,
    seconds: Callable[[float], float],
    figure: Figure,
    bystander: Bystander,
) -> None:
    often = {"restart": OFTEN}
    scene.start([rows("csv", **often), rows("json", **often), diary("plugin", **often)])
    renderer = scene.renderer("r", think_s=0.001).wait_going()
    kills: Counter[str] = Counter()
    end_s = time.monotonic() + seconds(60)
    while time.monotonic() < end_s:
        kills[random_logger(scene, chance, signal.SIGKILL)] += 1
        scene.check_books()
        wait_s(KILL_EVERY_S)
    waits = renderer.finish().waits
    outcome = scene.epilogue()
    figure("results", len(outcome.journals.acked))
    figure("kills", sum(kills.values()) - kills[""])
    figure("lost", sum(len(account.lost) for account in outcome.accounts.values()), "0")
    doubled = sum(len(outcome.accounts[name].doubled) for name in ("csv", "json"))
    figure("twice in csv, json", doubled, "0")
    figure("dead", len(outcome.dead), "0")
    outcome.assert_nothing_lost()
    assert not outcome.dead
    check_waits(figure, waits, bystander)


def test_stop_a_logger(scene: Scene, figure: Figure, bystander: Bystander) -> None:
    patient = {"when_full": "spill", "hang_s": 2, "restart": OFTEN}
    scene.start([rows("csv", **patient), diary("plugin", **patient)])
    renderer = scene.renderer("r", think_s=0.001).wait_going()
    start_s = time.monotonic()
    pid = scene.daemon.signal_logger("plugin", signal.SIGSTOP)
    wait_until(lambda: not psutil.pid_exists(pid), "it was killed and reaped")
    killed_s = time.monotonic() - start_s
    wait_s(max(0.0, 10 - killed_s))
    waits = renderer.finish().waits
    outcome = scene.epilogue()
    figure("killed after, s", killed_s, "< 2.5")
    figure("results", len(outcome.journals.acked))
    figure("lost", sum(len(account.lost) for account in outcome.accounts.values()), "0")
    outcome.assert_nothing_lost()
    assert not outcome.dead
    assert killed_s < 2.5
    check_waits(figure, waits, bystander)


def test_one_of_a_thousand_crashes_its_logger(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    scene.start([diary("frail", options={"moods": ["segv"]}, restart=OFTEN), rows("csv")])
    number = chance.randrange(1000)
    scene.renderer("r", count=1000, moods={str(number): "segv"}).wait()
    crashes = scene.wait_settled()["loggers"]["frail"]["restarts"]
    outcome = scene.epilogue()
    outcome.assert_nothing_lost()
    (line,) = outcome.dead
    figure("crashes", crashes, "3")
    figure("dead", len(outcome.dead), "1")
    figure("recorded", outcome.accounts["frail"].recorded - 1, "999")
    assert (line["id"], line["logger"]) == (f"r-{number:07d}-segv", "frail")
    assert (line["reason"], line["attempts"], crashes) == ("crash(SIGSEGV)", CRASHES_MAX, 3)
    assert "Fatal Python error" in line["problem"]
    assert "diary.py" in line["problem"]
    assert outcome.accounts["frail"].recorded == 999 + 1
    with np.load(scene.run / line["arrays"]) as arrays:
        assert (arrays["rgb"] == np.full((3, 16, 16), number % 251, np.float32)).all()
        assert float(arrays["loss"]) == number
        assert bool(arrays["is_correct"]) == (number % 2 == 0)
    assert line["arrays"].startswith("dead/frail/")


def test_one_of_a_hundred_raises(scene: Scene, figure: Figure) -> None:
    scene.start([diary("choosy", options={"moods": ["raise"]}), rows("csv")])
    scene.renderer("r", count=2000, mood_rates={"raise": 0.01}).wait()
    now = scene.wait_settled()
    outcome = scene.epilogue()
    outcome.assert_nothing_lost()
    bad = [id for id in outcome.journals.acked if id.endswith("raise")]
    good = [id for id in outcome.journals.acked if not id.endswith("raise")]
    figure("raising", len(bad))
    figure("dead", len(outcome.dead), str(len(bad)))
    figure("restarts", now["loggers"]["choosy"]["restarts"], "0")
    assert sorted(line["id"] for line in outcome.dead) == sorted(bad)
    assert {(line["reason"], line["attempts"]) for line in outcome.dead} <= {
        ("exception", RAISES_MAX)
    }
    assert now["loggers"]["choosy"]["restarts"] == 0
    recorded = dict(scene.recorded())
    assert recorded["choosy"] == good
    assert recorded["csv"] == outcome.journals.acked
    got = Counter((scene.run / "choosy.got").read_text().split())
    assert {got[id] for id in bad} <= {RAISES_MAX}


def test_a_loop_and_a_deadlock_in_log(scene: Scene, figure: Figure) -> None:
    stuck = diary("stuck", options={"moods": ["loop", "lock"]}, hang_s=1, restart=OFTEN)
    scene.start([stuck, rows("csv")])
    moods = {"20": "loop", "70": "lock"}
    renderer = scene.renderer("r", count=200, moods=moods, timeout_s=60)
    renderer.wait(120)
    restarts = scene.wait_settled()["loggers"]["stuck"]["restarts"]
    outcome = scene.epilogue()
    outcome.assert_nothing_lost()
    figure("dead (hang)", outcome.accounts["stuck"].dead["hang"], "2")
    figure("kills", restarts, "6")
    assert {line["id"]: line["reason"] for line in outcome.dead} == {
        "r-0000020-loop": "hang",
        "r-0000070-lock": "hang",
    }
    assert restarts == 2 * CRASHES_MAX
    for line in outcome.dead:
        assert line["attempts"] == CRASHES_MAX
        assert "in misbehave" in line["problem"]
    assert outcome.log.count("in misbehave") >= 2 * CRASHES_MAX


def test_free_is_forgotten_doubled_or_late(scene: Scene, figure: Figure) -> None:
    ways = ("forget", "double", "late")
    scene.start([*(diary(way, options={"free": way}) for way in ways), rows("csv")])
    scene.renderer("r", count=3000).wait()
    now = scene.wait_settled()
    wait_until(lambda: scene.daemon.status()["slots"]["free"] == 64, "all slots are free")
    outcome = scene.epilogue()
    outcome.assert_nothing_lost(exact=("csv", *ways))
    figure("recorded by each", outcome.accounts["late"].recorded - 1, "3000")
    figure("restarts", sum(row["restarts"] for row in now["loggers"].values()), "0")
    assert not outcome.dead
    for _, recorded in scene.recorded():
        assert recorded == outcome.journals.acked
