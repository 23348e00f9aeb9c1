"""The CSV logger passes the suite that every logger should pass."""

import csv
from pathlib import Path
from typing import ClassVar

from millpond.testing import LoggerConformance


class TestCSV(LoggerConformance):
    module = "millpond_loggers.csv_logger"
    options: ClassVar = {"escape_formulas": False}
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in sorted(root.glob("details*.csv")):
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file, strict=True))
            assert all(len(row) == len(rows[0]) for row in rows), "a torn row"
            ids += [row[0] for row in rows[1:]]
        return ids
