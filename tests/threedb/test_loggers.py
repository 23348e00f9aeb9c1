"""3DB's own loggers, unmodified, in a daemon of ours."""

from __future__ import annotations

import csv
import importlib
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from system.harness import Daemon, wait_until

import millpond

CHANNELS = {
    "rgb": {"shape": [3, 8, 8], "dtype": "float32"},
    "segmentation": {"shape": [1, 8, 8], "dtype": "int32"},
    "prediction": {"shape": [2], "dtype": "int32"},
    "loss": {"shape": [], "dtype": "float32"},
    "is_correct": {"shape": [], "dtype": "bool"},
}
JSON = "threedb.result_logging.json_logger"
IMAGE = "threedb.result_logging.image_logger"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []
    (tmp_path / "labels.json").write_text('{"0": "mug"}')

    def begin(*loggers: Any) -> Daemon:
        config = {
            "buffer": {"slots": 16, "channels": CHANNELS},
            "logging": {"logger_modules": list(loggers)},
            "inference": {"module": "any", "label_map": str(tmp_path / "labels.json")},
            "evaluation": {"module": "threedb.evaluators.classification", "args": {"topk": 1}},
            "render_args": {"engine": "stub_engine", "resolution": 8},
            "policy": {"module": "threedb.policies.grid_search"},
        }
        daemons.append(Daemon(tmp_path, config))
        daemons[-1].wait_serving()
        return daemons[-1]

    yield begin
    for daemon in daemons:
        daemon.end()


def publish(daemon: Daemon, ids: range) -> None:
    with millpond.connect(daemon.socket, claim_timeout_s=60) as pond:
        for number in ids:
            pond.publish(
                f"r{number}",
                {"Camera.zoom": number / 8, "Light.kind": "a, b"},
                fields={"environment": "white", "model": "mug"},
                rgb=np.full((3, 8, 8), (number % 5) / 4, "float32"),
                segmentation=np.full((1, 8, 8), number, "int32"),
                prediction=np.array([number, 0], "int32"),
                loss=number / 4,
                is_correct=number % 2 == 0,
            )


def lines(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (daemon.run / "details.log").read_text().splitlines()]


def test_its_json_and_image_loggers_and_one_written_for_it_record_everything(
    start: Callable[..., Daemon],
) -> None:
    cv2 = importlib.import_module("cv2")
    daemon = start(JSON, IMAGE, "mean_logger", "csv")
    publish(daemon, range(40))
    daemon.wait_settled()
    log = daemon.stop()
    assert "exception" not in log.lower()
    rows = lines(daemon)
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(40)]
    assert rows[3] == {
        "prediction": [3, 0],
        "loss": "0.75",
        "is_correct": "False",
        "id": "r3",
        "environment": "white",
        "model": "mug",
        "render_args": {"Camera.zoom": 0.375, "Light.kind": "a, b"},
        "output_type": "classes",
    }
    assert json.loads((daemon.run / "class_maps.json").read_text()) == {"0": "mug"}
    for number in (0, 4, 39):
        picture = cv2.imread(str(daemon.run / "images" / f"r{number}_rgb.png"))
        assert picture.shape == (8, 8, 3)
        assert np.abs(picture - 255 * (number % 5) / 4).max() <= 1
        segmentation = np.load(daemon.run / "images" / f"r{number}_segmentation.npy")
        assert (segmentation == number).all()
    # What one logger writes into its tensors is seen by no other.
    means = (daemon.run / "means.txt").read_text().splitlines()
    assert means[-1] == "end"
    assert means[4] == "r4 255.000 Camera.zoom,Light.kind"
    with (daemon.run / "details.csv").open(newline="") as table:
        assert len(list(csv.DictReader(table))) == 40


def test_what_was_released_is_in_the_file_whenever_its_logger_is_killed(
    start: Callable[..., Daemon],
) -> None:
    daemon = start(JSON)
    published = 0
    for _ in range(3):
        publish(daemon, range(published, published + 20))
        published += 20
        daemon.wait_settled()
        killed = daemon.signal_logger("json", signal.SIGKILL)
        assert len(lines(daemon)) == published
        daemon.other_logger_pid("json", killed)
    daemon.stop()
    assert [row["id"] for row in lines(daemon)] == [f"r{number}" for number in range(60)]


def test_a_kill_in_the_middle_loses_nothing(start: Callable[..., Daemon]) -> None:
    daemon = start(JSON, "null")
    publish(daemon, range(30))
    killed = daemon.signal_logger("json", signal.SIGKILL)
    publish(daemon, range(30, 60))
    daemon.other_logger_pid("json", killed)
    daemon.wait_settled()
    daemon.stop()
    text = (daemon.run / "details.log").read_text()
    ids = Counter(
        json.loads(line)["id"] for line in text.splitlines() if line.endswith('"classes"}')
    )
    assert set(ids) == {f"r{number}" for number in range(60)}


def test_its_dead_end_is_its_own(start: Callable[..., Daemon]) -> None:
    """3DB's TensorBoard logger uses names that it does not define."""
    daemon = start(JSON, {"module": "threedb.result_logging.tb_logger", "name": "tb"})
    publish(daemon, range(2))
    wait_until(
        lambda: daemon.status()["loggers"]["json"]["delivered"] == 2, "the other one goes on"
    )
    assert len(lines(daemon)) == 2
