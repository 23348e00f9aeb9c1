"""The MLflow logger, read back with MLflow's own client."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers import mlflow_logger
from millpond_loggers.mlflow_logger import COUNT_TAG, Logger

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (make bridges)")
pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own are not ours to mend.

CHANNELS = {"rgb": ((3, 8, 8), "float32"), "loss": ((), "float32"), "is_correct": ((), "bool")}
TESTS = Path(__file__).parents[1]
CONFIG = {"inference": {"label_map": "classes.json", "deep": {"a b?": 1}}, "lines": [1, 2]}


def start(root: Path, buffer: MemoryBuffer, *, instance: int = 1, instances: int = 1, **options):
    own = {"name": "board", "options": options, "instance": instance, "instances": instances}
    return Logger(str(root), buffer, {**CONFIG, "logger": own})


class Reader:
    def __init__(self, root: Path, experiment: str = "millpond") -> None:
        self.client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow/mlflow.db'}")
        found = self.client.get_experiment_by_name(experiment)
        self.runs = self.client.search_runs([found.experiment_id])

    def points(self, tag: str, run: int = 0) -> list[tuple[int, float]]:
        run_id = self.runs[run].info.run_id
        history = self.client.get_metric_history(run_id, tag)
        return sorted((metric.step, metric.value) for metric in history)


def test_mlflow_shows_curves_accuracies_pictures_and_the_configuration(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, image_every=3)
    for number in range(4):
        model = "cup" if number < 2 else "tea/pot"
        logger.log(buffer.put(f"{number}", loss=number, is_correct=number != 1, model=model))
    logger.flush()
    logger.end()
    logger.end()
    reader = Reader(tmp_path)
    (run,) = reader.runs
    assert run.info.status == "FINISHED"
    assert run.info.run_name == tmp_path.name
    assert reader.points("loss") == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert reader.points("accuracy/is_correct/model/tea_pot") == [(2, 1), (3, 1)]
    assert [value for _, value in reader.points("accuracy/is_correct")] == pytest.approx(
        [1, 1 / 2, 2 / 3, 3 / 4]
    )
    assert run.data.params == {
        "inference.label_map": "classes.json",
        "inference.deep.a b_": "1",
        "lines": "[1, 2]",
    }
    names = [entry.path for entry in reader.client.list_artifacts(run.info.run_id)]
    assert sorted(names) == ["experiment.json", "images"]
    pictures = list((tmp_path / "mlflow" / "artifacts").rglob("images/rgb*.png"))
    assert len(pictures) == 2
    assert buffer.kept_count() == 0


def test_a_restart_goes_on_with_the_same_run_without_a_point_twice(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    for numbers in ([1, 2], [2, 3], [1, 2, 3, 4]):
        logger = start(tmp_path, buffer, images=[])
        for number in numbers:
            logger.log(buffer.put(f"{number}", key=(1, number), loss=number))
        logger.flush()
        logger.end()
    reader = Reader(tmp_path)
    assert len(reader.runs) == 1
    assert reader.points("loss") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert reader.points(COUNT_TAG)[-1] == (3, 4)


def test_nan_and_inf_are_points_too(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[])
    for value in (np.nan, np.inf, -np.inf):
        logger.log(buffer.put("a", loss=value))
    logger.end()
    values = [value for _, value in Reader(tmp_path).points("loss")]
    assert np.isnan(values[0])
    assert values[1] > 1e300
    assert values[2] < -1e300


def test_a_batch_that_a_server_takes_in_one_call_is_drawn_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch fails before it is there, and another one after it is there."""
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[])
    draw = mlflow.MlflowClient.log_batch

    def fail(*arguments, **options):
        raise mlflow.exceptions.MlflowException("503")

    def draw_and_fail(*arguments, **options):
        draw(*arguments, **options)
        raise mlflow.exceptions.MlflowException("timed out")

    for number, way in enumerate((fail, draw_and_fail), 1):
        logger.log(buffer.put("1", key=(1, number), loss=number))
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "log_batch", way)
            with pytest.raises(OSError, match=r"cannot be written: (503|timed out)") as raised:
                logger.flush()
            assert raised.value.errno == errno.EIO  # Nobody's fault, so it has no end of tries.
        logger.log(buffer.put("1", key=(1, number), loss=number))
        logger.flush()
    logger.end()
    assert Reader(tmp_path).points("loss") == [(0, 1), (1, 2)]


def test_what_mlflow_refuses_is_told_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[])

    def refuse(*arguments, **options):
        raise mlflow.exceptions.MlflowException.invalid_parameter_value("no such tag")

    logger.log(buffer.put("1"))
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", refuse)
        with pytest.raises(mlflow.exceptions.MlflowException, match="no such tag"):
            logger.flush()
    logger.end()


def test_more_points_than_a_server_takes_in_one_call_are_all_drawn(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[])
    for number in range(400):
        logger.log(buffer.put(f"{number}", loss=number))
    logger.end()
    assert Reader(tmp_path).points("loss") == [(number, number) for number in range(400)]


def test_each_instance_is_a_run_of_the_same_experiment(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    options = {"experiment": "teapots", "run_name": "tea"}
    loggers = [start(tmp_path, buffer, instance=n, instances=2, **options) for n in (1, 2)]
    for number, logger in enumerate(loggers):
        logger.log(buffer.put(f"{number}", loss=number))
        logger.end()
    reader = Reader(tmp_path, "teapots")
    assert {run.info.run_name for run in reader.runs} == {"tea-1", "tea-2"}
    assert sorted(reader.points("loss", run) for run in (0, 1)) == [[(0, 0)], [(0, 1)]]


def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"board\.options\.accuracy: 'loss' is not a channel of"):
        start(tmp_path, MemoryBuffer(CHANNELS), accuracy=["loss"])


def test_a_server_that_is_away_is_told_soon(tmp_path: Path) -> None:
    """Nobody listens at port 9 of this machine."""
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"refused|Max retries"):
        start(tmp_path, MemoryBuffer(CHANNELS), tracking_uri="http://127.0.0.1:9")


def test_nobody_is_called_and_nothing_is_made_outside_the_run_folder(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    assert event not in {'socket.connect', 'socket.getaddrinfo'}, arguments\n"
        "sys.addaudithook(refuse)\n"
        "from millpond_loggers.plugin import load\n"
        "make = load('module', 'millpond_loggers.mlflow_logger')\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
        "from loggers.memory_buffer import MemoryBuffer\n"
        "buffer = MemoryBuffer({'loss': ((), 'float32')})\n"
        "logger = make(sys.argv[1], buffer, {'logger': {'name': 'board'}})\n"
        "logger.log(buffer.put('a')); logger.end()\n"
    )
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(TESTS)}
    subprocess.run([sys.executable, "-c", script, str(run)], env=environment, check=True)
    assert Reader(run).points("loss") == [(0, 0)]
    assert list(home.rglob("*")) == []


def test_names_of_the_configuration_are_shortened_and_not_refused() -> None:
    long = {"x" * 300: "y" * 900, "empty": {}, "none": None}
    params = dict(mlflow_logger._params(long))
    assert params == {"x" * 80: "y" * 500, "none": "None"}
