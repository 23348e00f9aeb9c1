"""millpond itself: a daemon, loggers that touch, and this process as the renderer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

import millpond
from millpond.health_client import fetch_status
from peers.job import SLOT_COUNT, Job, Measure, Pace, cpu_s

TOUCH = Path(__file__).parents[1] / "touch.py"
START_S_MAX = 120


def publish(
    job: Job, readers: int, *, every_s: float = 0.0, slots: int = SLOT_COUNT, **policy: Any
) -> Measure:
    """Run it; the first result is to warm up."""
    begin_s = cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        daemon = start(Path(folder), run, job, readers, slots=slots, policy=policy)
        channels = {name: (a.shape, a.dtype) for name, a in job.arrays.items()}
        with millpond.connect(run, channels, claim_timeout_s=START_S_MAX) as pond:
            pond.publish("warm", {}, **job.arrays)
            wait_delivered(run, 1)
            pace = Pace(every_s)
            start_s = time.monotonic()
            for number in range(job.count):
                pace.wait()
                args: dict[str, float] = {"zoom": number}
                if every_s:
                    args["sent_s"] = time.monotonic()
                pond.publish(f"{number:06d}", args, **job.arrays)
        if daemon.wait(START_S_MAX):
            raise RuntimeError("the daemon lost something")
        records = [json.loads(file.read_text()) for file in run.glob("*.touch.json")]
    assert all(record["count"] == job.count + 1 for record in records)
    rate = job.count / (max(record["last_s"] for record in records) - start_s)
    latencies = sorted(late for record in records for late in record["latencies_s"])
    return Measure(rate, (cpu_s() - begin_s) / job.count * 1e6, latencies)


def start(
    folder: Path, run: Path, job: Job, readers: int, *, slots: int, policy: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """Start a daemon that ends when its renderer has left."""
    options = {"read": job.read}
    loggers = [
        {"module": str(TOUCH), "name": f"touch-{n}", "options": options, **policy}
        for n in range(readers)
    ]
    config = {
        "output_dir": str(run),
        "buffer": {"slots": slots},
        "logging": {"logger_modules": loggers},
    }
    path = folder / "bench.yaml"
    path.write_text(json.dumps(config))
    return subprocess.Popen(
        [sys.executable, "-m", "millpond", "run", path, "--exit-when-done"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_delivered(run: Path, count: int) -> None:
    """Wait until every logger has recorded so many."""
    while any(
        row["delivered"] < count for row in fetch_status(run / "health.sock")["loggers"].values()
    ):
        time.sleep(0.01)


def memory_mb(modules: list[str]) -> dict[str, float]:
    """PSS beside the slots, in MB, of the daemon and of each logger, after some results."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = {
            "output_dir": str(run),
            "buffer": {"slots": 16},
            "logging": {"logger_modules": modules},
        }
        path = Path(folder) / "bench.yaml"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "millpond", "run", path, "--exit-when-done"]
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with millpond.connect(run, {"loss": ((), "float32")}, claim_timeout_s=60) as pond:
            for number in range(1000):
                pond.publish(f"{number}", {"zoom": number}, loss=0.5)
            wait_delivered(run, 1000)
            rows = fetch_status(run / "health.sock")["loggers"]
            pids = {"daemon": daemon.pid, **{name: row["pid"] for name, row in rows.items()}}
            found = {
                name: psutil.Process(pid).memory_full_info().pss / 1e6 for name, pid in pids.items()
            }
        daemon.wait(60)
    return found
