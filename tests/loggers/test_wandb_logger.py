"""The W&B logger, offline: what is in the run's files, whoever died meanwhile."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.errors import ConfigError
from millpond_loggers.points.wandb_file import WandbFile
from millpond_loggers.wandb_logger import Logger

wandb = pytest.importorskip("wandb", reason="wandb is not installed (make bridges)")
pytestmark = pytest.mark.filterwarnings("default")  # W&B's own are not ours to mend.

CHANNELS = {"rgb": ((3, 8, 8), "float32"), "loss": ((), "float32"), "is_correct": ((), "bool")}
CONFIG = {"inference": {"label_map": "classes.json"}}
FOLDERS = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    yield
    with warnings.catch_warnings():
        # W&B lets go of its process without having waited for its end.
        warnings.simplefilter("ignore", ResourceWarning)
        wandb.teardown()
        gc.collect()


def start(root: Path, buffer: MemoryBuffer, *, instance: int = 1, instances: int = 1, **options):
    own = {"name": "board", "options": options, "instance": instance, "instances": instances}
    return Logger(str(root), buffer, {**CONFIG, "logger": own})


def records(root: Path) -> list:
    """Of all parts of the runs, in the order of their making."""
    found: list = []
    for path in sorted(root.glob("wandb/offline-run-*/run-*.wandb"), key=_made_at):
        file = WandbFile(path)
        parse = file._parse
        file._parse = lambda body, parse=parse: found.append(parse(body)) or found[-1]
        file.read()
        file.close()
    return found


def _made_at(path: Path) -> int:
    return path.parent.stat().st_ctime_ns


def rows(root: Path) -> list[dict]:
    return [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records(root)
        if record.WhichOneof("record_type") == "history"
    ]


def points(root: Path, tag: str) -> list[tuple[int, float]]:
    return [(row["_step"], row[tag]) for row in rows(root)]


def test_a_run_holds_points_pictures_ids_and_the_configuration(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, image_every=2, run_name="tea")
    for number in range(3):
        logger.log(buffer.put(f"a{number}", loss=number, is_correct=number != 1, model="cup"))
    logger.flush()
    logger.end()
    logger.end()
    found = rows(tmp_path)
    assert [(row["_step"], row["id"], row["loss"]) for row in found] == [
        (0, "a0", 0),
        (1, "a1", 1),
        (2, "a2", 2),
    ]
    assert [row["accuracy/is_correct/model/cup"] for row in found] == pytest.approx([1, 0.5, 2 / 3])
    assert [row["rgb/caption"] for row in found if "rgb/caption" in row] == ["a0", "a2"]
    assert len(list(tmp_path.rglob("media/images/rgb*.png"))) == 2
    (run,) = (record.run for record in records(tmp_path) if record.HasField("run"))
    assert (run.display_name, run.project) == ("tea", "millpond")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["inference"] == {"label_map": "classes.json"}
    assert buffer.kept_count() == 0


def test_points_are_in_the_file_when_flush_returns(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer)
    for number in range(3):
        logger.log(buffer.put(f"{number}", loss=number))
        logger.flush()
        assert points(tmp_path, "loss")[-1] == (number, number)
    logger.end()


def test_a_restart_goes_on_with_the_same_run_without_a_point_twice(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    for numbers in ([1, 2], [2, 3], [1, 2, 3, 4]):
        logger = start(tmp_path, buffer, images=[])
        for number in numbers:
            logger.log(buffer.put(f"{number}", key=(1, number), loss=number))
        logger.flush()
        logger.end()
    assert points(tmp_path, "loss") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    runs = {record.run.run_id for record in records(tmp_path) if record.HasField("run")}
    assert len(runs) == 1


def test_when_wandbs_own_process_dies_the_points_come_again(tmp_path: Path) -> None:
    run_script(
        tmp_path,
        """
        import errno, os, signal
        log(1)
        logger.flush()
        for task in Path("/proc/self/task").iterdir():
            for pid in (task / "children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        log(2)
        try:
            logger.flush()
        except OSError as error:
            assert error.errno == errno.EIO  # Nobody's fault, so it has no end of tries.
        else:
            raise SystemExit("the death went unseen")
        log(2)
        logger.flush()
        logger.end()
        """,
    )
    assert points(tmp_path, "loss") == [(0, 1), (1, 2)]


def run_script(root: Path, lines: str, **environment: str) -> None:
    """In a process of its own, with a logger that draws no pictures."""
    begin = """
        import sys
        from pathlib import Path
        from loggers import test_wandb_logger as own
        from millpond_loggers import wandb_logger
        buffer = own.MemoryBuffer(own.CHANNELS)
        wandb_logger.WRITTEN_S_MAX = 1.0
        logger = own.start(Path(sys.argv[1]), buffer, images=[])
        def log(number):
            logger.log(buffer.put(str(number), key=(1, number), loss=number))
        """
    script = textwrap.dedent(begin) + textwrap.dedent(lines)
    paths = {"PYTHONPATH": str(ROOT / "tests")}
    subprocess.run(
        [sys.executable, "-c", script, str(root)], env=os.environ | paths | environment, check=True
    )


def test_nan_and_inf_are_points_too(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    logger = start(tmp_path, buffer, images=[])
    for value in (np.nan, np.inf, -np.inf):
        logger.log(buffer.put("a", loss=value))
    logger.end()
    assert [str(value) for _, value in points(tmp_path, "loss")] == ["nan", "inf", "-inf"]


def test_each_instance_is_a_run_of_its_own(tmp_path: Path) -> None:
    buffer = MemoryBuffer(CHANNELS)
    for number in (1, 2):
        logger = start(tmp_path, buffer, instance=number, instances=2, run_name="tea")
        logger.log(buffer.put(f"{number}", loss=number))
        logger.end()
    runs = [record.run for record in records(tmp_path) if record.HasField("run")]
    assert [run.display_name for run in runs] == ["tea-1", "tea-2"]
    assert len({run.run_id for run in runs}) == 2


def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"option 'mode': 'live' is not 'offline' or 'online'"):
        start(tmp_path, MemoryBuffer(CHANNELS), mode="live")


def test_nothing_is_made_outside_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    root.mkdir()
    for name in FOLDERS:
        monkeypatch.delenv(name)
    run_script(root, "log(1); logger.end()", HOME=str(home))
    assert points(root, "loss") == [(0, 1)]
    assert list(home.rglob("*")) == []
