"""Measure the result path on this machine: `make bench`.

Everything is measured in one run, in turns, for this is no quiet machine: what counts is a ratio
between two columns of one row, not the figure.  The table is kept in ``RESULTS.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peers import bare_ring, copies, pond, queues, sockets
from peers.job import Measure
from workloads import WORKLOADS

RESULTS = Path(__file__).parent / "RESULTS.md"
Contestant = Callable[..., Measure]
LATENCY_EVERY_S = 0.005
LATENCY_COUNT = 600


def contestants() -> dict[str, Contestant]:
    """Who takes part: those whose library is installed."""
    found: dict[str, Contestant] = {
        "millpond": pond.publish,
        "bare ring": bare_ring.publish,
        "queues + shm": queues.shared,
        "pickled": queues.pickled,
    }
    if importlib.util.find_spec("zmq"):
        found["pyzmq"] = sockets.publish
    if importlib.util.find_spec("iceoryx2"):
        from peers import iceoryx  # noqa: PLC0415

        found["iceoryx2"] = iceoryx.publish
    return found


def throughput(names: list[str], readers: list[int], turns: int) -> list[str]:
    """Results per second, and CPU per result: a table in Markdown."""
    peers = contestants()
    lines = [
        f"| workload | loggers | {' | '.join(peers)} | copy hot / cycling |",
        "| --- " * (3 + len(peers)) + "|",
    ]
    for name in names:
        job = WORKLOADS[name]
        for count in readers:
            rates: dict[str, list[float]] = {peer: [] for peer in peers}
            cpus: dict[str, list[float]] = {peer: [] for peer in peers}
            limits = []
            for _ in range(turns):
                for peer, publish in peers.items():
                    measure = publish(job, count)
                    rates[peer].append(measure.rate)
                    cpus[peer].append(measure.cpu_us)
                limits.append((copies.rate(job, slots=1), copies.rate(job, slots=256)))
            cells = [_cell(rates[peer], cpus[peer], rates["millpond"]) for peer in peers]
            hot, cycling = (statistics.median(limit) for limit in zip(*limits, strict=True))
            line = f"| {name} | {count} | {' | '.join(cells)} | {hot:,.0f} / {cycling:,.0f} |"
            print(line, flush=True)
            lines.append(line)
    return lines


def _cell(rates: list[float], cpus: list[float], ours: list[float]) -> str:
    median = statistics.median(rates)
    spread = (max(rates) - min(rates)) / median
    ratio = "" if rates is ours else f", {statistics.median(ours) / median:.2f}x"
    return f"{median:,.0f} ±{spread / 2:.0%}{ratio}, {statistics.median(cpus):,.0f} µs"


def latency(readers: list[int], turns: int) -> list[str]:
    """From publish to log, at 200 results of `image` a second."""
    job = replace(WORKLOADS["image"], count=LATENCY_COUNT)
    peers = contestants()
    lines = [f"| loggers | {' | '.join(peers)} |", "| --- " * (1 + len(peers)) + "|"]
    for count in readers:
        cells = []
        for publish in peers.values():
            found = [publish(job, count, every_s=LATENCY_EVERY_S).latencies_s for _ in range(turns)]
            halves = statistics.median(_quantile(late, 0.5) for late in found)
            worst = statistics.median(_quantile(late, 0.99) for late in found)
            cells.append(f"{halves * 1e6:,.0f} / {worst * 1e6:,.0f}")
        line = f"| {count} | {' | '.join(cells)} |"
        print(line, flush=True)
        lines.append(line)
    return lines


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def memory() -> list[str]:
    """PSS beside the slots."""
    found = pond.memory_mb(["csv", "json", "null"])
    line = ", ".join(f"{name} {mb:.0f} MB" for name, mb in found.items())
    print(line)
    return [line]


def main() -> None:
    """Print the tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--loggers", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md")
    options = parser.parse_args()
    text = [
        "# Results",
        "",
        f"`python benchmarks/result_path.py {' '.join(sys.argv[1:])}`, "
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "Medians; ± half the spread; N.NNx: millpond is so many times as fast; µs: CPU of all",
        "processes per result, start-up included.",
        "",
        *throughput(options.workloads, options.loggers, options.turns),
        "",
        "From publish to log at 200 results of *image* a second, p50 / p99 in µs:",
        "",
        *latency(options.loggers, options.turns),
        "",
        "Memory beside the slots (PSS):",
        "",
        *memory(),
    ]
    if options.keep:
        RESULTS.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
