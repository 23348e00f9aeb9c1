"""A daemon of one's own is started with the run, and never outlives it idly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.compat.conftest import CHANNELS, has_ended, wait_until

from millpond.compat.delivery import ResultsMissing
from millpond.compat.own_daemon import OwnDaemon, Plan, end_with, plain
from millpond.compat.slot_pond import SlotPond
from millpond.config.load import load
from millpond.errors import DaemonUnreachable

DECLARED = {channel.name: (channel.shape, channel.dtype) for channel in CHANNELS}
VALUES = {"rgb": np.zeros((3, 4, 4), "float32"), "is_correct": True, "loss": 0.5}
DYING = """
import os
class Logger:
    def __init__(self, root_dir, result_buffer, config):
        pass
    def log(self, item):
        os._exit(3)
    def end(self):
        pass
"""


def publish(pond: SlotPond, id: str) -> None:
    slot, generation = pond.claim_slot(10, lambda: None)
    pond.write(slot, VALUES)
    pond.publish_slot((slot, generation), id, b'{"id":"%s","render_args":{}}' % id.encode())


def test_it_serves_records_and_ends_when_its_renderer_has_left(tmp_path: Path) -> None:
    daemon = OwnDaemon(Plan(tmp_path, ["csv"], slots=4), CHANNELS)
    pond = daemon.connect(DECLARED)
    for number in range(20):
        publish(pond, f"r{number}")
    pond.close()
    daemon.wait(30)
    assert len((tmp_path / "details.csv").read_text().splitlines()) == 21
    assert has_ended(daemon.pid)
    assert "csv: 20 published = 20 delivered" in daemon.last_words()


def test_its_configuration_can_be_read_again(tmp_path: Path) -> None:
    experiment = {
        "inference": {"resolution": (224, 224), "rate": 1e-5},
        "policy": None,
        "controls": defaultdict(dict, {"Camera": {"zoom": np.float64(1.5)}}),
        "base_config": "elsewhere.yaml",
        "logging": {"logger_modules": ["not.these"]},
    }
    plan = Plan(tmp_path, ["csv", {"module": "json", "when_full": "spill"}], experiment, 5)
    daemon = OwnDaemon(plan, CHANNELS)
    daemon.connect(DECLARED).close()
    daemon.wait(30)
    config = load(tmp_path / "millpond.yaml")
    assert [logger.name for logger in config.loggers] == ["csv", "json"]
    assert config.buffer.slots == 5
    assert config.inference == {"resolution": [224, 224], "rate": 1e-5}
    assert config.controls == {"Camera": {"zoom": 1.5}}
    assert config.policy is None


def test_sockets_of_a_deep_folder_are_elsewhere_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    daemon = OwnDaemon(Plan(folder, ["null"]), CHANNELS)
    assert len(os.fsencode(daemon.socket)) < 108
    daemon.connect(DECLARED).close()
    daemon.wait(30)
    assert not daemon.socket.parent.exists()
    assert folder.exists()


def test_sockets_that_are_elsewhere_are_removed_also_when_nobody_waits(tmp_path: Path) -> None:
    daemon = OwnDaemon(Plan(tmp_path / ("d" * 110), ["null"]), CHANNELS)
    daemon.connect(DECLARED).close()
    wait_until(lambda: has_ended(daemon.pid))
    assert not daemon.socket.parent.exists()
    daemon.wait(30)


def test_one_that_cannot_be_started_says_why_at_once(tmp_path: Path) -> None:
    daemon = OwnDaemon(Plan(tmp_path, ["no.such.logger"]), CHANNELS)
    with pytest.raises(DaemonUnreachable, match=r"no\.such\.logger"):
        daemon.connect(DECLARED)
    assert has_ended(daemon.pid)


def test_a_folder_that_another_daemon_has_is_not_taken_over(served: Path) -> None:
    ours = [served.parent / name for name in ("millpond.yaml", "millpond.log")]
    before = [path.read_bytes() for path in ours]
    assert all(before)
    with pytest.raises(DaemonUnreachable, match=r"a daemon \(pid \d+\) is running in"):
        OwnDaemon(Plan(served.parent, ["json"]), CHANNELS)
    assert [path.read_bytes() for path in ours] == before


def test_the_log_of_an_earlier_run_stays_and_is_not_taken_for_ours(tmp_path: Path) -> None:
    for count in (1, 2):
        daemon = OwnDaemon(Plan(tmp_path, ["csv"]), CHANNELS)
        pond = daemon.connect(DECLARED)
        for number in range(count):
            publish(pond, f"r{number}")
        pond.close()
        daemon.wait(30)
    assert "1 published = 1 delivered" in (tmp_path / "millpond.log").read_text()
    assert "1 published = 1 delivered" not in daemon.last_words()
    assert "2 published = 2 delivered" in daemon.last_words()


def test_results_that_are_lost_are_an_error_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    logger = {"module": str(tmp_path / "dying.py"), "restart": {"delay_s": 0.01}}
    daemon = OwnDaemon(Plan(tmp_path / "out", [logger]), CHANNELS)
    pond = daemon.connect(DECLARED)
    publish(pond, "lost")
    pond.close()
    with pytest.raises(ResultsMissing, match=r"dying: 1 published = 0 delivered . 1 dead"):
        daemon.wait(60)


def test_results_that_wait_on_the_disk_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text("raise SystemExit")
    logger = {"module": str(tmp_path / "dying.py"), "restart": {"delay_s": 0.01}}
    daemon = OwnDaemon(Plan(tmp_path / "out", [logger]), CHANNELS)
    pond = daemon.connect(DECLARED)
    publish(pond, "waits")
    pond.close()
    with pytest.raises(ResultsMissing, match=r"wait on the disk for dying; .* millpond replay"):
        daemon.wait(60)


PARENT = """
import sys
from pathlib import Path
import numpy as np
from millpond.compat.own_daemon import OwnDaemon, Plan
from millpond.core.layout import Channel
channels = (Channel("loss", (), "float32"),)
daemon = OwnDaemon(Plan(Path(sys.argv[1]), ["csv"]), channels)
if sys.argv[2] == "connect":
    pond = daemon.connect({"loss": ((), "float32")})
    for number in range(5):
        slot, generation = pond.claim_slot(10, lambda: None)
        pond.write(slot, {"loss": 0.5})
        pond.publish_slot((slot, generation), f"r{number}", b'{"id":"r","render_args":{}}')
    pond.flush()
print(daemon.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("moment", ["at once", "connect"])
def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path: Path, moment: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: has_ended(pid))
    if moment == "connect":  # What was published is recorded all the same.
        assert len((tmp_path / "details.csv").read_text().splitlines()) == 6


def test_who_comes_too_late_to_see_the_end_of_its_parent_ends_itself() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, 1):
        with pytest.raises(SystemExit, match="has ended"):
            end_with(pid)


def test_ctrl_c_is_not_for_the_daemon(tmp_path: Path) -> None:
    daemon = OwnDaemon(Plan(tmp_path, ["null"]), CHANNELS)
    pond = daemon.connect(DECLARED)
    assert os.getsid(daemon.pid) != os.getsid(0)
    pond.close()
    daemon.wait(30)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2.5, "a")), [1, [2.5, "a"]]),
        ({("a", "b"): 1, 3: {4}}, {"('a', 'b')": 1, 3: [4]}),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.bool_(True), True),
        (signal.SIGTERM, 15),
        (Path("x"), "x"),
        (None, None),
    ],
)
def test_values_are_made_plain(value: Any, expected: Any) -> None:
    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)
