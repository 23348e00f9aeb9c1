"""Measure the result path on this machine: `make bench`.

Everything is measured in one run, in turns, for this is no quiet machine: what counts is a ratio
between two columns of one row, not the figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peers
from numpy.typing import NDArray

import millpond

TOUCH = Path(__file__).parent / "touch.py"
WORKLOADS: Mapping[str, tuple[str, int, Mapping[str, NDArray[Any]]]] = {
    # Name: what is read, results in a run, the arrays of a result.
    "bare": ("nothing", 60_000, {"a": np.float32(1), "b": np.float32(2), "c": np.bool_(True)}),
    "tiny": ("lines", 30_000, {"a": np.float32(1), "b": np.float32(2), "c": np.bool_(True)}),
    "image": (
        "lines",
        4_000,
        {
            "rgb": np.random.default_rng(0).random((3, 256, 256), dtype=np.float32),
            "segmentation": np.zeros((1, 256, 256), np.int32),
            "loss": np.float32(0.5),
        },
    ),
    "hd": ("lines", 600, {"rgb": np.zeros((1080, 1920, 3), np.uint8)}),
}


def pond_rate(
    read: str, arrays: Mapping[str, NDArray[Any]], count: int, loggers: int
) -> dict[str, float]:
    """Results per second at the slowest logger, and CPU of all processes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = {
            "output_dir": str(run),
            "buffer": {"slots": peers.SLOT_COUNT},
            "logging": {
                "logger_modules": [
                    {"module": str(TOUCH), "name": f"touch-{n}", "options": {"read": read}}
                    for n in range(loggers)
                ]
            },
        }
        path = Path(folder) / "bench.yaml"
        path.write_text(json.dumps(config))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "millpond", "run", path, "--exit-when-done"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        channels = {name: (np.shape(a), a.dtype) for name, a in arrays.items()}
        with millpond.connect(run, channels, claim_timeout_s=60) as pond:
            pond.publish("warm", {}, **arrays)
            pond.flush()
            _wait_ready(run, loggers)
            cpu_s = time.process_time()
            for number in range(count):
                pond.publish(f"{number:06d}", {"zoom": number}, **arrays)
            pond.flush()
            cpu_s = time.process_time() - cpu_s
        if daemon.wait(120):
            raise RuntimeError("the daemon lost something")
        records = [json.loads(file.read_text()) for file in run.glob("*.touch.json")]
    rates = [(r["count"] - 2) / (r["last_s"] - r["second_s"]) for r in records]
    return {"rate": min(rates), "renderer_us": cpu_s / count * 1e6}


def _wait_ready(run: Path, loggers: int) -> None:
    from millpond.health_client import fetch_status  # noqa: PLC0415

    while True:
        rows = fetch_status(run / "health.sock")["loggers"].values()
        if sum(row["delivered"] for row in rows) == loggers:
            return
        time.sleep(0.01)


def main() -> None:
    """Print a table: medians of the turns, and their ratio to the peers'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--loggers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    options = parser.parse_args()
    print(
        f"{'workload':9} {'loggers':>7} {'millpond/s':>11} {'queues/s':>9} {'copies/s':>9}"
        f" {'x queues':>9} {'x copy':>7} {'spread':>7}"
    )
    for name in options.workloads:
        read, count, arrays = WORKLOADS[name]
        for loggers in options.loggers:
            ours, theirs, copies = [], [], []
            for _ in range(options.turns):
                ours.append(pond_rate(read, arrays, count, loggers)["rate"])
                theirs.append(peers.queues(arrays, count // 4, loggers))
                copies.append(peers.copy_limit(arrays, count))
            mine, queue, copy = map(statistics.median, (ours, theirs, copies))
            spread = (max(ours) - min(ours)) / mine
            print(
                f"{name:9} {loggers:7} {mine:11,.0f} {queue:9,.0f} {copy:9,.0f}"
                f" {mine / queue:9.2f} {mine / copy:7.2f} {spread:7.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
