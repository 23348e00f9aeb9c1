"""The daemon is stopped, killed or told to end: renderers learn it at once, results come later."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.oracle import UNACCOUNTED, quantile
from faults.scene import HERE, OFTEN, Scene, brood, diary, rows, wait_s
from system.harness import Daemon, wait_until

import millpond

Figure = Callable[..., None]
ARRAYS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.0,
    "is_correct": True,
}
DRAIN_S = 3.0
EXIT_S = DRAIN_S + 2.0
# What a call may last longer than its deadline, and what this machine may add.
LATE_S, NOISE_S = 0.05, 0.1
KILLS = 20
GONE_S = 1.0
ERROR_S = 0.25
UNSTARTED = -signal.SIGTERM  # Python itself was still starting: nothing was there yet.


def stop_timed(daemon: Daemon, *, again_after_s: float | None = None) -> tuple[int, float]:
    """SIGTERM, perhaps another one, and the exit code and seconds until then."""
    start_s = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    if again_after_s is not None:
        wait_s(again_after_s)
        daemon.process.send_signal(signal.SIGTERM)
    code = daemon.process.wait(60)
    return code, time.monotonic() - start_s


def test_sigterm_at_full_load(scene: Scene, figure: Figure) -> None:
    loggers = [rows("csv"), rows("json"), diary("slow", options={"slow_s": 0.002})]
    scene.start(loggers, service={"drain_s": DRAIN_S})
    renderers = [scene.renderer(name, batch=500, patience_s=0.5) for name in ("a", "b")]
    for renderer in renderers:
        renderer.wait_going()
    wait_s(2)
    code, took_s = stop_timed(scene.daemon)
    left = scene.daemon.log
    for renderer in renderers:
        renderer.finish()
    outcome = scene.epilogue()
    figure("results", len(outcome.journals.acked))
    figure("exit code", code, "0")
    figure("ended after, s", took_s, f"< {EXIT_S:g}")
    figure("dead", len(outcome.dead), "0")
    outcome.assert_nothing_lost(exact=("csv", "json", "slow"))
    assert code == 0, left[-3000:]
    assert took_s < EXIT_S
    assert not outcome.dead


def test_sigterm_again_during_the_drain(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    """What is left then is on the disk, and comes with the next start."""
    slow = {"options": {"slow_s": 0.05}, "when_full": "spill"}
    scene.start([rows("csv"), diary("slow", **slow)], service={"drain_s": 30})
    scene.renderer("r", count=400, batch=10).wait()
    code, took_s = stop_timed(scene.daemon, again_after_s=0.1 + 0.5 * chance.random())
    log = scene.daemon.log
    scene.config["logging"]["logger_modules"][1]["options"] = {}
    outcome = scene.epilogue()
    figure("exit code", code, "0")
    figure("ended after, s", took_s, "< 2.6")
    figure("dead", len(outcome.dead), "0")
    outcome.assert_nothing_lost()
    assert code == 0, log[-3000:]
    assert took_s < 0.6 + 2
    assert not outcome.dead


def test_sigterm_during_the_start(scene: Scene, chance: random.Random, figure: Figure) -> None:
    """At any moment, with something on the disk from the start before."""
    patient = {"when_full": "spill", "hang_s": 60, "stop_s": 0.5}
    scene.start([rows("csv", **patient), rows("json")], service={"drain_s": 0.2})
    scene.daemon.signal_logger("csv", signal.SIGSTOP)
    scene.renderer("r", count=500).wait()
    scene.daemon.stop(code=None)
    codes, took_s = [], []
    for _ in range(10):
        said = len(scene.daemon.log)
        daemon = Daemon(scene.folder / "d", scene.config)
        scene.daemons.append(daemon)
        wait_s(1.5 * chance.random())
        code, seconds_s = stop_timed(daemon)
        assert code != UNSTARTED or not daemon.log[said:], daemon.log[said:]
        codes.append(code)
        took_s.append(seconds_s)
    outcome = scene.epilogue()
    figure("exit codes", ", ".join(map(str, sorted(set(codes)))), "0; -15 before Python listens")
    figure("ended after at most, s", max(took_s), "< 2.2")
    figure("dead", len(outcome.dead), "0")
    outcome.assert_nothing_lost()
    assert not outcome.dead
    assert set(codes) <= {0, 1, UNSTARTED}, scene.daemon.log[-3000:]
    assert max(took_s) < 0.2 + 2


def test_a_traced_logger_ends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    """Its tracer (a debugger, strace, py-spy) learns of its end before the daemon does."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    # With other threads it would be dead for all to see only when the tracer has seen those.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    scene.start([diary("plugin", restart=OFTEN), rows("json")])
    renderer = scene.renderer("r", think_s=0.002).wait_going()
    for _ in range(5):
        pid = scene.daemon.logger_pid("plugin")
        tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(pid)])
        wait_until(lambda pid=pid: tracer_of(pid), "it is traced")
        tracer.send_signal(signal.SIGSTOP)
        scene.daemon.signal_child(pid, signal.SIGKILL)
        wait_s(0.2)  # Dead, and its tracer has not been told.
        tracer.send_signal(signal.SIGCONT)
        tracer.wait(20)
        scene.daemon.other_logger_pid("plugin", pid)
    renderer.finish()
    outcome = scene.epilogue()
    figure("results", len(outcome.journals.acked))
    outcome.assert_nothing_lost()
    assert not outcome.dead


def tracer_of(pid: int) -> int:
    """Who traces a process; 0 when nobody does."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/status").read_text().partition("TracerPid:")[2].split()[0])
    return 0


def test_the_daemon_is_stopped_for_5_s(
    scene: Scene, seconds: Callable[[float], float], figure: Figure
) -> None:
    """Each call of a renderer ends at its own deadline; no logger is blamed afterwards."""
    scene.start([rows("csv", hang_s=2), diary("plugin", hang_s=2)])
    load = scene.renderer("r", think_s=0.002).wait_going()
    late_s: list[float] = []

    def call(deadline_s: float, what: Callable[[], Any]) -> None:
        start_s = time.monotonic()
        with suppress(millpond.MillpondError):
            what()
        late_s.append(time.monotonic() - start_s - deadline_s)

    ponds = [millpond.connect(scene.run, claim_timeout_s=0.3) for _ in range(2)]
    scene.daemon.process.send_signal(signal.SIGSTOP)
    end_s = time.monotonic() + seconds(5)
    slots = []
    while time.monotonic() < end_s:
        call(0.3, lambda: slots.append(ponds[0].claim()))
        call(0.2, lambda: ponds[1].claim(0.2))
        call(0.2, lambda: ponds[1].flush(0.2))
        call(0.2, lambda: millpond.connect(scene.run, claim_timeout_s=0.2))
    scene.daemon.process.send_signal(signal.SIGCONT)
    for pond in ponds:
        with suppress(millpond.DaemonUnreachable):
            pond.close()
    slots.clear()
    wait_s(1)
    rows_now = scene.check_books()["loggers"]
    load.finish()
    outcome = scene.epilogue()
    restarts = sum(row["restarts"] for row in rows_now.values())
    figure("calls", len(late_s))
    figure("latest after its deadline, ms", max(late_s) * 1000, "< 50")
    figure("loggers killed", restarts, "0")
    outcome.assert_nothing_lost(exact=("csv", "plugin"))
    assert not outcome.dead
    assert restarts == 0
    assert max(late_s) < LATE_S + NOISE_S


def test_the_daemon_is_killed_under_load(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    """Twenty times: what it had in memory is listed, the rest is recorded, and nothing is left.

    Half of the times something is on its way to the disk, or back from there.
    """
    spills = {"restart": OFTEN, "when_full": "spill", "max_in_window": 8, "hang_s": 60}
    scene.start([rows("csv", **spills), rows("json", **spills)])
    gone_s, start_s = [], []
    spilled = 0
    for number in range(KILLS):
        # A new one each time, which notices the end and gives up.
        renderer = scene.renderer(f"r{number}", batch=200, patience_s=0)
        renderer.wait_going()
        stopped = chance.choice(("csv", "json", "", ""))
        pid = scene.daemon.signal_logger(stopped, signal.SIGSTOP) if stopped else 0
        wait_s(0.3 * chance.random())
        spilled += bool(stopped and scene.row(stopped)["spilled"])
        if pid:
            scene.daemon.signal_child(pid, signal.SIGCONT)
            wait_s(0.02 * chance.random())
        killed_s = time.monotonic()
        scene.daemon.process.kill()
        scene.daemon.process.wait()
        wait_until(lambda: not scene.strays(), "no logger is left")
        gone_s.append(time.monotonic() - killed_s)
        wait_until(renderer.has_ended, "the renderer has learnt it")
        renderer.close()
        begin_s = time.monotonic()
        scene.restart().wait_state("running")
        start_s.append(time.monotonic() - begin_s)
    now = scene.wait_settled()
    outcome = scene.epilogue()
    accounts = outcome.accounts.values()
    figure("kills", len(gone_s))
    figure("of these with results on the disk", spilled)
    figure("results acknowledged", len(outcome.journals.acked))
    figure("loggers gone after at most, s", max(gone_s), f"< {GONE_S:g}")
    figure("started again after at most, s", max(start_s))
    figure("unaccounted", sum(account.dead[UNACCOUNTED] for account in accounts))
    figure("lost without a word", sum(len(account.lost) for account in accounts), "0")
    figure("twice in csv, json", sum(len(account.doubled) for account in accounts), "0")
    outcome.assert_nothing_lost()
    assert {line["reason"] for line in outcome.dead} <= {UNACCOUNTED}
    assert max(gone_s) < GONE_S
    assert now["state"] == "running"


def test_the_daemon_is_killed_and_its_loggers_are_stuck(scene: Scene, figure: Figure) -> None:
    """One is stopped, one hangs in Python, one in C, and one has started others."""
    stuck = {"module": str(HERE / "plugins" / "daemon_stuck.py"), "name": "stuck"}
    scene.start(
        [
            diary("stopped"),
            diary("hung", options={"moods": ["loop"]}),
            stuck,
            brood("brood", options={"children": 20, "grandchildren": 4}),
            rows("csv"),
        ]
    )
    scene.renderer("r", count=2, moods={"0": "loop", "1": "riot"}).wait()
    wait_until(lambda: scene.row("brood")["delivered"] == 2, "the brood is there")
    scene.daemon.signal_logger("stopped", signal.SIGSTOP)
    before = len(scene.strays())
    scene.daemon.process.kill()
    scene.daemon.process.wait()
    start_s = time.monotonic()
    left: list[int] = []
    while (seconds_s := time.monotonic() - start_s) < GONE_S + NOISE_S:
        left = scene.strays()
        if not left:
            break
        wait_s(0.02)
    figure("processes of loggers", before)
    figure("left 1 s after the kill", len(left), "0")
    figure("looked for, s", seconds_s)
    scene.config["logging"]["logger_modules"] = [rows("csv")]
    scene.epilogue().assert_nothing_lost()
    assert before >= 5 + 24
    assert not left


def test_the_daemon_is_killed_while_it_starts(
    scene: Scene, chance: random.Random, figure: Figure
) -> None:
    """Again and again, on a folder with results on the disk and others that are lost."""
    spills = {"when_full": "spill", "max_in_window": 8, "hang_s": 60}
    scene.start([rows("csv", **spills), rows("json")])
    scene.daemon.signal_logger("csv", signal.SIGSTOP)
    scene.renderer("r", count=300).wait()
    scene.daemon.process.kill()
    scene.daemon.process.wait()
    for _ in range(15):
        daemon = Daemon(scene.folder / "d", scene.config)
        scene.daemons.append(daemon)
        wait_s(1.5 * chance.random())
        daemon.process.kill()
        daemon.process.wait()
        daemon.stop(code=None)
        assert "Traceback" not in daemon.log
    outcome = scene.epilogue()
    account = outcome.accounts["csv"]
    figure("starts killed", 15)
    figure("recorded", account.recorded)
    figure("unaccounted", account.dead[UNACCOUNTED])
    figure("lost without a word", len(account.lost), "0")
    outcome.assert_nothing_lost()
    assert {line["reason"] for line in outcome.dead} <= {UNACCOUNTED}


def test_a_renderer_learns_at_once_that_the_daemon_was_killed(scene: Scene, figure: Figure) -> None:
    took_s = []
    scene.start([rows("csv")])
    for _ in range(5):
        pond = millpond.connect(scene.run, claim_timeout_s=10)
        slots = [pond.claim()]
        pond.publish("a-0-well", {}, **ARRAYS)
        pond.flush()
        scene.daemon.process.kill()
        start_s = time.monotonic()
        with pytest.raises(millpond.DaemonUnreachable):
            while True:
                slots.append(pond.claim())
        took_s.append(time.monotonic() - start_s)
        scene.daemon.process.wait()
        scene.restart().wait_state("running")
    scene.daemon.stop(code=None)
    figure("error after p50, ms", quantile(took_s, 0.5) * 1000)
    figure("error after at most, ms", max(took_s) * 1000, "< 250")
    assert max(took_s) < ERROR_S
