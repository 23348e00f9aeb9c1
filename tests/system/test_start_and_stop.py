"""Starting, stopping, and what a renderer sees of a daemon that is not there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from system.harness import SMALL, Daemon, plugin, read_ids, wait_until

import millpond

ARRAYS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.0,
    "is_correct": True,
}
# What a call may last beyond its deadline, and what this machine may keep us waiting for a core.
GRACE_S = 0.05 + 0.2


def test_a_second_daemon_ends_with_75_and_names_the_first(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    again = subprocess.run(
        [sys.executable, "-m", "millpond", "run", daemon.config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 75
    assert f"pid {daemon.process.pid}" in again.stderr
    with millpond.connect(daemon.run) as pond:  # The first one did not notice.
        pond.publish("1", {}, **ARRAYS)
    daemon.wait_settled()
    daemon.stop()


def test_what_a_killed_daemon_left_behind_is_replaced(start: Callable[..., Daemon]) -> None:
    first = start([plugin("recorder")])
    pids = [first.logger_pid("recorder")]
    first.process.kill()
    first.wait_exit(code=-signal.SIGKILL)
    assert first.socket.is_socket()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), "its loggers ended by themselves")
    second = start([plugin("recorder")])
    with millpond.connect(second.run) as pond:
        pond.publish("1", {}, **ARRAYS)
    second.wait_settled()
    second.stop()
    assert not second.socket.exists()
    assert read_ids(second.run / "recorder.ids") == ["1"]


def test_a_stop_drains_what_was_published(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder", "slow", max_in_window=2), plugin("recorder", "quick")])
    daemon.wait_state("running")
    daemon.signal_logger("slow", signal.SIGSTOP)
    with millpond.connect(daemon.run) as pond:
        for n in range(12):
            pond.publish(f"{n}", {}, **ARRAYS)
        pond.flush()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_state("draining")
        # A second one cannot join in, and the first gets no more slots.
        with pytest.raises(millpond.DaemonUnreachable, match=r"shutting down|ended"):
            for _ in range(20):
                pond.claim(timeout_s=5)
        daemon.signal_child(daemon.status()["loggers"]["slow"]["pid"], signal.SIGCONT)
        log = daemon.wait_exit(code=0)
    assert "slow: 12 published = 12 delivered + 0 dead + 0 on the disk" in log
    assert read_ids(daemon.run / "slow.ids") == [f"{n}" for n in range(12)]


def test_a_stop_does_not_wait_longer_than_it_was_told(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder", stop_s=0.2)], service={"drain_s": 0.2})
    daemon.wait_state("running")
    daemon.signal_logger("recorder", signal.SIGSTOP)
    with millpond.connect(daemon.run) as pond:
        for n in range(5):
            pond.publish(f"{n}", {}, **ARRAYS)
        pond.flush()
        log = daemon.stop()
    assert "recorder: 5 published = 0 delivered + 0 dead + 5 on the disk" in log


def test_a_second_sigterm_ends_at_once(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder", stop_s=1000)], service={"drain_s": 1000})
    daemon.wait_state("running")
    daemon.signal_logger("recorder", signal.SIGSTOP)
    with millpond.connect(daemon.run) as pond:
        pond.publish("1", {}, **ARRAYS)
        pond.flush()
    children = daemon.psutil.children()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_state("draining")
    log = daemon.stop()
    assert "recorder: 1 published = 0 delivered + 0 dead + 1 on the disk" in log
    assert not any(child.is_running() for child in children)


def test_an_absent_daemon_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    begin_s = time.monotonic()
    with pytest.raises(millpond.DaemonUnreachable, match="no daemon answers"):
        millpond.connect(tmp_path / "no.sock", claim_timeout_s=0.3)
    assert time.monotonic() - begin_s < 0.3 + GRACE_S


def test_a_stopped_daemon_costs_no_more_than_the_deadline(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    with millpond.connect(daemon.run, claim_timeout_s=0.5) as pond:
        pond.publish("1", {}, **ARRAYS)
        pond.flush()
        daemon.process.send_signal(signal.SIGSTOP)
        longest_s = 0.0
        with pytest.raises(millpond.DaemonUnreachable, match="is it stopped"):
            for n in range(10_000):
                begin_s = time.monotonic()
                try:
                    pond.publish(f"s{n}", {}, **ARRAYS)
                finally:
                    longest_s = max(longest_s, time.monotonic() - begin_s)
        assert longest_s < 0.5 + GRACE_S
        begin_s = time.monotonic()
        with pytest.raises(millpond.DaemonUnreachable, match="did not answer"):
            millpond.connect(daemon.run, claim_timeout_s=0.5)
        assert time.monotonic() - begin_s < 0.5 + GRACE_S
        daemon.process.send_signal(signal.SIGCONT)
        pond.publish("2", {}, timeout_s=10, **ARRAYS)  # It goes on where it was.
        pond.flush(10)
    daemon.wait_settled()
    daemon.stop()


def test_a_killed_daemon_is_an_error_at_once_and_the_next_one_is_found(
    start: Callable[..., Daemon],
) -> None:
    first = start([plugin("recorder")])
    pond = millpond.connect(first.run, claim_timeout_s=30)
    pond.publish("1", {}, **ARRAYS)
    pond.flush()
    first.process.kill()
    first.wait_exit(code=-signal.SIGKILL)
    begin_s = time.monotonic()
    with pytest.raises(millpond.DaemonUnreachable):
        for n in range(100):
            pond.publish(f"k{n}", {}, **ARRAYS)
    assert time.monotonic() - begin_s < GRACE_S
    second = start([plugin("recorder")])
    pond.publish("2", {}, **ARRAYS)  # It connects again by itself.
    pond.close()
    second.wait_settled()
    assert pond.statistics().connects == 2
    second.stop()


def test_what_was_not_acknowledged_is_listed(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    pond = millpond.connect(daemon.run, claim_timeout_s=0.5)
    with pond.claim() as slot:
        daemon.process.send_signal(signal.SIGSTOP)
        for name, value in ARRAYS.items():
            slot[name] = value
        slot.publish("lonely", {})
    daemon.process.kill()
    daemon.wait_exit(code=-signal.SIGKILL)
    with pytest.raises(millpond.DaemonUnreachable, match=r"1 published .* lonely"):
        pond.close()


def test_a_forked_renderer_gets_its_own_connection(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    source = """
import os, sys, numpy as np, millpond
arrays = dict(rgb=np.zeros((3, 16, 16), np.float32), loss=0.0, is_correct=True)
pond = millpond.connect(sys.argv[1])
pond.publish("parent-1", {}, **arrays)
child = os.fork()
if child == 0:
    pond.publish("child", {}, **arrays)
    pond.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
pond.publish("parent-2", {}, **arrays)
pond.close()
"""
    subprocess.run([sys.executable, "-c", source, daemon.run], check=True, timeout=60)
    daemon.wait_settled()
    daemon.stop()
    assert sorted(read_ids(daemon.run / "recorder.ids")) == ["child", "parent-1", "parent-2"]


def test_a_foreign_socket_is_not_replaced(tmp_path: Path, start: Callable[..., Daemon]) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        daemon = Daemon(
            tmp_path / "d2",
            {
                "logging": {"logger_modules": ["csv"]},
                "service": {"socket": str(tmp_path / "other.sock")},
            },
        )
        log = daemon.wait_exit(code=75)
    assert "another program serves" in log


def test_a_reader_of_the_log_that_has_stopped_reading_stops_nobody(tmp_path: Path) -> None:
    """The pipe of its standard error is full and stays so."""
    reader, writer = os.pipe()
    text = "say " * 1000
    (tmp_path / "d").mkdir()
    config = {
        "buffer": {"slots": 4, "channels": SMALL},
        "logging": {"logger_modules": [plugin("moody")]},
    }
    daemon = Daemon(tmp_path / "d", config, stderr=writer)
    try:
        daemon.wait_serving()
        with millpond.connect(daemon.run, claim_timeout_s=20) as pond:
            for n in range(100):
                pond.publish(f"say-{n}", {"text": text}, **ARRAYS)
        assert daemon.wait_settled()["loggers"]["moody"]["delivered"] == 100
        os.read(reader, 1 << 20)  # Somebody reads again: what was lost is counted.
        log = daemon.stop()
        assert "moody: 100 published = 100 delivered" in log
        assert "found no reader" in os.read(reader, 1 << 20).decode()
    finally:
        daemon.end()
        os.close(reader)
        os.close(writer)


def test_streams_that_are_closed_are_no_reason_to_fail(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"output_dir: {tmp_path}/run\nlogging: {{logger_modules: [csv]}}\n")
    script = 'exec "$0" -m millpond run "$1" --exit-when-done <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", script, sys.executable, str(config)]) as daemon:
        channels = {"loss": ((), "float32")}
        with millpond.connect(tmp_path / "run", channels, claim_timeout_s=20) as pond:
            pond.publish("1", {}, loss=0.5)
        assert daemon.wait(60) == 0
    assert (tmp_path / "run" / "details.csv").read_text() == "id,loss\n1,0.5\n"


def test_a_terminal_that_is_closed_is_a_stop(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    with millpond.connect(daemon.run) as pond:
        pond.publish("1", {}, **ARRAYS)
        pond.flush()
        daemon.process.send_signal(signal.SIGHUP)
        log = daemon.wait_exit(code=0)
    assert "recorder: 1 published = 1 delivered" in log


def test_the_folder_that_it_was_started_in_may_go(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    config = {
        "buffer": {"slots": 4, "channels": SMALL},
        "logging": {"logger_modules": [plugin("recorder", restart={"delay_s": 0.01})]},
    }
    daemon = Daemon(tmp_path / "d", config, cwd=folder)
    try:
        daemon.wait_state("running")
        folder.rmdir()
        before = daemon.signal_logger("recorder", signal.SIGKILL)
        daemon.other_logger_pid("recorder", before)
        with millpond.connect(daemon.run) as pond:
            pond.publish("1", {}, **ARRAYS)
        daemon.wait_settled()
        daemon.stop()
    finally:
        daemon.end()


def test_connections_to_health_do_not_eat_the_descriptors(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    daemon.wait_state("running")
    before = daemon.psutil.num_fds()
    with contextlib.ExitStack() as idle:
        for _ in range(200):
            peer = idle.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(daemon.run / "health.sock"))
        # The oldest ones are closed by the daemon, and a new question is answered.
        wait_until(lambda: daemon.psutil.num_fds() < before + 50, "most of them are closed")
        with millpond.connect(daemon.run) as pond:
            pond.publish("1", {}, **ARRAYS)
        daemon.wait_settled()
    daemon.stop()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("bufer: {slots: 4}\n", ":1: bufer", "buffer"),
        ("buffer: {slots: 0}\nlogging: {logger_modules: [csv]}\n", ":1: buffer.slots", "0"),
        ("logging:\n  logger_modules:\n    - csv\n    - nowhere.logger\n", ":4", "nowhere"),
        ("logging: {logger_modules: [csv]}\noutput_dir: /proc/x\n", ":2: output_dir", "/proc/x"),
    ],
)
def test_a_bad_configuration_is_one_message_and_78(
    tmp_path: Path, text: str, place: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    for verb in ("run", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "millpond", verb, path],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == 78
        assert f"{path}{place}" in done.stderr
        assert message in done.stderr
        assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [path]
