"""Options, seed and figures of the fault suite.

Every random choice derives from the seed, which the header and every failure show:
``pytest tests/faults --seed 4711``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.scene import Scene

SEED = pytest.StashKey[int]()
FIGURES = pytest.StashKey[list[tuple[str, str, str, str]]]()
SEED_MAX = 10**6


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--seed", type=int, default=None, help="Of all random choices of the faults.")
    group.addoption("--seconds", type=float, default=None, help="How long each load lasts.")
    group.addoption("--all", action="store_true", help="Every case instead of a sample.")


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--seed", default=None)
    config.stash[SEED] = random.randrange(SEED_MAX) if seed is None else seed
    config.stash[FIGURES] = []


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: --seed {config.stash[SEED]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and SEED in item.config.stash:
        report.sections.append(("seed", f"--seed {item.config.stash[SEED]}"))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table: what was measured, and what is allowed."""
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section(f"faults, --seed {config.stash[SEED]}")
    heads = ("fault", "figure", "measured", "bound")
    widths = [max(len(row[place]) for row in [heads, *figures]) for place in range(4)]
    for row in [heads, *figures]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminalreporter.write_line("  ".join(cells).rstrip())


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Where all chance of a test comes from."""
    return request.config.stash[SEED]


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """The random choices of one test."""
    return random.Random(f"{seed}:{request.node.name}")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> Callable[[float], float]:
    """How long a load lasts: the given time, unless `--seconds` says otherwise."""
    wanted = request.config.getoption("--seconds")
    return lambda usual: usual if wanted is None else wanted


@pytest.fixture
def is_all(request: pytest.FixtureRequest) -> bool:
    """Whether every case is wanted instead of a sample."""
    return bool(request.config.getoption("--all"))


@pytest.fixture
def figure(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[..., None]:
    """Note a figure and its bound for the table: `figure("worst wait, ms", 12.3, "< 100")`."""
    fault = request.node.name.removeprefix("test_").replace("_", " ")

    def note(name: str, measured: object, bound: str = "") -> None:
        text = f"{measured:.4g}" if isinstance(measured, float) else str(measured)
        record_property(name, measured)
        request.config.stash[FIGURES].append((fault, name, text, bound))

    return note


@pytest.fixture
def scene(tmp_path: Path, seed: int) -> Iterator[Scene]:
    """A run folder; what is left of its processes ends with the test."""
    stage = Scene(tmp_path, seed)
    yield stage
    stage.close()
