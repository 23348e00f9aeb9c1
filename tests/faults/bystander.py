"""How long the machine itself lets a process wait that has nothing to do with millpond.

Run as a script, it does a little work, sleeps a little, and notes how much later than wanted each
turn ended, until its standard input ends; then it prints these delays, JSON, in seconds.  On a
machine that others use too this tells their share of a renderer's wait from ours.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time

TURN_S = 0.002
WORK_S = 0.0005
# From the renderer to the daemon, to the logger, and back: each has to wait for a core.
HOPS = 3


class Bystander:
    """That process, beside a test."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def delays(self) -> tuple[float, float]:
        """End it, and give the delays of all hops: the 99th percentile and the worst."""
        output, _ = self.process.communicate()
        delays = sorted(json.loads(output))
        return HOPS * delays[len(delays) * 99 // 100], HOPS * delays[-1]

    def close(self) -> None:
        """End it, if that has not been done."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def watch() -> None:
    delays = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < WORK_S:
            pass
        time.sleep(TURN_S - WORK_S)
        delays.append(max(0.0, time.perf_counter() - start_s - TURN_S))
    sys.stdout.write(json.dumps(delays))


if __name__ == "__main__":
    watch()
