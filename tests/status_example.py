"""A status as the daemon gives it, for the tests of those who show it."""

from __future__ import annotations

from typing import Any

from millpond.core.logger_record import LoggerRecord, LoggerSpec


def logger_row(**changes: Any) -> dict[str, Any]:
    """The numbers of a logger that has recorded 7 of 10 results."""
    fresh = {**LoggerRecord(LoggerSpec("any")).statistics(), "filtered": 0}
    numbers = {"published": 10, "delivered": 7, "queued": 1, "in_window": 2}
    row = {**fresh, "pid": 4711, "state": "running", **numbers, **changes}
    assert set(row) == set(fresh)
    return row


def status_example(**changes: Any) -> dict[str, Any]:
    """The numbers of a daemon with two loggers."""
    return {
        "name": "demo",
        "version": "0.1.0",
        "pid": 17,
        "uptime_s": 1.5,
        "state": "running",
        "slots": {"total": 256, "free": 240},
        "renderers": [{"pid": 18, "claimed": 1, "published": 10}],
        "loggers": {"csv": logger_row(), "image": logger_row(dead=3, delivered=4, restarts=2)},
        "results": 10,
        "disk": {
            "spill_bytes": {"csv": 0, "image": 0},
            "spill_max": 2**30,
            "lost_before": 0,
            "unlisted": 0,
            "problem": "",
        },
        "output_dir": "/runs/demo",
        "socket": "/runs/demo/millpond.sock",
        **changes,
    }
