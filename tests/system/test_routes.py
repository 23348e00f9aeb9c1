"""Who gets what: conditions, samples, channels of one's own, several processes, kept slots."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from system.harness import SMALL, Daemon, plugin, read_ids, wait_until

import millpond

COUNT = 200


def publish(run: Path, first: int = 0, count: int = COUNT) -> None:
    with millpond.connect(run) as pond:
        for number in range(first, first + count):
            pond.publish(
                f"{number:06d}",
                {"zoom": number % 10},
                rgb=np.full((3, 16, 16), number % 7 / 7, np.float32),
                loss=number / 10,
                is_correct=number % 4 > 0,
            )


def ids_in_csv(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def verified(run: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "millpond", "verify", str(run), "--json"]
    report = orjson.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    assert report["good"], report
    return report["loggers"]


def test_conditions_and_samples_are_kept_to_and_the_books_say_so(
    start: Callable[..., Daemon],
) -> None:
    loggers = [
        "csv",
        {"module": "csv", "name": "bad", "options": {"file": "bad.csv"}, "when": "not is_correct"},
        {
            "module": "csv",
            "name": "some",
            "options": {"file": "some.csv"},
            "when": "render_args.zoom >= 5",
            "sample": "1/10",
        },
        {"module": "image", "when": "loss > 19.5", "channels": ["rgb"]},
    ]
    daemon = start(loggers, "--exit-when-done")
    publish(daemon.run)
    log = daemon.wait_exit()
    everything = [f"{number:06d}" for number in range(COUNT)]
    assert ids_in_csv(daemon.run / "details.csv") == everything
    assert ids_in_csv(daemon.run / "bad.csv") == everything[::4]
    passing = [id for id in everything if int(id) % 10 >= 5]
    assert ids_in_csv(daemon.run / "some.csv") == passing[::10]
    assert sorted(path.name for path in (daemon.run / "images").iterdir()) == [
        f"{id}_rgb.png" for id in everything[196:]
    ]
    assert "bad: 200 published = 50 delivered + 0 dead + 0 on the disk + 150 filtered" in log
    books = verified(daemon.run)
    assert {name: (row["delivered"], row["filtered"]) for name, row in books.items()} == {
        "csv": (200, 0),
        "bad": (50, 150),
        "some": (10, 190),
        "image": (4, 196),
    }


def test_a_result_that_nobody_wants_costs_no_slot(start: Callable[..., Daemon]) -> None:
    daemon = start([{"module": "csv", "when": "loss < 0"}], "--exit-when-done")
    publish(daemon.run)
    assert (
        "200 published = 0 delivered + 0 dead + 0 on the disk + 200 filtered" in daemon.wait_exit()
    )


def test_several_processes_share_the_results_of_a_logger(start: Callable[..., Daemon]) -> None:
    csv_logger = {"module": "csv", "instances": 3}
    image = {"module": "image", "instances": 2, "channels": ["rgb"]}
    daemon = start([csv_logger, image])
    daemon.wait_state("running")
    publish(daemon.run)
    status = daemon.wait_settled()
    assert status["loggers"]["csv"]["delivered"] == COUNT
    processes = status["loggers"]["csv"]["processes"]
    assert len({row["pid"] for row in processes}) == 3
    assert all(row["delivered"] > COUNT / 10 for row in processes)
    daemon.stop()
    parts = [ids_in_csv(daemon.run / f"details-{number}.csv") for number in (1, 2, 3)]
    counts = Counter(id for part in parts for id in part)
    assert counts == Counter(f"{number:06d}" for number in range(COUNT))
    assert all(part == sorted(part) for part in parts)
    assert len(list((daemon.run / "images").iterdir())) == COUNT
    books = verified(daemon.run)
    assert books["csv"]["delivered"] == books["image"]["delivered"] == COUNT


def test_a_process_that_is_killed_delays_only_what_it_had(start: Callable[..., Daemon]) -> None:
    daemon = start([{"module": "csv", "instances": 2}])
    publish(daemon.run)
    first = daemon.wait_settled()["loggers"]["csv"]["processes"]
    daemon.signal_child(first[0]["pid"], signal.SIGKILL)
    publish(daemon.run, first=COUNT)
    row = daemon.wait_settled()["loggers"]["csv"]
    assert row["delivered"] == 2 * COUNT
    wait_until(lambda: daemon.status()["loggers"]["csv"]["restarts"] == 1, "the killed one is back")
    daemon.stop()
    parts = [ids_in_csv(daemon.run / f"details-{number}.csv") for number in (1, 2)]
    assert Counter(parts[0] + parts[1]) == Counter(f"{n:06d}" for n in range(2 * COUNT))
    verified(daemon.run)


def test_what_several_processes_left_on_the_disk_fewer_take_over(
    start: Callable[..., Daemon],
) -> None:
    """None of three could be made, so everything waits; the next start has two."""
    broken = plugin("moody", "rows", options={"start": "die"}, instances=3)
    daemon = start([broken])
    publish(daemon.run, count=30)
    daemon.stop(code=None)
    left = verified(daemon.run)["rows"]
    assert left["published"] == 30
    daemon = start([{"module": "csv", "name": "rows", "instances": 2}])
    daemon.wait_settled()
    daemon.stop()
    parts = [ids_in_csv(daemon.run / f"details-{number}.csv") for number in (1, 2)]
    assert len(set(parts[0] + parts[1])) == left["spilled"] == 30
    assert min(map(len, parts)) > 0


def test_a_condition_about_a_channel_that_is_not_there_is_told_before_the_start(
    tmp_path: Path,
) -> None:
    buffer = {"slots": 16, "channels": SMALL}
    loggers = {"logger_modules": [{"module": "csv", "when": "los > 2"}]}
    daemon = Daemon(tmp_path, {"buffer": buffer, "logging": loggers})
    log = daemon.wait_exit(code=78)
    assert "logging.logger_modules[0].when: there is no channel 'los'; did you mean 'loss'?" in log


def test_when_a_renderer_declares_the_channels_it_is_told_what_is_missing(
    start: Callable[..., Daemon],
) -> None:
    daemon = start([{"module": "csv", "channels": ["depth"]}], buffer={"slots": 16})
    with pytest.raises(millpond.ChannelsRefused, match="no channel 'depth'"):
        millpond.connect(daemon.run, {"loss": ((), "float32")})
    assert daemon.status()["state"] == "waiting"
    with millpond.connect(daemon.run, {"depth": ((), "float32")}) as pond:
        pond.publish("a", {}, depth=1.0)
    daemon.wait_settled()
    daemon.stop()


def test_filtered_results_are_known_after_a_kill_of_the_daemon(
    start: Callable[..., Daemon],
) -> None:
    loggers = [{"module": "csv", "when": "not is_correct"}]
    daemon = start(loggers)
    publish(daemon.run)
    daemon.wait_settled()
    daemon.process.kill()
    daemon.process.wait()
    daemon = start(loggers)
    daemon.wait_serving()
    publish(daemon.run, first=COUNT, count=40)
    daemon.wait_settled()
    daemon.stop()
    books = verified(daemon.run)["csv"]
    assert (books["published"], books["delivered"], books["filtered"]) == (240, 60, 180)
    assert books["dead"] == 0


def test_a_logger_that_keeps_slots_is_patient_and_loses_nothing(
    start: Callable[..., Daemon],
) -> None:
    """It writes pairs: the first of a pair waits in its slot for the second one."""
    daemon = start([plugin("pairs", hang_s=0.5), "csv"])
    publish(daemon.run, count=5)
    wait_until(lambda: daemon.status()["loggers"]["pairs"]["delivered"] == 4, "two pairs")
    publish(daemon.run, first=5, count=2)
    wait_until(lambda: daemon.status()["loggers"]["pairs"]["delivered"] == 6, "one more")
    row = daemon.status()["loggers"]["pairs"]
    assert (row["in_window"], row["restarts"]) == (1, 0)
    log = daemon.stop()
    assert "pairs: 7 published = 7 delivered" in log
    assert read_ids(daemon.run / "pairs.txt") == [
        "000000+000001",
        "000002+000003",
        "000004+000005",
        "000006",
    ]


def test_a_logger_that_keeps_slots_gets_them_again_after_a_kill(
    start: Callable[..., Daemon],
) -> None:
    daemon = start([plugin("pairs")], "--exit-when-done")
    with millpond.connect(daemon.run) as pond:
        blank = np.zeros((3, 16, 16), np.float32)
        for number in range(3):
            pond.publish(f"{number}", {}, rgb=blank, loss=0, is_correct=True)
        wait_until(lambda: daemon.status()["loggers"]["pairs"]["delivered"] == 2, "a pair")
        daemon.signal_logger("pairs", signal.SIGKILL)
        pond.publish("3", {}, rgb=blank, loss=0, is_correct=True)
    daemon.wait_exit()
    assert read_ids(daemon.run / "pairs.txt") == ["0+1", "2+3"]
