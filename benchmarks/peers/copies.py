"""The limit: nothing but the copy into shared slots, without any reader."""

from __future__ import annotations

import time

from peers.job import Job, Ring


def rate(job: Job, *, slots: int) -> float:
    """Results per second of the copy alone, cycling over some slots."""
    ring = Ring(job.layout)
    try:
        start_s = time.perf_counter()
        for number in range(job.count):
            ring.write(number % slots, job.arrays)
        return job.count / (time.perf_counter() - start_s)
    finally:
        ring.close()
