"""A logger that draws the results in MLflow: in ``mlflow/mlflow.db``, or on a tracking server.

A run folder is one run there, whatever restarts it has; it is shown by::

    mlflow ui --backend-store-uri sqlite:///<output_dir>/mlflow/mlflow.db

Nothing leaves the machine unless ``tracking_uri`` says so.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field

from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.extras import require
from millpond_loggers.files.locked_file import open_locked
from millpond_loggers.files.names import open_folder, remove_leftovers, temporary_name
from millpond_loggers.files.parts import instance_name
from millpond_loggers.points.curve import Curve, Place, Row, Standing
from millpond_loggers.points.live_points import LiveOptions
from millpond_loggers.points.run_identity import run_identity
from millpond_loggers.points.running_accuracy import group_name

FOLDER_NAME: Final = "mlflow"
DATABASE_NAME: Final = "mlflow.db"
# The running number of the last result, drawn with each batch: it says how many are there.
COUNT_TAG: Final = "millpond/results"
# What finds the run again.
RUN_TAG: Final = "millpond.run"
CONFIG_NAME: Final = "experiment.json"
# What a server takes in one call.  Source: MLflow's REST API, Request Limits.
BATCH_METRICS_MAX: Final = 1000
PARAMS_MAX: Final = 100
PARAM_CHARACTERS_MAX: Final = 500
PARAM_NAME_CHARACTERS_MAX: Final = 250
# What MLflow says when it will never take what it was given.
REFUSALS: Final = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
# MLflow would try for minutes, which looks like a hang; the daemon tries again by itself.
ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
# Here and not later, for MLflow looks at them when it is imported.
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)


class MLflowOptions(LiveOptions):
    """The options of the MLflow logger."""

    tracking_uri: str | None = Field(
        None, description="A tracking server, http://...; null is a database in the run folder."
    )
    experiment: str = Field("millpond", min_length=1, description="The experiment of the run.")
    run_name: str | None = Field(
        None, description="What the run is called; null is the name of the run folder."
    )


class MLflowLogger(BaseLogger):
    """Draws the points of each batch before `flush` returns."""

    Options = MLflowOptions
    extra: ClassVar[str | None] = "mlflow"
    libraries: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic", "PIL")

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Find the run, or make it.

        Raises:
            ConfigError: An option names a channel that cannot be drawn.
            OSError: The folder cannot be made or written.
            mlflow.exceptions.MlflowException: The server is not there, or refuses.
        """
        super().__init__(root_dir, result_buffer, config)
        self._folder = open_folder(root_dir, name=FOLDER_NAME)
        try:
            name = instance_name(self.name, self.instance, self.instances)
            self._run = MLflowRun(self, run_identity(self._folder, name))
            self._curve = Curve(self, self._folder, name, self._run)
        except BaseException:
            os.close(self._folder)
            raise
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take the point of one result; it is drawn by `flush`."""
        if item is None:
            self.end()
        else:
            self._curve.log(item)

    def flush(self) -> None:
        """Draw the points of this batch.

        Raises:
            OSError: The server or the disk is not there; the results come again, when it is.
            mlflow.exceptions.MlflowException: It refuses them; their results come again.
        """
        self._curve.flush()

    def end(self) -> None:
        """Draw what waits and say that the run is over.  The second time does nothing."""
        if self._folder >= 0:
            try:
                self._curve.flush()
                self._run.end()
            finally:
                self._curve.close()
                os.close(self._folder)
                self._folder = -1


Logger = MLflowLogger


class MLflowRun:
    """One run of MLflow, as the place where points go.

    Args:
        logger: Its options, configuration and folder are used.
        identity: What tells the run from all others, over restarts.
    """

    def __init__(self, logger: BaseLogger, identity: str) -> None:
        mlflow = _mlflow()
        self._entities = mlflow.entities
        self._error: type[Any] = mlflow.exceptions.MlflowException
        options: MLflowOptions = logger.options
        folder = Path(logger.root_dir).resolve() / FOLDER_NAME
        is_local = options.tracking_uri is None
        uri = options.tracking_uri
        if is_local:
            _make_database(mlflow, folder)
            uri = _uri(folder / DATABASE_NAME)
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment_id = self._experiment(
            options.experiment, (folder / "artifacts").as_uri() if is_local else None
        )
        name = options.run_name or Path(logger.root_dir).resolve().name
        self._run_id = self._find_or_make(
            experiment_id, instance_name(name, logger.instance, logger.instances), identity, logger
        )
        metrics = len(logger.buffer.channels) * (2 + len(options.groups))
        self.batch_point_max = max(1, (BATCH_METRICS_MAX - 1) // metrics) if metrics else 1

    def recorded(self, standing: Standing) -> int:
        """How many points of the last batch are there; the server is asked."""
        with self._without_blame():
            count = self._client.get_run(self._run_id).data.metrics.get(COUNT_TAG, 0)
        return min(max(int(count) - standing.step, 0), len(standing.added))

    def prepare(self, rows: list[Row], place: Place) -> Place:  # noqa: ARG002
        """Do nothing: the server knows where it stands."""
        return place

    def write(self, rows: list[Row]) -> None:
        """Draw the batch, and the count last of all."""
        with self._without_blame():
            for row in rows:
                self._draw_pictures(row)
            self._draw_metrics(rows)

    def end(self) -> None:
        """Say that the run is over; a later start takes it up again."""
        self._client.set_terminated(self._run_id)

    @contextmanager
    def _without_blame(self) -> Iterator[None]:
        """Raise what is not the fault of a result as an error of the system.

        The daemon then tries for as long as it takes, as with a disk that is full.
        """
        try:
            yield
        except self._error as error:
            if error.error_code in REFUSALS:
                raise
            raise OSError(errno.EIO, f"MLflow cannot be written: {error}") from error

    def _draw_pictures(self, row: Row) -> None:
        for channel, picture in row.point.pictures.items():
            self._client.log_image(
                self._run_id,
                picture,
                key=channel,
                step=row.point.step,
                timestamp=_milliseconds(row),
                synchronous=True,
            )

    def _draw_metrics(self, rows: list[Row]) -> None:
        metric = self._entities.Metric
        metrics = [
            metric(tag, value, _milliseconds(row), row.point.step)
            for row in rows
            for tag, value in row.values.items()
        ]
        last = rows[-1]
        count = last.point.step + 1
        metrics.append(metric(COUNT_TAG, count, _milliseconds(last), last.point.step))
        for start in range(0, len(metrics), BATCH_METRICS_MAX):
            self._client.log_batch(
                self._run_id, metrics=metrics[start : start + BATCH_METRICS_MAX], synchronous=True
            )

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _find_or_make(
        self, experiment_id: str, name: str, identity: str, logger: BaseLogger
    ) -> str:
        found = self._client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{identity}'")
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        run = self._client.create_run(experiment_id, run_name=name, tags={RUN_TAG: identity})
        run_id = str(run.info.run_id)
        config = {key: value for key, value in logger.config.items() if key != "logger"}
        params = [self._entities.Param(*pair) for pair in islice(_params(config), PARAMS_MAX)]
        self._client.log_batch(run_id, params=params, synchronous=True)
        self._client.log_dict(run_id, config, CONFIG_NAME)
        return run_id


def _mlflow() -> Any:
    mlflow = require("mlflow", extra="mlflow", what="mlflow logger")
    # Each step of making a database is told otherwise.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return mlflow


def _make_database(mlflow: Any, folder: Path) -> None:
    """Put a new database in place, whole: half of one could never be opened again."""
    opened = open_folder(str(folder))
    try:
        lock = open_locked(opened, f".{DATABASE_NAME}.lock", remedy="let it finish")
        try:
            remove_leftovers(opened)
            if not (folder / DATABASE_NAME).exists():
                new = folder / temporary_name(DATABASE_NAME)
                mlflow.MlflowClient(tracking_uri=_uri(new)).search_experiments(max_results=1)
                new.replace(folder / DATABASE_NAME)
        finally:
            os.close(lock)
    finally:
        os.close(opened)


def _uri(database: Path) -> str:
    return f"sqlite:///{database}"


def _milliseconds(row: Row) -> int:
    return round(row.point.time_s * 1000)


def _params(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value of the configuration under its path, as MLflow takes it."""
    for key, value in section.items():
        path = prefix + group_name(key)
        if isinstance(value, Mapping):
            yield from _params(value, f"{path}.")
        else:
            yield path[:PARAM_NAME_CHARACTERS_MAX], str(value)[:PARAM_CHARACTERS_MAX]
