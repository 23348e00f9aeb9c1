"""The textbook: `multiprocessing.Queue` to each reader, with or without shared memory."""

from __future__ import annotations

import multiprocessing as mp
import time
from typing import Any

from peers.job import SLOT_COUNT, Job, Measure, Pace, Ring, cpu_s, touch

QUEUE_MAX = 64  # Pickled arrays in flight: bounded memory.


def shared(job: Job, readers: int, *, every_s: float = 0.0) -> Measure:
    """Descriptors through queues, arrays through a ring, releases through a queue back."""
    context = mp.get_context("spawn")
    ring = Ring(job.layout)
    inboxes = [context.Queue() for _ in range(readers)]
    released, results = context.Queue(), context.Queue()
    begin_s = cpu_s()
    processes = [
        context.Process(target=_read_shared, args=(job, ring.path, inbox, released, results))
        for inbox in inboxes
    ]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()  # Ready.
    free, holds = list(range(SLOT_COUNT)), [0] * SLOT_COUNT
    pace = Pace(every_s)
    start_s = time.perf_counter()
    for number in range(job.count):
        pace.wait()
        while not free or not released.empty():
            slot = released.get()
            holds[slot] -= 1
            if not holds[slot]:
                free.append(slot)
        slot = free.pop()
        ring.write(slot, job.arrays)
        holds[slot] = readers
        item = {"id": f"{number:06d}", "render_args": {"zoom": number}, "result_ix": slot}
        if every_s:
            item["render_args"]["sent_s"] = time.monotonic()
        for inbox in inboxes:
            inbox.put(item)
    measure = _finish(job, inboxes, processes, results, start_s, begin_s)
    ring.close()
    return measure


def pickled(job: Job, readers: int, *, every_s: float = 0.0) -> Measure:
    """The arrays themselves through the queues."""
    context = mp.get_context("spawn")
    inboxes = [context.Queue(QUEUE_MAX) for _ in range(readers)]
    results = context.Queue()
    begin_s = cpu_s()
    processes = [
        context.Process(target=_read_pickled, args=(job, inbox, results)) for inbox in inboxes
    ]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()
    pace = Pace(every_s)
    start_s = time.perf_counter()
    for number in range(job.count):
        pace.wait()
        item: dict[str, Any] = {"id": f"{number:06d}", "render_args": {"zoom": number}}
        if every_s:
            item["render_args"]["sent_s"] = time.monotonic()
        for inbox in inboxes:
            inbox.put({**item, **job.arrays})
    return _finish(job, inboxes, processes, results, start_s, begin_s)


def _finish(  # noqa: PLR0917
    job: Job, inboxes: list[Any], processes: list[Any], results: Any, start_s: float, begin_s: float
) -> Measure:
    for inbox in inboxes:
        inbox.put(None)
    latencies = [late for _ in processes for late in results.get()]
    rate = job.count / (time.perf_counter() - start_s)
    for process in processes:
        process.join()
    return Measure(rate, (cpu_s() - begin_s) / job.count * 1e6, sorted(latencies))


def _read_shared(job: Job, name: str, inbox: Any, released: Any, results: Any) -> None:
    ring = Ring(job.layout, name)
    results.put("ready")
    latencies = []
    while (item := inbox.get()) is not None:
        touch(ring.read(item["result_ix"]), job.read)
        if "sent_s" in item["render_args"]:
            latencies.append(time.monotonic() - item["render_args"]["sent_s"])
        released.put(item["result_ix"])
    results.put(latencies)
    released.cancel_join_thread()
    ring.close()


def _read_pickled(job: Job, inbox: Any, results: Any) -> None:
    results.put("ready")
    latencies = []
    while (item := inbox.get()) is not None:
        touch([item[name] for name in job.arrays], job.read)
        if "sent_s" in item["render_args"]:
            latencies.append(time.monotonic() - item["render_args"]["sent_s"])
    results.put(latencies)
