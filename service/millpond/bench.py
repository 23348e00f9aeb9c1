"""``millpond bench``: what a configuration can do on this machine, and what holds it back.

A synthetic renderer publishes as fast as it can, first to each logger alone, then to all of them.
All is real but the pictures: the daemon, the loggers, the files, in a folder that is removed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.client import Pond, connect
from millpond.config.model import Config, LoggerConfig
from millpond.core.layout import Channel, plan
from millpond.errors import ConfigError, MillpondError
from millpond.health_client import fetch_status
from millpond.module_search import FoundModule

START_S_MAX: Final = 120
ANSWER_S: Final = 0.01  # Between two questions of how far the loggers are.
VARIANTS: Final = 4  # Different results in turn: one picture would be too easy for an encoder.


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run did.

    Args:
        results: Recorded by every logger in it.
        rate: Results per second, at the slowest logger.
        file_bytes: What the loggers wrote for one result, in bytes.
    """

    results: int
    rate: float
    file_bytes: float


@dataclass(frozen=True, slots=True)
class Report:
    """What `bench` found out."""

    alone: dict[str, Speed]
    together: Speed
    slots: int
    slot_bytes: int
    disk_free_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self, rate: float | None) -> list[str]:
        """The report for people.

        Args:
            rate: Results per second that the operator wants, or None.
        """
        width = max(len(name) for name in self.alone)
        lines = [f"{'logger':{width}}  {'alone':>10}  {'a result':>10}"]
        for name, speed in self.alone.items():
            size = _bytes_text(speed.file_bytes)
            lines.append(f"{name:{width}}  {speed.rate:>8,.0f}/s  {size:>10}")
        slowest = min(self.alone, key=lambda name: self.alone[name].rate)
        wanted = rate or self.together.rate
        lines.append(f"all together: {self.together.rate:,.0f}/s; the slowest is {slowest}")
        if rate:
            lines += [
                f"{name}: {speed.rate:,.0f}/s, must be {rate / speed.rate:.1f} times as fast"
                f" for {rate:,.0f}/s"
                for name, speed in self.alone.items()
                if speed.rate < rate
            ]
        lines.append(
            f"the buffer, {self.slots} slots of {_bytes_text(self.slot_bytes)}, covers "
            f"{self.slots / wanted:.2g} s of stall at {wanted:,.0f}/s"
        )
        if self.together.file_bytes:
            full_s = self.disk_free_bytes / (self.together.file_bytes * wanted)
            lines.append(
                f"{_bytes_text(self.together.file_bytes)} of files a result: "
                f"the disk is full in {_duration_text(full_s)} at {wanted:,.0f}/s"
            )
        return lines


def bench(config: Config, modules: Mapping[str, FoundModule], *, seconds: float) -> Report:
    """Measure.

    Args:
        config: What would be run; its channels must be declared.
        modules: Where each logger was found, by its name.
        seconds: How long each run publishes.

    Raises:
        ConfigError: The configuration declares no channels.
        MillpondError: A run failed.
    """
    channels = config.buffer.declared
    if channels is None:
        raise config.error("bench needs them: what should it publish?", "buffer", "channels")
    results = synthetic_results(channels)
    alone = {
        logger.name: _run(config, [logger], modules, results, seconds) for logger in config.loggers
    }
    together = _run(config, config.loggers, modules, results, seconds)
    slot_bytes = plan(channels, 1).slot_bytes
    existing = next(p for p in (config.output_dir, *config.output_dir.parents) if p.exists())
    return Report(
        alone=alone,
        together=together,
        slots=config.buffer.slot_count(slot_bytes),
        slot_bytes=slot_bytes,
        disk_free_bytes=shutil.disk_usage(existing).free,
    )


def synthetic_results(channels: Sequence[Channel]) -> list[dict[str, NDArray[Any]]]:
    """A few results with smooth pictures and a little noise, as renders have.

    Returns:
        For each, every channel by name, with its shape and dtype; floats lie in 0 to 1.
    """
    rng = np.random.default_rng(0)
    return [
        {channel.name: _synthetic(channel, rng) for channel in channels} for _ in range(VARIANTS)
    ]


def _synthetic(channel: Channel, rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(channel.dtype)
    count = math.prod(channel.shape)
    smooth = 0.5 + 0.4 * np.sin(np.arange(count) / max(1, count) * 40)
    values = np.clip(smooth + rng.normal(0, 0.01, count), 0, 1).reshape(channel.shape)
    if dtype.kind == "b":
        return np.asarray(values > 0.5)
    if dtype.kind in "ui":
        return np.asarray(values * 7).astype(dtype)  # As the classes of a segmentation.
    return np.asarray(values).astype(dtype)


def _run(
    config: Config,
    loggers: Sequence[LoggerConfig],
    modules: Mapping[str, FoundModule],
    results: Sequence[Mapping[str, NDArray[Any]]],
    seconds: float,
) -> Speed:
    parent = next(p for p in (config.output_dir, *config.output_dir.parents) if p.exists())
    with tempfile.TemporaryDirectory(dir=parent, prefix=".millpond-bench-") as folder:
        run = Path(folder) / "run"
        with (
            _daemon(_derived(config, loggers, modules, run), Path(folder)),
            connect(run, claim_timeout_s=START_S_MAX) as pond,
        ):
            before = _wait_delivered(pond, run, _publish(pond, results, 1, 0))
            start_s = time.monotonic()
            count = _publish(pond, results, sys.maxsize, seconds)
            after = _wait_delivered(pond, run, before + count)
            rate = (after - before) / (time.monotonic() - start_s)
        size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return Speed(results=after, rate=rate, file_bytes=size / after)


def _publish(
    pond: Pond, results: Sequence[Mapping[str, NDArray[Any]]], count_max: int, seconds: float
) -> int:
    end_s = time.monotonic() + seconds
    count = 0
    while count < count_max:
        arrays = results[count % len(results)]
        with pond.claim() as slot:
            for name, array in arrays.items():
                slot[name] = array
            slot.publish(f"{seconds:g}-{count:09d}", {"zoom": count * 0.5, "hue": 0.25})
        count += 1
        if time.monotonic() >= end_s:
            break
    return count


def _wait_delivered(pond: Pond, run: Path, count: int) -> int:
    pond.flush(START_S_MAX)
    while True:
        rows = fetch_status(run / "health.sock")["loggers"].values()
        if any(row["dead"] or row["state"] == "fatal" for row in rows):
            errors = "; ".join(str(row["last_error"]) for row in rows if row["last_error"])
            raise MillpondError(f"a logger failed: {errors}")
        if all(row["delivered"] >= count for row in rows):
            return count
        time.sleep(ANSWER_S)


def _derived(
    config: Config,
    loggers: Sequence[LoggerConfig],
    modules: Mapping[str, FoundModule],
    run: Path,
) -> dict[str, Any]:
    """The configuration of one run: some of the loggers, and a folder of its own.

    They get every result, whatever conditions they have: those of synthetic results mean nothing.
    """
    entries = [
        {
            **logger.model_dump(mode="json", exclude={"when", "sample"}),
            "module": modules[logger.name].value,
        }
        for logger in loggers
    ]
    experiment = {key: value for key, value in config.experiment.items() if key != "base_config"}
    return {
        **experiment,
        "output_dir": os.fspath(run),
        "logging": {"logger_modules": entries},
        "service": {},
    }


@contextlib.contextmanager
def _daemon(derived: Mapping[str, Any], folder: Path) -> Iterator[None]:
    path = folder / "bench.yaml"
    try:
        path.write_text(json.dumps(derived))
    except TypeError as error:
        raise ConfigError(f"this file cannot be copied for a run: {error}") from None
    log_path = folder / "daemon.log"
    with log_path.open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "millpond", "run", path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    except MillpondError as error:
        tail = log_path.read_text(errors="replace")[-2000:]
        raise MillpondError(f"{error}\nthe daemon's log ends with:\n{tail}") from error
    finally:
        daemon.terminate()
        daemon.wait()


def _bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def _duration_text(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"
