"""A new logger for its author: a module that works as it stands, and its test.

The text of both is here.  It is a user's code from the moment it is written, so it does not need
this module, and nothing here imports what it imports.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

# Longer ones would make lines that are too long.
NAME_CHARACTERS_MAX: Final = 30
SUFFIX: Final = "_logger"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

_MODULE: Final = Template('''\
"""Records each result as a line of JSON: its id, its arguments, its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.parts import instance_name
from millpond_loggers.files.row_file import RowFile
from millpond_loggers.json_logger import to_json
from millpond_loggers.options import FileName
from pydantic import Field

FILE_NAME = "$name.jsonl"


class ${class_name}Options(Options):
    """What may stand under `options:`; anything else there is refused."""

    file: FileName = Field(FILE_NAME, description="Its name in the output folder.")
    peaks: bool = Field(True, description="Record the peak of each array, too.")


class ${class_name}Logger(BaseLogger):
    """Writes the file; made anew after a crash, it goes on where that one ended."""

    Options = ${class_name}Options

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        super().__init__(root_dir, result_buffer, config)
        file = instance_name(self.options.file, self.instance, self.instances)
        # Cuts off what a crash has torn, and knows which results are in the file.
        self.rows = RowFile(root_dir, file, starts_with=b"{")
        self.logger.info("writing to %s", file)  # Goes to the daemon's log.

    def log(self, item: Any) -> None:
        """Take one result; its arrays are read-only, and must be copied to be kept."""
        row = {"id": item["id"], "render_args": item["render_args"]}
        for name, array in self.buffer[item["result_ix"]].items():
            if array.ndim == 0:
                row[name] = array[()]
            elif self.options.peaks:
                row[name] = array.max()
        self.rows.append(to_json(row) + b"\\n", self.buffer.key_of(item["result_ix"]))

    def flush(self) -> None:
        """Make safe what `log` has taken: after this, it counts as delivered."""
        self.rows.flush()

    def end(self) -> None:
        """Finish; nothing comes any more."""
        self.rows.close()


Logger = ${class_name}Logger
''')

_TEST: Final = Template('''\
"""What the $name logger promises.  Run it with pytest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from millpond.testing import LoggerConformance, MemoryPond

from $module import FILE_NAME, ${class_name}Logger

CHANNELS = {"rgb": ((3, 8, 8), "float32"), "loss": ((), "float32")}
RGB = np.full((3, 8, 8), 0.5, np.float32)


def read(folder: Path) -> list[dict[str, Any]]:
    with (folder / FILE_NAME).open() as file:
        return [json.loads(line) for line in file]


def test_a_result_is_a_line(tmp_path: Path) -> None:
    pond = MemoryPond(tmp_path, CHANNELS)
    pond.start(${class_name}Logger)
    pond.log("a", {"zoom": 1.5}, rgb=RGB, loss=2)
    pond.end()
    row = {"id": "a", "render_args": {"zoom": 1.5}, "rgb": 0.5, "loss": 2.0}
    assert read(tmp_path) == [row]


def test_without_peaks_only_scalars_are_in_it(tmp_path: Path) -> None:
    pond = MemoryPond(tmp_path, CHANNELS, options={"peaks": False})
    pond.start(${class_name}Logger)
    pond.log("a", rgb=RGB, loss=2)
    pond.end()
    assert read(tmp_path) == [{"id": "a", "render_args": {}, "loss": 2.0}]


class Test${class_name}Logger(LoggerConformance):
    """What holds for every logger: order, odd ids, crashes, each result once."""

    module = "$module.py"

    def read_ids(self, root: Path) -> list[str]:
        return [row["id"] for row in read(root)]
''')


@dataclass(frozen=True, slots=True)
class WrittenLogger:
    """What `write_logger` has written.

    Attributes:
        module: The logger's file.
        test: The file of its test.
        reference: What the configuration calls the logger, when it lies beside the folder given.
    """

    module: Path
    test: Path
    reference: str


def write_logger(name: str, folder: Path) -> WrittenLogger:
    """Write the module of a new logger and its test.

    Args:
        name: What the logger is to be called; a ``_logger`` at its end is not said twice.
        folder: Where to; it is made if it is not there.

    Raises:
        ValueError: It is no good name; says which would be.
        FileExistsError: One of the files is there.  Nothing was written.
        OSError: They cannot be written.
    """
    stem = _checked(name)
    module = f"{stem}{SUFFIX}"
    words = {
        "name": stem,
        "module": module,
        "class_name": "".join(word.capitalize() for word in stem.split("_")),
    }
    texts = {
        folder / f"{module}.py": _MODULE.substitute(words),
        folder / f"test_{module}.py": _TEST.substitute(words),
    }
    for path in texts:
        if path.is_symlink() or path.exists():
            raise FileExistsError(f"{path} exists already; choose another name or folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    path, test = texts
    return WrittenLogger(path, test, path.as_posix() if path.is_absolute() else f"./{path}")


def _checked(name: str) -> str:
    """The name without what is added to it.

    Raises:
        ValueError: A Python file cannot be called so.
    """
    stem = name.removesuffix(".py").removesuffix(SUFFIX)
    if len(stem) > NAME_CHARACTERS_MAX:
        raise ValueError(f"the name has {len(stem)} characters; at most {NAME_CHARACTERS_MAX}")
    if _NAME.fullmatch(stem) and not keyword.iskeyword(stem):
        return stem
    better = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    hint = f", such as {better}" if _NAME.fullmatch(better) and better != stem else ""
    raise ValueError(
        f"{name!r} is no name for a logger: use small letters, digits and _, "
        f"beginning with a letter{hint}"
    )
