"""The identity of a run: chosen once, the same ever after."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond_loggers.points.run_identity import run_identity


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    folder = os.open(tmp_path, os.O_RDONLY)
    yield folder
    os.close(folder)


def test_it_is_the_same_after_a_restart_and_another_for_another_logger(folder: int) -> None:
    first = run_identity(folder, "mlflow")
    assert len(first) == 32
    assert run_identity(folder, "mlflow") == first
    assert run_identity(folder, "mlflow-2") != first


def test_a_damaged_one_is_told(folder: int, tmp_path: Path) -> None:
    (tmp_path / ".mlflow.run").write_text("mine")
    with pytest.raises(ValueError, match=r"\.mlflow\.run .* remove it"):
        run_identity(folder, "mlflow")
