"""Health over a real Unix socket: what probes, people and Prometheus read."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from status_example import logger_row, status_example

from millpond.core.lifecycle import State
from millpond.health import HealthServer, unready


class Asked:
    """A health server and a client of it; the status may be changed."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.status: dict[str, Any] = status_example()
        self._session = session

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        async with self._session.request(method, f"http://localhost{path}") as answer:
            return answer.status, answer.headers["Content-Type"], await answer.text()

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample by its name and the values of its labels."""
        _, _, text = await self.get("/metrics")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Asked]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        asked = Asked(session)
        server = HealthServer(path, lambda: asked.status)
        await server.start()
        try:
            yield asked
        finally:
            await server.close()


async def test_it_is_alive_while_it_answers(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        assert await asked.get("/livez") == (200, "text/plain; charset=utf-8", "ok\n")
        asked.status["state"] = "draining"
        assert (await asked.get("/livez"))[0] == 200


async def test_it_is_ready_while_every_logger_runs(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        assert await asked.get("/readyz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_it_is_not_ready_for_reasons_that_are_told_one_a_line(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        asked.status = status_example(
            state="draining",
            loggers={
                "csv": logger_row(),
                "image": logger_row(state="fatal", last_error="No space left on device"),
                "json": logger_row(state="starting"),
            },
        )
        status, _, text = await asked.get("/readyz")
        assert status == 503
        assert text.splitlines() == [
            "the daemon is draining",
            "logger 'image' is fatal: No space left on device",
            "logger 'json' is starting",
        ]


@pytest.mark.parametrize("state", State)
def test_only_a_logger_that_takes_jobs_or_was_not_needed_yet_is_ready(state) -> None:
    status = status_example(loggers={"csv": logger_row(state=state.value)})
    is_ready = state in (State.RUNNING, State.DOWN)
    assert unready(status) == ([] if is_ready else [f"logger 'csv' is {state.value}"])


def test_a_daemon_that_waits_for_its_first_renderer_is_ready() -> None:
    assert unready(status_example(state="waiting", loggers={})) == []


def test_a_logger_that_cannot_write_is_not_ready() -> None:
    row = logger_row(is_suspended=True, last_error="No space left on device")
    status = status_example(loggers={"csv": row})
    assert unready(status) == ["logger 'csv' cannot write: No space left on device"]


def test_a_spill_is_told_before_it_is_full() -> None:
    status = status_example()
    most = status["disk"]["spill_max"]
    status["disk"]["spill_bytes"]["csv"] = int(0.9 * most)
    assert unready(status) == []
    status["disk"]["spill_bytes"]["csv"] = int(0.91 * most)
    assert unready(status) == [
        f"the spill of logger 'csv' is nearly full: {int(0.91 * most)} bytes"
    ]


def test_a_run_folder_that_cannot_be_written_is_not_ready() -> None:
    status = status_example()
    status["disk"]["problem"] = "no room for more lines: No space left on device"
    problem = "the run folder: no room for more lines: No space left on device"
    assert unready(status) == [problem]


def test_every_reason_is_one_line() -> None:
    loggers = {"csv": logger_row(state="backoff", last_error="Traceback:\n  boom\nlogger 'x'")}
    (problem,) = unready(status_example(loggers=loggers))
    assert len(problem.splitlines()) == 1


async def test_the_status_is_shown_whole_and_as_it_is_now(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        for results in (10, 11):
            asked.status["results"] = results
            async with asked._session.get("http://localhost/status") as answer:
                assert await answer.json() == asked.status


async def test_the_metrics_are_prometheus_and_say_what_the_status_says(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        asked.status["loggers"]["image"]["spilled"] = 5
        asked.status["disk"]["spill_bytes"]["image"] = 4096
        _, kind, _ = await asked.get("/metrics")
        assert kind.startswith("text/plain; version=")
        assert await asked.metrics() == {
            ("millpond_build_info", "demo", "0.1.0"): 1,
            ("millpond_uptime_seconds",): 1.5,
            ("millpond_buffer_slots", "free"): 240,
            ("millpond_buffer_slots", "held"): 16,
            ("millpond_renderers",): 1,
            ("millpond_results_total",): 10,
            ("millpond_logger_up", "csv"): 1,
            ("millpond_logger_up", "image"): 1,
            ("millpond_logger_lag", "csv"): 3,
            ("millpond_logger_lag", "image"): 8,  # What is on the disk too.
            ("millpond_spill_bytes", "csv"): 0,
            ("millpond_spill_bytes", "image"): 4096,
            ("millpond_logger_spilled", "csv"): 0,
            ("millpond_logger_spilled", "image"): 5,
            ("millpond_logger_restarts_total", "csv"): 0,
            ("millpond_logger_restarts_total", "image"): 2,
            ("millpond_logger_results_total", "csv", "published"): 10,
            ("millpond_logger_results_total", "csv", "delivered"): 7,
            ("millpond_logger_results_total", "csv", "dead"): 0,
            ("millpond_logger_results_total", "csv", "filtered"): 0,
            ("millpond_logger_results_total", "image", "published"): 10,
            ("millpond_logger_results_total", "image", "delivered"): 4,
            ("millpond_logger_results_total", "image", "dead"): 3,
            ("millpond_logger_results_total", "image", "filtered"): 0,
        }
        asked.status = status_example(results=99, loggers={"csv": logger_row(state="fatal")})
        later = await asked.metrics()
        assert later["millpond_results_total",] == 99
        assert later["millpond_logger_up", "csv"] == 0


async def test_counters_are_counters_and_levels_are_gauges(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        _, _, text = await asked.get("/metrics")
        types = {family.name: family.type for family in text_string_to_metric_families(text)}
        counters = {name for name, kind in types.items() if kind == "counter"}
        assert counters == {
            "millpond_results",
            "millpond_logger_restarts",
            "millpond_logger_results",
        }
        assert set(types.values()) == {"counter", "gauge"}


async def test_the_metrics_hold_before_the_first_renderer(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        asked.status = status_example(
            state="waiting", slots={"total": 0, "free": 0}, renderers=[], loggers={}, results=0
        )
        assert (await asked.metrics())["millpond_renderers",] == 0


async def test_what_is_not_served_is_not_found(tmp_path) -> None:
    async with serving(tmp_path / "h") as asked:
        assert (await asked.get("/"))[0] == 404
        assert (await asked.get("/status", "POST"))[0] == 405


async def test_the_socket_is_ours_alone_and_gone_at_the_end(tmp_path) -> None:
    path = tmp_path / "h"
    async with serving(path) as asked:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await asked.get("/livez"))[0] == 200
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path) -> None:
    path = tmp_path / "h"
    async with serving(path):
        path.rename(tmp_path / "left")
    (tmp_path / "left").rename(path)
    async with serving(path) as asked:
        assert (await asked.get("/livez"))[0] == 200


async def test_a_client_that_stops_halfway_does_not_hold_up_the_end(tmp_path) -> None:
    path = tmp_path / "h"
    async with serving(path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n")
        await writer.drain()
    assert not path.exists()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
