"""The MLflow logger passes the suite that every logger should pass.

To make a database takes MLflow seconds, so it is made once, and copied for each test.
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from loggers.conformance.curve_conformance import CurveConformance

from millpond.testing import MemoryPond
from millpond_loggers import mlflow_logger
from millpond_loggers.testing import conformance

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (make bridges)")
SqlAlchemyStore = pytest.importorskip("mlflow.store.tracking.sqlalchemy_store").SqlAlchemyStore
pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own are not ours to mend.

_made: list[tempfile.TemporaryDirectory] = []  # They last as long as this process.


@cache
def _database() -> Path:
    folder = tempfile.TemporaryDirectory()
    _made.append(folder)
    mlflow_logger._make_database(mlflow_logger._mlflow(), Path(folder.name))
    return Path(folder.name, mlflow_logger.DATABASE_NAME)


def _put_database(root: Path) -> None:
    path = root / mlflow_logger.FOLDER_NAME / mlflow_logger.DATABASE_NAME
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_database(), path)


@pytest.fixture(autouse=True)
def _few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that imports MLflow takes seconds to start."""
    monkeypatch.setattr(conformance, "OPERATIONS_MAX", 6)


class TestMLflow(CurveConformance):
    module = "millpond_loggers.mlflow_logger"
    result_count = 1000

    def forget(self) -> None:
        for engine in SqlAlchemyStore._engine_map.values():
            engine.dispose()

    def _pond(self, root: Path, **which: int) -> MemoryPond:
        _put_database(root)
        return super()._pond(root, **which)

    def _run(self, folder: Path, **fault: Any) -> Any:
        _put_database(folder / "root")
        return super()._run(folder, **fault)

    def points(self, root: Path) -> Iterator[tuple[int, float]]:
        if not (root / "mlflow" / "mlflow.db").exists():
            return
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow/mlflow.db'}")
        experiment = client.get_experiment_by_name("millpond")
        if experiment is None:
            return
        for run in client.search_runs([experiment.experiment_id]):
            history = client.get_metric_history(run.info.run_id, "loss")
            yield from sorted((metric.step, metric.value) for metric in history)
