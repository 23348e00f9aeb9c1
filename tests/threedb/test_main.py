"""3DB's own main, scheduler and policies, with our buffer and loggers in the place of theirs."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from system.harness import wait_until

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "threedb.md"
END_S = 120
CHANGED = [str(HERE / "plugins" / "changed_main.py"), str(PAGE)]
UNCHANGED = ["-m", "millpond.compat.threedb_main"]
LOGGERS = (
    "threedb.result_logging.json_logger",
    "threedb.result_logging.image_logger",
    "mean_logger",
    "millpond_loggers.csv_logger",
)
SAMPLES = 25  # For each of two models, two sides of the control.


class Experiment:
    """3DB's main, and clients that answer it."""

    def __init__(self, folder: Path, main: list[str]) -> None:
        self.out = folder / "out"
        self.out.mkdir()
        (folder / "labels.json").write_text('{"0": "mug"}')
        config = {
            "inference": {
                "module": "any",
                "class": "any",
                "output_shape": [10],
                "label_map": str(folder / "labels.json"),
            },
            "evaluation": {"module": "threedb.evaluators.classification", "args": {"topk": 1}},
            "render_args": {"engine": "stub_engine", "resolution": 8},
            "policy": {"module": "threedb.policies.grid_search", "samples_per_dim": SAMPLES},
            "controls": [{"module": "stub_control"}],
            "logging": {"logger_modules": list(LOGGERS)},
        }
        (folder / "experiment.yaml").write_text(json.dumps(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.log = folder / "main.log"
        arguments = [str(folder), str(folder / "experiment.yaml"), str(self.out), self.port]
        self.processes: list[subprocess.Popen[Any]] = []
        self.main = self._start([*main, *arguments], self.log)

    def render(self, clients: int) -> None:
        for number in range(clients):
            name = f"client-{number}"
            script = str(HERE / "plugins" / "stub_client.py")
            self._start([script, self.port, name], self.log.with_name(f"{name}.log"))

    def _start(self, arguments: list[str], log: Path) -> subprocess.Popen[Any]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=output, stderr=output, start_new_session=True
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            for child in psutil.process_iter():  # Policies of a main that was killed.
                try:
                    if os.getsid(child.pid) == process.pid:
                        child.kill()
                except (ProcessLookupError, psutil.NoSuchProcess):
                    continue
            process.wait()

    def rows(self) -> list[dict[str, str]]:
        with (self.out / "details.csv").open(newline="") as table:
            return list(csv.DictReader(table))


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[list[str]], Experiment]]:
    made: list[Experiment] = []

    def start(main: list[str]) -> Experiment:
        made.append(Experiment(tmp_path, main))
        return made[-1]

    yield start
    for experiment in made:
        experiment.end()


@pytest.mark.parametrize("main", [CHANGED, UNCHANGED], ids=["two imports", "no edit"])
def test_a_whole_experiment_is_recorded_by_its_loggers_and_ours(
    begin: Callable[[list[str]], Experiment], main: list[str]
) -> None:
    experiment = begin(main)
    experiment.render(clients=2)
    assert experiment.main.wait(END_S) == 0, experiment.log.read_text()
    count = 4 * SAMPLES
    rows = experiment.rows()
    ids = {row["id"] for row in rows}
    assert len(rows) == len(ids) == count
    assert {(row["model"], row["StubControl.side"]) for row in rows} == {
        (model, side) for model in ("mug.blend", "pan.blend") for side in ("left", "right")
    }
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["StubControl.zoom"]), rel=1e-6)
    details = [
        json.loads(line) for line in (experiment.out / "details.log").read_text().splitlines()
    ]
    assert {line["id"] for line in details} == ids
    assert len(details) == count
    assert set(details[0]["render_args"]) == {"StubControl.zoom", "StubControl.side"}
    assert (experiment.out / "class_maps.json").exists()
    assert len(list((experiment.out / "images").glob("*_rgb.png"))) == count
    assert len(list((experiment.out / "images").glob("*_segmentation.npy"))) == count
    means = (experiment.out / "means.txt").read_text().splitlines()
    assert {line.split()[0] for line in means[:-1]} == ids
    assert means[-1] == "end"
    assert "Have a nice day" in experiment.log.read_text()


def test_a_scheduler_that_is_killed_leaves_no_daemon_and_loses_nothing_that_was_published(
    begin: Callable[[list[str]], Experiment],
) -> None:
    experiment = begin(UNCHANGED)
    experiment.render(clients=1)
    wait_until(lambda: (experiment.out / "details.csv").exists() and len(experiment.rows()), "rows")
    daemons = [
        child
        for child in psutil.Process(experiment.main.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and "own_daemon" in " ".join(child.cmdline())
    ]
    assert len(daemons) == 1
    experiment.main.send_signal(signal.SIGKILL)
    wait_until(lambda: not daemons[0].is_running(), "the daemon ends by itself")
    summary = (experiment.out / "millpond.log").read_text().splitlines()[-len(LOGGERS) :]
    published = {int(line.split(": ")[1].split()[0]) for line in summary}
    assert len(published) == 1, summary
    assert all("delivered + 0 dead + 0 on the disk" in line for line in summary)
    assert published == {len(experiment.rows())}
    details = (experiment.out / "details.log").read_text().splitlines()
    assert published == {len(details)}
