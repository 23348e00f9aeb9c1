"""A logger that writes each result to a file of its own: ``npz/<id>.npz``, for ``numpy.load``.

A file has an array for each channel, of its shape and type, and ``job``: the id, the render
arguments and whatever else the renderer sent along, as JSON in bytes.  ``job`` is called ``0job``
where a channel has that name.  It is what ``dead/`` has for a dead result.

A file is whole under its name or not there; a result that comes again writes the same file again.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.id_folder import DIGITS_MAX, IdFolder, subfolder
from millpond_loggers.files.item_json import item_json
from millpond_loggers.files.names import file_name
from millpond_loggers.images.encoders import encode_npy
from millpond_loggers.options import FileName

SUFFIX: Final = ".npz"
JOB: Final = "job"
# No channel can be called so: their names begin with a letter.
OTHER_JOB: Final = "0job"
# Files that are equal have equal bytes, whenever they were written.
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_METHODS: Final = {"none": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED}
DEFLATE_LEVEL: Final = 1  # Several times faster than 6, and a few percent larger.


class NPZOptions(Options):
    """The options of the NPZ logger."""

    folder: FileName = Field("npz", description="The folder of the files in the output folder.")
    compression: Literal["none", "deflate"] = Field(
        "none", description="How the arrays are compressed."
    )
    subfolders: int = Field(
        0,
        ge=0,
        le=DIGITS_MAX,
        description="Spread the files over 16, 256 or 4096 subfolders (1, 2 or 3) by the id's "
        "hash; 0: one folder.",
    )


class NPZLogger(BaseLogger):
    """Writes the files; nothing is kept, each is complete when `log` returns."""

    Options = NPZOptions

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Make the folder, and clear it of what a dead process left half written.

        Raises:
            OSError: There can be no such folder, or it is a symlink.
        """
        super().__init__(root_dir, result_buffer, config)
        self._job = OTHER_JOB if JOB in self.buffer.channels else JOB
        self._folder = IdFolder(root_dir, self.options.folder, digits=self.options.subfolders)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Write the file of one result.

        Raises:
            OSError: It cannot be written; the result must be logged again.
        """
        if item is None:
            self.end()
            return
        content = self._content(item)
        self._folder.write(item["id"], file_name(item["id"], SUFFIX), content)

    def flush(self) -> None:
        """Do nothing: every file is complete already."""

    def end(self) -> None:
        """Close the folder.  The second time does nothing."""
        self._folder.close()

    def _content(self, item: Mapping[str, Any]) -> bytes:
        """The bytes of the file: `numpy.savez` itself refuses channels of some names."""
        arrays: dict[str, NDArray[Any]] = {self._job: np.frombuffer(item_json(item), np.uint8)}
        arrays |= self.buffer[item["result_ix"]]
        file = io.BytesIO()
        method = _METHODS[self.options.compression]
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy", _TIME)
                archive.writestr(entry, encode_npy(array), method, DEFLATE_LEVEL)
        return file.getvalue()

    @staticmethod
    def is_recorded(
        root_dir: str,
        options: NPZOptions,
        channels: Channels,  # noqa: ARG004
    ) -> Callable[[str], bool]:
        """What says of an id whether its file is there; nothing is changed."""
        folder = Path(root_dir, options.folder)
        digits = sorted(range(DIGITS_MAX + 1), key=lambda count: count != options.subfolders)

        def is_there(id: str) -> bool:
            name = file_name(id, SUFFIX)
            return any((folder / subfolder(id, count) / name).is_file() for count in digits)

        return is_there


Logger = NPZLogger
