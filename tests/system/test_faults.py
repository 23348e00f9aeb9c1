"""What must survive: logger deaths, stopped processes, renderers that vanish.

The bounds on time are generous; they are promises about waiting, not about speed.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from system.harness import (
    SMALL,
    Daemon,
    ended,
    plugin,
    read_ids,
    read_json_lines,
    spawn_script,
    wait_until,
)

import millpond
from millpond.core.wire import HEADER, MAGIC, Kind, pack

ARRAYS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.0,
    "is_correct": True,
}
OFTEN = {"intensity": 1000, "period_s": 60, "delay_s": 0.05, "delay_s_max": 0.05}

# Publishes until it is told to stop, and says how long the longest wait was.
LOAD = """
import select, sys, time, numpy as np, millpond
rgb = np.zeros((3, 16, 16), np.float32)
waits = []
n = 0
with millpond.connect(sys.argv[1], claim_timeout_s=10) as pond:
    print("go", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        start = time.monotonic()
        with pond.claim() as slot:
            waits.append(time.monotonic() - start)
            slot["rgb"][...] = n % 7
            slot["loss"] = n
            slot["is_correct"] = True
            slot.publish(f"{n:07d}", {"loss": n})
        n += 1
        time.sleep(float(sys.argv[2]))
print(n, max(waits))
"""


def test_a_logger_that_is_killed_again_and_again_costs_nobody_anything(
    start: Callable[..., Daemon], record_property: Callable[[str, object], None]
) -> None:
    """Every 0.5 s for 20 s, under load: the renderer hardly waits, the others miss nothing."""
    loggers = [
        plugin("recorder", "first"),
        plugin("recorder", "victim", restart=OFTEN),
        plugin("recorder", "last"),
    ]
    daemon = start(loggers, buffer={"slots": 64, "channels": SMALL})
    daemon.wait_state("running")
    kills = pid = 0
    renderer = spawn_script(LOAD, daemon.run, 0.0005)
    with ended(renderer):
        assert renderer.stdout is not None
        assert renderer.stdout.readline() == "go\n"
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            due_s = time.monotonic() + 0.5
            pid = daemon.other_logger_pid("victim", pid)
            daemon.signal_child(pid, signal.SIGKILL)
            kills += 1
            assert daemon.status()["loggers"]["victim"]["restarts"] <= kills
            wait_until(lambda due_s=due_s: time.monotonic() >= due_s, "half a second")
        output, _ = renderer.communicate("stop\n")
    count, longest_s = output.split()
    daemon.other_logger_pid("victim", pid)  # The last restart.
    now = daemon.wait_settled()
    published = [f"{n:07d}" for n in range(int(count))]
    assert now["results"] == len(published) > 1000
    assert float(longest_s) < 0.25, f"the renderer waited {longest_s} s"
    assert now["slots"] == {"total": 64, "free": 64}
    victim = now["loggers"]["victim"]
    for name, figure in {
        "results": now["results"],
        "kills": kills,
        "longest_wait_s": longest_s,
    }.items():
        record_property(name, figure)  # For `pytest --junitxml`.
    assert victim["restarts"] == kills >= 20
    daemon.stop()
    for name in ("first", "last", "victim"):
        assert now["loggers"][name]["delivered"] == len(published)
        assert now["loggers"][name]["dead"] == 0
    for name in ("first", "last"):
        assert read_ids(daemon.run / f"{name}.ids") == published
    # It is no logger of ours, and may have been killed between its file and its release.
    recorded = read_ids(daemon.run / "victim.ids")
    assert set(recorded) == set(published)
    assert len(recorded) <= len(published) + kills * 32
    assert not (daemon.run / "dead.jsonl").exists()


def test_a_stopped_logger_stops_nobody_else_and_is_named(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder", "stuck", max_in_window=4), plugin("recorder", "brisk")])
    daemon.wait_state("running")
    pid = daemon.signal_logger("stuck", signal.SIGSTOP)
    with millpond.connect(daemon.run) as pond:
        for n in range(16):
            pond.publish(f"{n}", {}, timeout_s=10, **ARRAYS)
        # The others have received what fits into the buffer.
        wait_until(lambda: daemon.status()["loggers"]["brisk"]["delivered"] == 16, "brisk has all")
        begin_s = time.monotonic()
        with pytest.raises(millpond.PondFull) as full:
            pond.claim(timeout_s=1)
        assert time.monotonic() - begin_s < 1.05 + 0.2
        assert f"16 of 16 held by logger 'stuck' (pid {pid})" in str(full.value)
        assert "result 0" in str(full.value)
        assert "no free slot for 1.0 s" in str(full.value)
        daemon.signal_logger("stuck", signal.SIGCONT)
        pond.publish("16", {}, timeout_s=10, **ARRAYS)
    now = daemon.wait_settled()
    assert [row["delivered"] for row in now["loggers"].values()] == [17, 17]
    daemon.stop()


def test_a_renderer_that_dies_with_a_slot_gives_it_back(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    source = """
import os, sys, millpond
pond = millpond.connect(sys.argv[1])
slots = [pond.claim() for _ in range(int(sys.argv[2]))]
slots[0]["loss"] = 1
print("claimed", flush=True)
sys.stdin.read()
"""
    for count in (1, 3, 6, 2):
        renderer = spawn_script(source, daemon.run, count)
        with ended(renderer):
            assert renderer.stdout is not None
            assert renderer.stdout.readline() == "claimed\n"
            held = daemon.wait_renderers(1)
            assert held["slots"]["free"] <= 16 - count
            renderer.kill()
        wait_until(lambda: daemon.status()["slots"]["free"] == 16, "all slots are back")
    assert daemon.status()["results"] == 0
    daemon.stop()


def test_a_logger_that_raises_loses_that_result_only(start: Callable[..., Daemon]) -> None:
    """It is tried five times over 21 s, and meanwhile the others come."""
    daemon = start([plugin("moody"), plugin("recorder")])
    names = ["well-1", "raise-1", "well-2", "raise-2", "well-3"]
    with millpond.connect(daemon.run) as pond:
        for name in names:
            pond.publish(name, {}, **ARRAYS)
    wait_until(lambda: daemon.status()["loggers"]["moody"]["delivered"] == 3, "the others come")
    assert daemon.status()["loggers"]["moody"]["dead"] == 0
    now = daemon.wait_settled()
    moody = now["loggers"]["moody"]
    assert (moody["delivered"], moody["dead"], moody["restarts"]) == (3, 2, 0)
    assert moody["last_error"] == "ValueError: do not like raise-2 (moody.py:21, in log)"
    log = daemon.stop(code=1)
    dead = read_json_lines(daemon.run / "dead.jsonl")
    assert [(line["id"], line["reason"], line["attempts"]) for line in dead] == [
        ("raise-1", "exception", 5),
        ("raise-2", "exception", 5),
    ]
    where = "(moody.py:21, in log)"
    assert all(line["problem"].endswith(f"like {line['id']} {where}\n") for line in dead)
    assert "moody.py" in log  # The traceback.
    assert read_ids(daemon.run / "recorder.ids") == names


def test_a_logger_that_ends_too_often_is_given_up_and_the_rest_go_on(
    start: Callable[..., Daemon],
) -> None:
    often = {"intensity": 2, "delay_s": 0.01, "retry_s": 1000}
    daemon = start([plugin("moody", restart=often), plugin("recorder")])
    with millpond.connect(daemon.run) as pond:
        pond.publish("die-0", {}, **ARRAYS)
        daemon.wait_state("degraded")
        moody = daemon.status()["loggers"]["moody"]
        assert (moody["state"], moody["restarts"]) == ("fatal", 2)
        for n in range(100):  # More than fit: nobody waits for a logger that was given up.
            pond.publish(f"{n}", {}, timeout_s=10, **ARRAYS)
    wait_until(
        lambda: daemon.status()["loggers"]["recorder"]["delivered"] == 101, "the other has all"
    )
    log = daemon.stop(code=1)
    assert "moody: 101 published = 0 delivered + 1 dead + 100 on the disk" in log
    (dead,) = read_json_lines(daemon.run / "dead.jsonl")
    assert (dead["id"], dead["reason"], dead["attempts"]) == ("die-0", "exit(3)", 3)


@pytest.mark.parametrize(("mood", "message"), [("raise", "no files today"), ("die", r"exit\(7\)")])
def test_a_logger_that_cannot_start_is_tried_three_times(
    start: Callable[..., Daemon], mood: str, message: str
) -> None:
    options = {"options": {"start": mood}, "restart": {"delay_s": 0.01}}
    daemon = start([plugin("moody", **options), plugin("recorder")])
    now = daemon.wait_state("degraded")
    assert now["loggers"]["moody"]["restarts"] == 2
    assert now["loggers"]["recorder"]["state"] in ("starting", "running")
    assert message.replace("\\", "") in now["loggers"]["moody"]["last_error"]
    daemon.stop()


def test_hundreds_of_restarts_leave_nothing_behind(
    start: Callable[..., Daemon], record_property: Callable[[str, object], None]
) -> None:
    """Descriptors, children, threads and memory of the daemon stay flat over 500 restarts."""
    names = ["a", "b", "c", "d"]
    quick = {**OFTEN, "delay_s": 0.01, "delay_s_max": 0.01}
    daemon = start([plugin("bare", name, restart=quick) for name in names])
    daemon.wait_state("running")

    def restarts() -> int:
        return sum(row["restarts"] for row in daemon.status()["loggers"].values())

    def kill_until(count: int) -> None:
        while restarts() < count:
            for name in names:
                daemon.signal_logger(name, signal.SIGKILL)
        daemon.wait_state("running")

    def measure() -> tuple[int, int, int]:
        # The connection of the question itself may still be open; the guard is a child too.
        count = len(names) + 1
        wait_until(lambda: len(daemon.psutil.children(recursive=True)) == count, "children")
        return (
            daemon.psutil.num_fds(),
            daemon.psutil.num_threads(),
            daemon.psutil.memory_info().rss,
        )

    kill_until(40)
    before = measure()
    kill_until(500)
    wait_until(lambda: measure()[0] <= before[0], "descriptors are as before")
    after = measure()
    record_property("descriptors_threads_bytes", f"{before} {after}")
    assert after[1] == before[1]
    assert (after[2] - before[2]) / 460 < 4096, "memory grows with each restart"
    assert not [p for p in daemon.psutil.children() if p.status() == psutil.STATUS_ZOMBIE]
    daemon.stop()


def test_garbage_ends_its_connection_only(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    hello = pack(Kind.HELLO, json.dumps({"protocol": 1, "pid": 1, "channels": None}).encode())
    huge = HEADER.pack(MAGIC, 1, Kind.PUBLISH, 2**31, 0, 0, 0, 0)
    job = json.dumps({"id": "evil", "render_args": {}}).encode()
    garbage = [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100,
        pack(Kind.HELLO, b"[" * 60_000),
        pack(Kind.HELLO, b"{}"),
        pack(Kind.HELLO, json.dumps({"protocol": 99, "pid": 1}).encode()),
        pack(Kind.PUBLISH, job),
        hello + huge,
        hello + pack(Kind.PUBLISH, job, slot=3, generation=1, sequence=1, renderer=1),
        hello + pack(Kind.READY),
        huge,
    ]
    with millpond.connect(daemon.run) as pond:
        pond.publish("before", {}, **ARRAYS)
        for data in garbage:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(20)
                peer.connect(str(daemon.socket))
                peer.sendall(data)
                answer = b""
                while chunk := peer.recv(65536):
                    answer += chunk
            assert b"problem" in answer
        # Half a frame, then nothing: ended after its deadline.
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(daemon.socket))
            peer.sendall(hello[:10])
            assert b"no hello within" in peer.recv(65536)
        pond.publish("after", {}, **ARRAYS)
    daemon.wait_settled()
    daemon.stop()
    assert read_ids(daemon.run / "recorder.ids") == ["before", "after"]
