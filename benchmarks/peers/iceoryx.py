"""iceoryx2: one sample per result in its shared memory, an event to wake the readers."""

from __future__ import annotations

import ctypes
import json
import multiprocessing as mp
import os
import time
from typing import Any

import iceoryx2 as iox
import numpy as np

from peers.job import Job, Measure, Pace, cpu_s, touch

BUFFER_SIZE = 64  # Samples in flight for each reader: bounded memory.
BODY_BYTES = 256  # The job, as JSON, at the head of each sample; its length in the first two.


def publish(job: Job, readers: int, *, every_s: float = 0.0) -> Measure:
    """Run it; needs iceoryx2."""
    context = mp.get_context("spawn")
    results = context.Queue()
    begin_s = cpu_s()
    name = f"millpond-bench-{os.getpid()}-{time.monotonic_ns()}"
    node, samples, events = _services(name)
    size = BODY_BYTES + job.layout.slot_bytes
    publisher = (
        samples.publisher_builder()
        .initial_max_slice_len(size)
        .max_loaned_samples(2)
        .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
        .create()
    )
    notifier = events.notifier_builder().create()
    processes = [context.Process(target=_read, args=(job, name, results)) for _ in range(readers)]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()
    pace = Pace(every_s)
    start_s = time.perf_counter()
    for number in range(job.count + 1):
        pace.wait()
        sample = publisher.loan_slice_uninit(size)
        view = np.frombuffer(sample.payload().as_memory_view(), np.uint8)
        args: dict[str, float] = {"zoom": number}
        if every_s:
            args["sent_s"] = time.monotonic()
        body = json.dumps({"id": f"{number:06d}", "render_args": args}).encode()
        if number == job.count:
            body = b""  # The last one says that nothing follows.
        view[:2] = np.frombuffer(len(body).to_bytes(2, "little"), np.uint8)
        view[2 : 2 + len(body)] = np.frombuffer(body, np.uint8)
        for array, target in zip(job.arrays.values(), _arrays(job, view), strict=True):
            target[...] = array
        sample.assume_init().send()
        notifier.notify()
    latencies = [late for _ in processes for late in results.get()]
    rate = job.count / (time.perf_counter() - start_s)
    for process in processes:
        process.join()
    del node
    return Measure(rate, (cpu_s() - begin_s) / job.count * 1e6, sorted(latencies))


def _services(name: str) -> tuple[Any, Any, Any]:
    iox.set_log_level(iox.LogLevel.Error)
    node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
    samples = (
        node.service_builder(iox.ServiceName.new(name))
        .publish_subscribe(iox.Slice[ctypes.c_uint8])
        .enable_safe_overflow(False)
        .subscriber_max_buffer_size(BUFFER_SIZE)
        .subscriber_max_borrowed_samples(2)
        .max_subscribers(16)
        .max_nodes(20)
        .open_or_create()
    )
    events = (
        node.service_builder(iox.ServiceName.new(name)).event().max_listeners(16).open_or_create()
    )
    return node, samples, events


def _arrays(job: Job, view: Any) -> list[Any]:
    layout = job.layout
    return [
        view[BODY_BYTES + offset : BODY_BYTES + offset + channel.size_bytes]
        .view(channel.dtype)
        .reshape(channel.shape)
        for channel, offset in zip(layout.channels, layout.offsets, strict=True)
    ]


def _read(job: Job, name: str, results: Any) -> None:
    _node, samples, events = _services(name)
    subscriber = samples.subscriber_builder().buffer_size(BUFFER_SIZE).create()
    listener = events.listener_builder().create()
    latencies = []
    results.put("ready")
    while True:
        sample = subscriber.receive()
        if sample is None:
            listener.blocking_wait()
            continue
        view = np.frombuffer(sample.payload().as_memory_view(), np.uint8)
        length = int.from_bytes(bytes(view[:2]), "little")
        if not length:
            break
        item = json.loads(bytes(view[2 : 2 + length]))
        if job.read != "nothing":
            touch(_arrays(job, view), job.read)
        if "sent_s" in item["render_args"]:
            latencies.append(time.monotonic() - item["render_args"]["sent_s"])
        del view
        sample.delete()
    results.put(latencies)
