"""Health over a Unix socket: HTTP, read by people, scripts, Prometheus and probes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

SHUTDOWN_S: Final = 0.5  # A reader that does not read does not hold up the end.

CONNECTIONS_MAX: Final = 32  # They must not eat the daemon's descriptors.
NEARLY_FULL: Final = 0.9  # Of a spill: time to look, before results are lost.
CONNECTING_S: Final = 0.01  # From the accept until a connection can be closed.

Status = dict[str, Any]


class HealthServer:
    """Serves ``/livez``, ``/readyz``, ``/status`` and ``/metrics``.

    Args:
        path: The socket; whatever socket lies there is replaced.
        status: Gives the present numbers.
    """

    def __init__(self, path: Path, status: Callable[[], Status]) -> None:
        self._path = path
        self._status = status
        self._listener: asyncio.Server | None = None
        self._connections: deque[RequestHandler] = deque()  # Oldest first.
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(status))
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/status", self._show_status)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )

    async def start(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        await self._runner.setup()
        mask = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_unix_server(self._connect, os.fspath(self._path))
        finally:
            os.umask(mask)

    def _connect(self) -> asyncio.BaseProtocol:
        """Serve one more connection; the oldest one goes, so that none can keep others out."""
        server = self._runner.server
        assert server is not None
        connection = server()
        self._connections.append(connection)
        if len(self._connections) > CONNECTIONS_MAX:
            oldest = self._connections.popleft()
            # Not at once: in a burst it is not connected yet.
            asyncio.get_running_loop().call_later(CONNECTING_S, oldest.force_close)
        return connection

    async def close(self) -> None:
        """Stop listening, and remove the socket."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = unready(self._status())
        text = "".join(f"{problem}\n" for problem in problems) or "ok\n"
        return web.Response(text=text, status=503 if problems else 200)

    async def _show_status(self, _: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def _metrics(self, _: web.Request) -> web.Response:
        page = generate_latest(self._registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})


def unready(status: Status) -> list[str]:
    """Why results cannot be recorded as they should be; empty when they can."""
    problems = []
    if status["state"] == "draining":
        problems.append("the daemon is draining")
    for name, logger in status["loggers"].items():
        if logger["state"] not in ("running", "down"):
            problems.append(f"logger '{name}' is {logger['state']}{_why(logger)}")
        elif logger["is_suspended"]:
            problems.append(f"logger '{name}' cannot write{_why(logger)}")
        used = status["disk"]["spill_bytes"].get(name, 0)
        if used > NEARLY_FULL * status["disk"]["spill_max"]:
            problems.append(f"the spill of logger '{name}' is nearly full: {used} bytes")
    if status["disk"]["problem"]:
        problems.append(f"the run folder: {status['disk']['problem']}")
    return problems


def _why(logger: Status) -> str:
    # A traceback has lines, a reason is one.
    return f": {' '.join(logger['last_error'].split())}" if logger["last_error"] else ""


class StatusCollector(Collector):
    """The daemon's own counters as Prometheus metrics; nothing is counted twice."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give every metric with its present value."""
        status = self._status()
        info = GaugeMetricFamily("millpond_build_info", "Always 1.", labels=["name", "version"])
        info.add_metric([status["name"], status["version"]], 1)
        yield info
        yield GaugeMetricFamily(
            "millpond_uptime_seconds", "Seconds since the start.", value=status["uptime_s"]
        )
        slots = GaugeMetricFamily("millpond_buffer_slots", "Slots by state.", labels=["state"])
        slots.add_metric(["free"], status["slots"]["free"])
        slots.add_metric(["held"], status["slots"]["total"] - status["slots"]["free"])
        yield slots
        yield GaugeMetricFamily(
            "millpond_renderers", "Renderers that are connected.", value=len(status["renderers"])
        )
        yield CounterMetricFamily(
            "millpond_results_total", "Results published.", value=status["results"]
        )
        spill = GaugeMetricFamily("millpond_spill_bytes", "Bytes on the disk.", labels=["logger"])
        for name, used in status["disk"]["spill_bytes"].items():
            spill.add_metric([name], used)
        yield spill
        yield from self._of_loggers(status["loggers"])

    def _of_loggers(self, loggers: dict[str, Any]) -> Iterator[Metric]:
        up = GaugeMetricFamily("millpond_logger_up", "1 when it takes jobs.", labels=["logger"])
        lag = GaugeMetricFamily(
            "millpond_logger_lag", "Results that it has not recorded yet.", labels=["logger"]
        )
        spilled = GaugeMetricFamily(
            "millpond_logger_spilled", "Results that wait for it on the disk.", labels=["logger"]
        )
        restarts = CounterMetricFamily(
            "millpond_logger_restarts_total", "Times it was started again.", labels=["logger"]
        )
        outcomes = CounterMetricFamily(
            "millpond_logger_results_total",
            "Results published, delivered, dead, and filtered by its own wish.",
            labels=["logger", "outcome"],
        )
        for name, logger in loggers.items():
            up.add_metric([name], float(logger["state"] == "running"))
            lag.add_metric([name], logger["queued"] + logger["in_window"] + logger["spilled"])
            spilled.add_metric([name], logger["spilled"])
            restarts.add_metric([name], logger["restarts"])
            for outcome in ("published", "delivered", "dead", "filtered"):
                outcomes.add_metric([name, outcome], logger[outcome])
        yield from (up, lag, spilled, restarts, outcomes)
