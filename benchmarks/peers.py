"""What others would do the same job with: every reader sees every result, nothing is lost."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Mapping
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 64
SLOT_COUNT = 256


def copy_limit(arrays: Mapping[str, NDArray[Any]], count: int) -> float:
    """Results per second of nothing but the copy into a ring of shared slots."""
    size = sum(array.nbytes for array in arrays.values())
    ring = SharedMemory(create=True, size=size * SLOT_COUNT)
    try:
        whole = np.frombuffer(ring.buf, np.uint8).reshape(SLOT_COUNT, size)
        source = np.concatenate(
            [np.atleast_1d(a).reshape(-1).view(np.uint8) for a in arrays.values()]
        )
        whole[:] = 0
        start_s = time.perf_counter()
        for number in range(count):
            np.copyto(whole[number % SLOT_COUNT], source)
        rate = count / (time.perf_counter() - start_s)
        del whole
    finally:
        ring.close()
        ring.unlink()
    return rate


def queues(arrays: Mapping[str, NDArray[Any]], count: int, readers: int) -> float:
    """The textbook: a queue to each reader, a ring in shared memory, a queue of releases back."""
    context = mp.get_context("spawn")
    size = sum(array.nbytes for array in arrays.values())
    ring = SharedMemory(create=True, size=size * SLOT_COUNT)
    inboxes = [context.Queue() for _ in range(readers)]
    released = context.Queue()
    processes = [
        context.Process(target=_read, args=(ring.name, size, inbox, released)) for inbox in inboxes
    ]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            released.get()  # Ready.
        source = np.concatenate(
            [np.atleast_1d(a).reshape(-1).view(np.uint8) for a in arrays.values()]
        )
        whole = np.frombuffer(ring.buf, np.uint8).reshape(SLOT_COUNT, size)
        free = list(range(SLOT_COUNT))
        holds = [0] * SLOT_COUNT
        start_s = time.perf_counter()
        for number in range(count):
            while not free:
                _take_back(released.get(), holds, free)
            slot = free.pop()
            whole[slot] = source
            holds[slot] = readers
            job = {"id": f"{number:06d}", "render_args": {"zoom": number}, "result_ix": slot}
            for inbox in inboxes:
                inbox.put(job)
        while len(free) < SLOT_COUNT:
            _take_back(released.get(), holds, free)
        rate = count / (time.perf_counter() - start_s)
        del whole
    finally:
        for inbox in inboxes:
            inbox.put(None)
        for process in processes:
            process.join()
        ring.close()
        ring.unlink()
    return rate


def _take_back(slot: int, holds: list[int], free: list[int]) -> None:
    holds[slot] -= 1
    if not holds[slot]:
        free.append(slot)


def _read(name: str, size: int, inbox: Any, released: Any) -> None:
    ring = SharedMemory(name=name)
    whole = np.frombuffer(ring.buf, np.uint8).reshape(SLOT_COUNT, size)
    released.put(-1)
    while (job := inbox.get()) is not None:
        whole[job["result_ix"], ::LINE_BYTES].max()
        released.put(job["result_ix"])
    del whole
    ring.close()
