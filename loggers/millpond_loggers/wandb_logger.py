"""A logger that draws the results in Weights & Biases: offline, in ``wandb/`` of the run folder.

A run folder is one run there.  Each start writes a part of it, and they are uploaded by
``wandb sync <output_dir>/wandb/offline-run-*``; or ``mode: online`` sends the points as they come.

wandb writes its file in a process of its own, some time after it was told to.  `flush` waits until
the points are in the file.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.extras import require
from millpond_loggers.files.names import open_folder
from millpond_loggers.files.parts import instance_name
from millpond_loggers.points.curve import Curve, Place, Row, Standing
from millpond_loggers.points.live_points import LiveOptions
from millpond_loggers.points.run_identity import run_identity
from millpond_loggers.points.wandb_file import WandbFile

log = logging.getLogger(__name__)

FOLDER_NAME: Final = "wandb"
BATCH_POINT_MAX: Final = 256
# How often wandb writes to its file; it is waited for, and its own default is 15 s.
WRITE_S: Final = 0.02
LOOK_S: Final = 0.005
# Until the points of a batch are in the file, and until a server has answered at the start.
WRITTEN_S_MAX: Final = 10.0
INIT_S_MAX: Final = 20.0
# Its errors are told to us, not to its makers.  Here, for it may look when it is imported.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


class WandbOptions(LiveOptions):
    """The options of the W&B logger."""

    project: str = Field("millpond", min_length=1, description="The project of the run.")
    entity: str | None = Field(None, description="User or team; null is the account's own.")
    run_name: str | None = Field(
        None, description="What the run is called; null is the name of the run folder."
    )
    mode: Literal["offline", "online"] = Field(
        "offline", description="online sends to the server; offline only writes files."
    )


class WandbLogger(BaseLogger):
    """Draws the points of each batch before `flush` returns."""

    Options = WandbOptions
    extra: ClassVar[str | None] = "wandb"
    libraries: ClassVar[tuple[str, ...]] = ("wandb", "PIL")

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Find out where the run stands; wandb is started with the first point.

        Raises:
            ConfigError: An option names a channel that cannot be drawn.
            OSError: The folder cannot be made, or its files cannot be read.
            ValueError: A file of the run is damaged.
        """
        super().__init__(root_dir, result_buffer, config)
        self._folder = open_folder(root_dir, name=FOLDER_NAME)
        try:
            name = instance_name(self.name, self.instance, self.instances)
            self._run = WandbRun(self, run_identity(self._folder, name))
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
        """Draw the points of this batch, and wait until they are in the run's file.

        Raises:
            OSError: They are not in the file after `WRITTEN_S_MAX`, or wandb cannot be started;
                the results come again.
        """
        self._curve.flush()

    def end(self) -> None:
        """Draw what waits and finish the run.  The second time does nothing."""
        if self._folder >= 0:
            try:
                self._curve.flush()
            finally:
                self._run.close()
                self._curve.close()
                os.close(self._folder)
                self._folder = -1


Logger = WandbLogger


class WandbRun:
    """One run of W&B, as the place where points go.

    Args:
        logger: Its options, configuration and folder are used.
        identity: The id of the run.
    """

    batch_point_max = BATCH_POINT_MAX

    def __init__(self, logger: BaseLogger, identity: str) -> None:
        self._options: WandbOptions = logger.options
        self._identity = identity
        self._root = Path(logger.root_dir).resolve()
        self._config = {key: value for key, value in logger.config.items() if key != "logger"}
        name = self._options.run_name or self._root.name
        self._name = instance_name(name, logger.instance, logger.instances)
        self._wandb = _wandb(self._root / FOLDER_NAME)
        self._run: Any = None
        self._file: WandbFile | None = None

    def recorded(self, standing: Standing) -> int:
        """How many points of the last batch are in the run's files.

        Raises:
            OSError: They cannot be read.
            ValueError: They are not files of wandb.
        """
        try:
            self.close()
        except Exception as problem:  # noqa: BLE001  Its process may be gone; another one is made.
            log.warning("wandb could not finish error=%s", problem)
            with suppress(Exception, SystemExit):  # It exits as its process did.
                self._wandb.teardown()
        step = -1
        if standing.added:
            for path in self._paths():
                with closing(WandbFile(path)) as file:
                    step = max(step, file.read())
        return min(max(step + 1 - standing.step, 0), len(standing.added))

    def prepare(self, rows: list[Row], place: Place) -> Place:  # noqa: ARG002
        """Start wandb, the first time."""
        if self._run is None:
            known = set(self._paths())
            with self._without_blame():
                self._run = self._start()
            try:
                (path,) = set(self._paths()) - known
                self._file = WandbFile(path)
            except BaseException:
                self.close()  # Another one is made when the results come again.
                raise
        return place

    def write(self, rows: list[Row]) -> None:
        """Draw the batch, and wait until it is in the file."""
        for row in rows:
            pictures = {
                channel: self._wandb.Image(picture, caption=row.point.id)
                for channel, picture in row.point.pictures.items()
            }
            values = {**row.values, **pictures, "id": row.point.id}
            with self._without_blame():
                self._run.log(values, step=row.point.step, commit=True)
        self._wait(rows[-1].point.step)

    def close(self) -> None:
        """Finish this part of the run.  The second time does nothing."""
        run, self._run = self._run, None
        if self._file is not None:
            self._file.close()
            self._file = None
        if run is not None:
            run.finish()

    @contextmanager
    def _without_blame(self) -> Iterator[None]:
        """Raise what is not the fault of a result as an error of the system.

        The daemon then tries for as long as it takes, as with a disk that is full.
        """
        try:
            yield
        except (self._wandb.Error, ConnectionError) as error:
            raise OSError(errno.EIO, f"wandb does not take it: {error}") from error

    def _start(self) -> Any:
        settings = self._wandb.Settings(
            mode=self._options.mode,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            symlink=False,
            init_timeout=INIT_S_MAX,
            x_disable_meta=True,
            x_disable_stats=True,
            x_transaction_log_flush_interval=WRITE_S,
        )
        return self._wandb.init(
            project=self._options.project,
            entity=self._options.entity,
            name=self._name,
            id=self._identity,
            resume="allow",
            reinit="create_new",
            dir=self._root,
            config=self._config,
            settings=settings,
        )

    def _paths(self) -> list[Path]:
        return list(self._root.glob(f"{FOLDER_NAME}/*run-*/run-{self._identity}.wandb"))

    def _wait(self, step: int) -> None:
        assert self._file is not None
        due_s = time.monotonic() + WRITTEN_S_MAX
        while self._file.read() < step:
            if time.monotonic() > due_s:
                raise TimeoutError(
                    errno.EIO,  # No result's fault either.
                    f"wandb has not written step {step} to its file within {WRITTEN_S_MAX:g} s",
                )
            time.sleep(LOOK_S)


def _wandb(folder: Path) -> Any:
    # It would keep its diagnostics and its cache elsewhere.
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(name, str(folder / ".cache"))
    return require("wandb", extra="wandb", what="wandb logger")
