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
import traceback
from typing import Any

import orjson

from millpond.core.layout import channels_from_json, plan
from millpond.core.wire import SETUP_BYTES_MAX, Frame, FrameReader, Kind
from millpond.errors import ConfigError
from millpond_loggers.confine import confine, keep_private
from millpond_loggers.plugin import PluginError, load
from millpond_loggers.runner import READ_BYTES, Runner, send_status
from millpond_loggers.shared_results import SharedResults


def main(arguments: list[str]) -> int:
    """Serve as one logger until the daemon closes the pipe."""
    faulthandler.enable()  # A crash in C leaves its stack in the daemon's log.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The daemon decides when a logger ends.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    jobs_fd, status_fd, doorbell_fd, segment_fd, control_fd, acks_fd = map(int, arguments)
    keep_private(map(int, arguments))
    reader = FrameReader(SETUP_BYTES_MAX)
    setup, first = _read_setup(jobs_fd, reader)
    if setup is None:
        return 0  # The daemon ended before it said anything.
    confine(setup.get("limits") or {}, setup.get("daemon_pid"))
    layout = plan(channels_from_json(setup["channels"]), setup["slots"])
    try:
        results = SharedResults(layout, segment_fd, regid=setup["index"] + 1)
        logger = _make(setup, results)
    except (PluginError, ConfigError) as error:
        send_status(status_fd, Kind.FAILED, str(error))
        return 1
    except (Exception, SystemExit):  # noqa: BLE001  Whatever a user's __init__ raises is reported.
        problem = f"making the logger failed:\n{traceback.format_exc()}"
        send_status(status_fd, Kind.FAILED, problem)
        return 1
    runner = Runner(
        logger,
        results,
        want=_words(control_fd, setup["index"] * layout.slot_count, layout.slot_count),
        acks=_words(acks_fd, 0, layout.slot_count + 1, writable=True),
        status_fd=status_fd,
        doorbell_fd=doorbell_fd,
    )
    send_status(status_fd, Kind.READY)
    runner.run(jobs_fd, reader, first)
    return 0


def _read_setup(jobs_fd: int, reader: FrameReader) -> tuple[Any, list[Frame]]:
    while data := os.read(jobs_fd, READ_BYTES):
        frames = reader.feed(data)
        if frames:
            assert frames[0].kind == Kind.SETUP
            return orjson.loads(frames[0].body), frames[1:]
    return None, []


def _make(setup: dict[str, Any], results: SharedResults) -> Any:
    for folder in setup["search_path"]:
        if folder not in sys.path:
            sys.path.append(folder)
    make = load(setup["kind"], setup["place"])
    own = {"name": setup["name"], "module": setup["place"], "options": setup["options"]}
    return make(setup["root_dir"], results, {**setup["experiment"], "logger": own})


def _words(fd: int, start: int, count: int, *, writable: bool = False) -> memoryview[int]:
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    memory = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, protection)
    return memoryview(memory).cast("Q")[start : start + count]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
