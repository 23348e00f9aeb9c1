"""pyzmq: the arrays as message parts to each reader, with a bound on what is in flight."""

from __future__ import annotations

import json
import multiprocessing as mp
import tempfile
import time
from typing import Any

import numpy as np

from peers.job import Job, Measure, Pace, cpu_s, touch

MESSAGES_MAX = 64


def publish(job: Job, readers: int, *, every_s: float = 0.0) -> Measure:
    """Run it; needs pyzmq."""
    import zmq  # noqa: PLC0415

    context = mp.get_context("spawn")
    results = context.Queue()
    begin_s = cpu_s()
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as here:
        addresses = [f"ipc://{folder}/{n}" for n in range(readers)]
        peers = []
        for address in addresses:
            peer = here.socket(zmq.PUSH)
            peer.set_hwm(MESSAGES_MAX)
            peer.bind(address)
            peers.append(peer)
        processes = [
            context.Process(target=_read, args=(job, address, results)) for address in addresses
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
            parts = [json.dumps(item).encode(), *map(np.ascontiguousarray, job.arrays.values())]
            for peer in peers:
                peer.send_multipart(parts, copy=False)
        for peer in peers:
            peer.send(b"")
        latencies = [late for _ in processes for late in results.get()]
        rate = job.count / (time.perf_counter() - start_s)
        for process in processes:
            process.join()
        for peer in peers:
            peer.close()
    return Measure(rate, (cpu_s() - begin_s) / job.count * 1e6, sorted(latencies))


def _read(job: Job, address: str, results: Any) -> None:
    import zmq  # noqa: PLC0415

    with zmq.Context() as here:
        peer = here.socket(zmq.PULL)
        peer.set_hwm(MESSAGES_MAX)
        peer.connect(address)
        results.put("ready")
        latencies = []
        shapes = [(np.shape(a), a.dtype) for a in job.arrays.values()]
        while (parts := peer.recv_multipart(copy=False))[0].buffer.nbytes:
            item = json.loads(parts[0].bytes)
            arrays = [
                np.frombuffer(part.buffer, dtype).reshape(shape)
                for part, (shape, dtype) in zip(parts[1:], shapes, strict=True)
            ]
            touch(arrays, job.read)
            if "sent_s" in item["render_args"]:
                latencies.append(time.monotonic() - item["render_args"]["sent_s"])
        results.put(latencies)
        peer.close()
