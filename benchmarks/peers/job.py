"""What every contestant is given, what each does with a result, and what is measured."""

from __future__ import annotations

import mmap
import os
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import Channel, Layout, plan

LINE_BYTES = 64
SLOT_COUNT = 256
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """One workload.

    Args:
        name: Its name in the table.
        read: What a reader does: ``nothing``, ``element`` or ``lines``.
        count: Results in a run.
        arrays: One result.
    """

    name: str
    read: str
    count: int
    arrays: Arrays

    @property
    def layout(self) -> Layout:
        channels = [Channel(n, np.shape(a), a.dtype.name) for n, a in self.arrays.items()]
        return plan(channels, SLOT_COUNT)


@dataclass(slots=True)
class Measure:
    """What one run did."""

    rate: float  # Results per second, until the slowest reader had the last one.
    cpu_us: float  # CPU microseconds per result, all processes.
    latencies_s: list[float] = field(default_factory=list)


def touch(arrays: Iterable[NDArray[Any]], read: str) -> None:
    """Do a reader's work."""
    if read == "nothing":
        return
    for array in arrays:
        if read == "element":
            array.flat[0]
        else:
            array.reshape(-1)[:: max(1, LINE_BYTES // array.itemsize)].max()


def cpu_s() -> float:
    """CPU of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Ring:
    """Slots in shared memory, laid out as millpond does it; opened by the path of a descriptor.

    Not `multiprocessing.shared_memory`: before Python 3.13 any process that has attached takes the
    memory away from the others when it ends.
    """

    def __init__(self, layout: Layout, path: str | None = None) -> None:
        if path is None:
            fd = os.memfd_create("bench")
            os.posix_fallocate(fd, 0, layout.segment_bytes)
        else:
            fd = os.open(path, os.O_RDWR)
        self._fd = fd
        self.path = f"/proc/{os.getpid()}/fd/{fd}"
        memory = mmap.mmap(fd, layout.segment_bytes)
        if path is None:
            np.frombuffer(memory, np.uint8)[:] = 0  # Touch every page.
        self.arrays = {
            channel.name: np.ndarray(
                (layout.slot_count, *channel.shape),
                channel.dtype,
                buffer=memory,
                offset=offset,
                strides=(layout.slot_bytes, *np.empty(channel.shape, channel.dtype).strides),
            )
            for channel, offset in zip(layout.channels, layout.offsets, strict=True)
        }

    def write(self, slot: int, arrays: Arrays) -> None:
        for name, array in arrays.items():
            self.arrays[name][slot] = array

    def read(self, slot: int) -> list[NDArray[Any]]:
        return [array[slot, ...] for array in self.arrays.values()]

    def close(self) -> None:
        os.close(self._fd)


class Pace:
    """Holds a publisher to a rate, for latency; as fast as it can for throughput."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s = time.monotonic()

    def wait(self) -> None:
        if self._every_s:
            self._due_s += self._every_s
            time.sleep(max(0.0, self._due_s - time.monotonic()))
