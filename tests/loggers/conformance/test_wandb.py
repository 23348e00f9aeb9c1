"""The W&B logger passes the suite that every logger should pass."""

import gc
import json
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from loggers.conformance.curve_conformance import CurveConformance

from millpond_loggers.points.wandb_file import WandbFile

wandb = pytest.importorskip("wandb", reason="wandb is not installed (make bridges)")
pytestmark = pytest.mark.filterwarnings("default")  # W&B's own are not ours to mend.


def _end_wandb() -> None:
    """Kill its process, then make it notice."""
    for pid in _children():
        if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    with suppress(Exception, SystemExit), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        wandb.teardown(1)
        gc.collect()


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


@pytest.fixture(autouse=True)
def _teardown() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        # W&B lets go of its process without having waited for its end.
        warnings.simplefilter("ignore", ResourceWarning)
        wandb.teardown()
        gc.collect()


class TestWandb(CurveConformance):
    module = "millpond_loggers.wandb_logger"
    result_count = 1000

    def forget(self) -> None:
        _end_wandb()

    def points(self, root: Path) -> Iterator[tuple[int, float]]:
        runs: dict[str, list[tuple[int, float]]] = {}
        for path in root.glob("wandb/offline-run-*/run-*.wandb"):
            runs.setdefault(path.name, []).extend(_points(path))
        for points in runs.values():
            yield from sorted(points, key=lambda point: point[0])


def _points(path: Path) -> Iterator[tuple[int, float]]:
    records: list = []
    file = WandbFile(path)
    parse = file._parse
    file._parse = lambda body: records.append(parse(body)) or records[-1]
    file.read()
    file.close()
    for record in records:
        if record.WhichOneof("record_type") == "history":
            values = {
                item.nested_key[0]: item.value_json
                for item in record.history.item
                if item.nested_key
            }
            yield record.history.step.num, float(json.loads(values["loss"]))
