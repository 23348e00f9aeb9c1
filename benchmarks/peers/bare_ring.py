"""A bare shared ring without a supervisor: frames over a pipe to each reader, words for releases.

As much as can be left out is left out: no daemon, no checks, nobody who restarts anybody.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from millpond.core.wire import FrameReader, Kind, pack
from peers.job import SLOT_COUNT, Job, Measure, Pace, Ring, cpu_s, touch

READ_BYTES = 64 * 1024


def publish(job: Job, readers: int, *, every_s: float = 0.0) -> Measure:
    """Run it."""
    ring = Ring(job.layout)
    begin_s = cpu_s()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    processes, pipes, acks = [], [], []
    for _ in range(readers):
        jobs_read, jobs_write = os.pipe()
        ack_fd = os.memfd_create("acks")
        os.ftruncate(ack_fd, SLOT_COUNT * 8)
        arguments = [ring.path, str(jobs_read), str(ack_fd), str(bell)]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "peers.bare_ring", job.name, *arguments],
                pass_fds=[jobs_read, ack_fd, bell],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[1],
            )
        )
        os.close(jobs_read)
        pipes.append(jobs_write)
        acks.append(memoryview(mmap.mmap(ack_fd, 0)).cast("Q"))
        os.close(ack_fd)
    for process in processes:
        process.stdout.readline()
    free = list(range(SLOT_COUNT))
    used: list[tuple[int, int]] = []  # (slot, generation), oldest first.
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    pace = Pace(every_s)
    start_s = time.perf_counter()
    for number in range(1, job.count + 1):
        pace.wait()
        if not free:
            while not free:
                done = {use for use in used if all(ack[use[0]] == use[1] for ack in acks)}
                free += [slot for slot, _ in done]
                used = [use for use in used if use not in done]
                if not free:
                    poll.poll(100)
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(bell)
        slot = free.pop()
        ring.write(slot, job.arrays)
        args: dict[str, float] = {"zoom": number}
        if every_s:
            args["sent_s"] = time.monotonic()
        body = json.dumps({"id": f"{number:06d}", "render_args": args}).encode()
        frame = pack(Kind.PUBLISH, body, slot=slot, generation=number)
        for pipe in pipes:
            os.write(pipe, frame)
        used.append((slot, number))
    for pipe in pipes:
        os.close(pipe)
    latencies = [s for process in processes for s in json.loads(process.stdout.readline())]
    rate = job.count / (time.perf_counter() - start_s)
    for process in processes:
        process.wait()
        process.stdout.close()
    os.close(bell)
    ring.close()
    return Measure(rate, (cpu_s() - begin_s) / job.count * 1e6, sorted(latencies))


def main(name: str, ring_name: str, jobs_fd: int, ack_fd: int, bell: int) -> None:
    """A reader."""
    import orjson  # noqa: PLC0415
    from workloads import WORKLOADS  # noqa: PLC0415

    job = WORKLOADS[name]
    ring = Ring(job.layout, ring_name)
    acks = memoryview(mmap.mmap(ack_fd, 0)).cast("Q")
    reader = FrameReader()
    latencies = []
    print("ready", flush=True)
    while data := os.read(jobs_fd, READ_BYTES):
        frames = reader.feed(data)
        for frame in frames:
            item = orjson.loads(frame.body)
            touch(ring.read(frame.slot), job.read)
            if "sent_s" in item["render_args"]:
                latencies.append(time.monotonic() - item["render_args"]["sent_s"])
        for frame in frames:
            acks[frame.slot] = frame.generation
        os.eventfd_write(bell, 1)
    print(json.dumps(latencies), flush=True)
    ring.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
