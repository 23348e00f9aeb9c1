"""docs/custom_logger.md, done as it stands there; its loggers pass the suite of our own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import ClassVar

import pytest
from docs.page import do, write_files

from millpond.testing import LoggerConformance

PAGE = Path(__file__).parents[2] / "docs" / "custom_logger.md"


def test_everything_on_the_page_works(tmp_path: Path) -> None:
    folder, installed = tmp_path / "folder", tmp_path / "installed"
    folder.mkdir()
    installed.mkdir()
    env = {
        # What `pip install .` installs goes there, from what is here.
        "PIP_TARGET": str(installed),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # No isolation, that is: pip reads it as the option's value.
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(installed),
    }
    do(PAGE, folder, env)
    with (folder / "runs" / "mine" / "mine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a", 'b, "quoted"', "c"] * 2
    assert rows[1]["light"] == ""
    assert rows[2]["more"] == '{"fog": 0.5}'
    assert list(installed.glob("my_loggers-*"))


class OfThePage(LoggerConformance):
    """One of the loggers of the page; what it writes is read by its own means."""

    file: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _written(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("page")
        write_files(PAGE, folder)
        cls.module = str(folder / cls.file)


class TestMyCSVLogger(OfThePage):
    file = "my_csv_logger.py"

    def read_ids(self, root: Path) -> list[str]:
        with (root / "mine.csv").open(newline="", encoding="utf-8") as file:
            return [row[0] for row in csv.reader(file, strict=True)][1:]

    def written_id(self, id: str) -> str:
        return id.encode("utf-8", "backslashreplace").decode()


class TestPeakLogger(OfThePage):
    file = "peak_logger.py"
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        lines = "".join(path.read_text() for path in sorted(root.glob("peaks*.jsonl"))).split("\n")
        return [json.loads(line)["id"] for line in lines[:-1]]
