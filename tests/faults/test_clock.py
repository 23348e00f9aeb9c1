"""Clocks that jump, and machines that sleep: nobody is killed for it, and nothing expires."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest
from faults.daemon_clock import MovedClock
from faults.scene import Scene, diary, rows, wait_s

Figure = Callable[..., None]
HOUR_S, DAY_S = 3600, 86_400
JUMPS_S = (HOUR_S, -HOUR_S, 400 * DAY_S, 0)
# Shorter than every pause here: whoever mistook a pause for a hang would kill.
SHORT = {"hang_s": 2, "start_s": 20}


def restarts(now: dict[str, Any]) -> int:
    return sum(row["restarts"] for row in now["loggers"].values())


def test_the_wall_clock_jumps(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    clock = MovedClock(scene.folder)
    clock.move(400 * DAY_S)
    print_time = [sys.executable, "-c", "import time; print(int(time.time()))"]
    assert clock.seen_by(print_time) - time.time() > 399 * DAY_S
    clock.move(0)
    passed = {**SHORT, "env": list(clock.environment)}
    slow = diary("slow", options={"slow_s": 0.01}, when_full="spill", **passed)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    scene.start([rows("csv", **passed), slow])
    renderer = scene.renderer("r", think_s=0.005).wait_going()
    for member in (scene.daemon.psutil, *scene.daemon.psutil.children()):
        assert any(part.path.endswith("clock.so") for part in member.memory_maps())
    for name in clock.environment:
        monkeypatch.delenv(name)
    for offset_s in JUMPS_S:
        clock.move(offset_s)
        wait_s(SHORT["hang_s"] + 1)
        assert scene.check_books()["state"] == "running"
    waits = renderer.finish().waits
    now = scene.wait_settled()
    log = scene.daemon.log
    outcome = scene.epilogue()
    figure("jumps, h", ", ".join(str(jump_s // HOUR_S) for jump_s in JUMPS_S))
    figure("results", len(outcome.journals.acked))
    figure("loggers killed", restarts(now), "0")
    figure("dead", len(outcome.dead), "0")
    figure("renderer's worst wait, ms", max(waits) * 1000)
    outcome.assert_nothing_lost(exact=("csv", "slow"))
    assert restarts(now) == 0
    assert not outcome.dead
    assert not outcome.journals.troubles
    assert "killing" not in log


def test_everything_is_stopped_for_10_s(
    scene: Scene, seconds: Callable[[float], float], figure: Figure
) -> None:
    """As by a suspended machine, with results in the hands of the loggers."""
    slow = diary("slow", options={"slow_s": 0.02}, when_full="spill", **SHORT)
    scene.start([rows("csv", **SHORT), slow])
    renderer = scene.renderer("r", think_s=0.005).wait_going()
    family = [scene.daemon.psutil, *scene.daemon.psutil.children(recursive=True)]
    family.append(psutil.Process(renderer.process.pid))
    for member in family:
        member.send_signal(signal.SIGSTOP)
    wait_s(seconds(10))
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGCONT)
    wait_s(SHORT["hang_s"] + 1)
    troubles = renderer.finish().troubles
    now = scene.wait_settled()
    log = scene.daemon.log
    outcome = scene.epilogue()
    figure("results", len(outcome.journals.acked))
    figure("loggers killed", restarts(now), "0")
    figure("renderers ended", len(troubles), "0")
    figure("dead", len(outcome.dead), "0")
    outcome.assert_nothing_lost(exact=("csv", "slow"))
    assert restarts(now) == 0
    assert not outcome.dead
    assert not troubles
    assert "killing" not in log
