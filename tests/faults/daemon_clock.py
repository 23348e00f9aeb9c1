"""A wall clock that a test can move: a library that adds an offset to what the system says.

Only CLOCK_REALTIME is moved, as by a wrong time server; the monotonic clock is left alone.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *offset_s;

static long offset(void) {
    if (!offset_s) {
        static const long zero = 0;
        const char *name = getenv("CLOCK_OFFSET_FILE");
        int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *at = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
        offset_s = at == MAP_FAILED ? (volatile long *)&zero : at;
    }
    return *offset_s;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, now);
    if (!result && which == CLOCK_REALTIME) now->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *place) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (place) *place = exact.tv_sec;
    return exact.tv_sec;
}
"""


class MovedClock:
    """The clock of processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("a clock that can be moved needs a C compiler")
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_SOURCE)
        arguments = ["-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run([compiler, *arguments], check=True)
        place = folder / "offset"
        place.write_bytes(bytes(8))
        with place.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(place)}

    def move(self, offset_s: int) -> None:
        """Let the clock be ahead by so many seconds from now on."""
        struct.pack_into("<q", self._offset, 0, offset_s)

    def seen_by(self, command: list[str]) -> int:
        """What a process that is started with it takes for the time."""
        environment = {**os.environ, **self.environment}
        return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
