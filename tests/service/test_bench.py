"""The report of a bench is made of real runs, and says what holds a configuration back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from millpond.bench import Report, Speed, bench, synthetic_results
from millpond.config.load import load
from millpond.core.layout import DTYPE_BYTES, Channel
from millpond.errors import ConfigError, MillpondError
from millpond.module_search import check_modules

CHANNELS = """
buffer:
  slots: 8
  channels:
    rgb: {shape: [3, 8, 8], dtype: float32}
    loss: {shape: [], dtype: float32}
"""


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
def test_synthetic_results_fit_their_channels(dtype: str) -> None:
    channels = [Channel("a", (3, 5), dtype), Channel("b", (), dtype)]
    for result in synthetic_results(channels):
        assert {name: (array.shape, array.dtype.name) for name, array in result.items()} == {
            "a": ((3, 5), dtype),
            "b": ((), dtype),
        }


def test_synthetic_results_differ_from_each_other() -> None:
    first, second, *_ = synthetic_results([Channel("rgb", (3, 8, 8), "float32")])
    assert not np.array_equal(first["rgb"], second["rgb"])


def test_every_logger_is_measured_alone_and_then_all_together(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"output_dir: {tmp_path}/run\n{CHANNELS}\nlogging:\n  logger_modules:\n"
        "    - {module: csv, when: loss > 9, sample: 1/100, instances: 2, channels: [loss]}\n"
        '    - "null"\n'
    )
    config = load(path)
    report = bench(config, check_modules(config), seconds=0.2)
    assert list(report.alone) == ["csv", "null"]
    speeds = [*report.alone.values(), report.together]
    assert all(speed.rate > 0 and speed.results > 1 for speed in speeds)
    assert report.alone["csv"].file_bytes > 10
    assert report.slots == 8
    assert sorted(tmp_path.iterdir()) == [path], "it leaves nothing behind"


def test_without_channels_there_is_nothing_to_publish(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("logging: {logger_modules: [csv]}\n")
    config = load(path)
    with pytest.raises(ConfigError, match=r"buffer\.channels"):
        bench(config, check_modules(config), seconds=0.2)


def test_a_logger_that_fails_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "class Logger:\n"
        "    def __init__(self, *a): pass\n"
        "    def log(self, item): raise ValueError('no')\n"
    )
    path = tmp_path / "c.yaml"
    path.write_text(
        f"output_dir: {tmp_path}/run\nlogging: {{logger_modules: [./bad.py]}}\n{CHANNELS}"
    )
    config = load(path)
    with pytest.raises(MillpondError, match="ValueError: no"):
        bench(config, check_modules(config), seconds=0.2)


def test_the_report_names_the_slowest_and_what_the_wanted_rate_needs() -> None:
    report = Report(
        alone={"csv": Speed(1000, 4000.0, 100.0), "image": Speed(100, 212.0, 120_000.0)},
        together=Speed(100, 200.0, 120_100.0),
        slots=256,
        slot_bytes=1_052_672,
        disk_free_bytes=10**12,
    )
    lines = "\n".join(report.lines(600.0))
    assert "all together: 200/s; the slowest is image" in lines
    assert "image: 212/s, must be 2.8 times as fast for 600/s" in lines
    assert "csv: " not in lines
    assert "covers 0.43 s of stall at 600/s" in lines
    assert "the disk is full in 4 h at 600/s" in lines
    assert "covers 1.3 s of stall at 200/s" in "\n".join(report.lines(None))
