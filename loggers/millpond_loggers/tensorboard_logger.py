"""A logger that draws the results for TensorBoard, in ``tensorboard/<name>/``.

Every scalar channel is a curve, and so is the share of right results so far, over all and for each
model and environment; now and then a picture is shown.  The step is the running number of the
result, and goes on after a restart, which begins a file of its own.

``tensorboard --logdir <output_dir>/tensorboard`` shows it, also while it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.files.names import open_folder
from millpond_loggers.files.parts import instance_name
from millpond_loggers.options import FileName
from millpond_loggers.points.curve import Curve
from millpond_loggers.points.event_files import EventFiles
from millpond_loggers.points.live_points import LiveOptions


class TensorBoardOptions(LiveOptions):
    """The options of the TensorBoard logger."""

    folder: FileName = Field(
        "tensorboard", description="The log folder; each logger has a run of its name in it."
    )


class TensorBoardLogger(BaseLogger):
    """Writes event files, without a thread: what `flush` has written is in the file."""

    Options = TensorBoardOptions
    extra: ClassVar[str | None] = "tensorboard"
    libraries: ClassVar[tuple[str, ...]] = ("tensorboardX",)

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Go on where an earlier process has ended.

        Raises:
            ConfigError: An option names a channel that cannot be drawn.
            OSError: The folder cannot be made or written, or is another logger's.
            ValueError: The folder holds event files of someone else.
        """
        super().__init__(root_dir, result_buffer, config)
        run = instance_name(self.name, self.instance, self.instances)
        outer = open_folder(root_dir, name=self.options.folder)
        try:
            # By its descriptor, for its name may have become a symlink's meanwhile.
            self._folder = open_folder(f"/proc/self/fd/{outer}", name=run)
        finally:
            os.close(outer)
        try:
            self._files = EventFiles(self._folder)
            self._curve = Curve(self, self._folder, "points", self._files)
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
        """Write the points of this batch, or none of them.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._curve.flush()

    def end(self) -> None:
        """Write what waits and close the file.  The second time does nothing."""
        if self._folder >= 0:
            try:
                self._curve.flush()
            finally:
                self._files.close()
                self._curve.close()
                os.close(self._folder)
                self._folder = -1


Logger = TensorBoardLogger
