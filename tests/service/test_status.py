"""The status of the pond, from the supervisor's numbers."""

from __future__ import annotations

from pathlib import Path

from millpond.config.model import Config
from millpond.core.commands import GrantSlots
from millpond.core.deliveries import Result
from millpond.core.events import (
    LoggerExited,
    LoggerReady,
    RendererJoined,
    ResultsPublished,
    SlotWanted,
)
from millpond.core.slots import SlotTable
from millpond.core.supervisor import Supervisor
from millpond.setup_frame import make_spec
from millpond.status import pond_status

CONFIG = Config(
    name="t",
    output_dir=Path("runs/t"),
    logging={
        "logger_modules": [{"module": "csv", "when": "x > 1"}, {"module": "image", "instances": 2}]
    },
)
SLOT_COUNT = 8


def supervisor() -> Supervisor:
    processes = CONFIG.processes
    made = Supervisor(
        SlotTable(
            SLOT_COUNT,
            [[0] * SLOT_COUNT for _ in processes],
            [[0] * (SLOT_COUNT + 1) for _ in processes],
        ),
        slot_bytes=1,
        loggers=[make_spec(process, SLOT_COUNT) for process in processes],
        teams=[process.team for process in processes],
        filters={0: lambda result: result.sequence > 1},
        chance=lambda: 0.5,
    )
    made.start(0.0)
    return made


def test_before_the_first_renderer_there_is_nothing() -> None:
    assert pond_status(CONFIG, None)["state"] == "waiting"
    assert pond_status(CONFIG, None)["loggers"] == {}


def test_every_logger_has_a_row_whose_numbers_add_up() -> None:
    made = supervisor()
    for logger in range(3):
        made.handle(LoggerReady(logger), 1.0)
    granted = made.handle(RendererJoined(1, 17), 1.0)
    [grant] = [command for command in granted if isinstance(command, GrantSlots)]
    results = [
        Result(slot, generation, 1, sequence, f"{sequence}", b"")
        for sequence, (slot, generation) in enumerate(grant.slots[:2], 1)
    ]
    made.handle(ResultsPublished(1, results), 2.0)
    made.handle(LoggerExited(2, "exit(1)"), 3.0)
    status = pond_status(CONFIG, made)
    assert (status["state"], status["results"]) == ("starting", 2)
    csv, image = status["loggers"]["csv"], status["loggers"]["image"]
    assert "processes" not in csv
    assert (csv["published"], csv["filtered"], csv["in_window"]) == (2, 1, 1)
    assert (image["published"], image["filtered"], image["in_window"], image["queued"]) == (
        2,
        0,
        1,
        1,
    )
    assert image["state"] == "backoff"
    assert image["last_error"] == "exit(1)"
    assert [row["state"] for row in image["processes"]] == ["running", "backoff"]
    for row in (csv, image):
        parts = ("delivered", "dead", "filtered", "queued", "in_window", "spilled")
        assert row["published"] == sum(row[part] for part in parts)
    assert made.handle(SlotWanted(1), 4.0) is not None
