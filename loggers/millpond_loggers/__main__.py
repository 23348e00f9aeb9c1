"""A logger process: ``python -m millpond_loggers``, started by the daemon only.

The numbers of the inherited descriptors stand in the arguments; what to make comes in the first
frame of the jobs pipe.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import sys
from typing import Any

import orjson

from millpond.core.layout import channels_from_json, plan
from millpond.core.wire import SETUP_BYTES_MAX, Frame, FrameReader, Kind
from millpond.errors import ConfigError
from millpond_loggers.plugin import PluginError, load
from millpond_loggers.process.confine import confine, keep_private
from millpond_loggers.process.diagnostics import show_diagnostics
from millpond_loggers.process.logger_setup import make_logger
from millpond_loggers.process.problem import describe, errno_of
from millpond_loggers.process.runner import READ_BYTES, Runner
from millpond_loggers.process.status import Status


def main(arguments: list[str]) -> int:
    """Serve as one logger until the daemon closes the pipe."""
    faulthandler.enable()  # A crash in C leaves its stack in the daemon's log.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The daemon decides when a logger ends.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    show_diagnostics()
    jobs_fd, status_fd, doorbell_fd, segment_fd, control_fd, acks_fd = map(int, arguments)
    keep_private(map(int, arguments))
    reader = FrameReader(SETUP_BYTES_MAX)
    setup, first = _read_setup(jobs_fd, reader)
    if setup is None:
        return 0  # The daemon ended before it said anything.
    confine(setup.get("limits") or {}, setup.get("daemon_pid"))
    layout = plan(channels_from_json(setup["channels"]), setup["slots"])
    status = Status(status_fd)
    try:
        _extend_path(setup["search_path"])
        logger_class = load(setup["kind"], setup["place"])
        logger, results = make_logger(logger_class, setup, layout, segment_fd)
    except (PluginError, ConfigError) as error:
        status.failed(str(error))
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001  Whatever a user's __init__ raises is reported.
        status.failed(f"making the logger failed:\n{describe(error)}", errno_of(error))
        return 1
    runner = Runner(
        logger,
        results,
        want=_words(control_fd, setup["index"] * layout.slot_count, layout.slot_count),
        acks=_words(acks_fd, 0, layout.slot_count + 1, writable=True),
        status=status,
        doorbell_fd=doorbell_fd,
    )
    status.ready()
    runner.run(jobs_fd, reader, first)
    return 0


def _read_setup(jobs_fd: int, reader: FrameReader) -> tuple[Any, list[Frame]]:
    while data := os.read(jobs_fd, READ_BYTES):
        frames = reader.feed(data)
        if frames:
            assert frames[0].kind == Kind.SETUP
            return orjson.loads(frames[0].body), frames[1:]
    return None, []


def _extend_path(folders: list[str]) -> None:
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)


def _words(fd: int, start: int, count: int, *, writable: bool = False) -> memoryview[int]:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    memory = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, protection)
    return memoryview(memory).cast("Q")[start : start + count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
