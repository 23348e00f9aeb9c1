"""The Parquet logger passes the suite that every logger should pass."""

from pathlib import Path
from typing import ClassVar

from pyarrow import parquet

from millpond.testing import LoggerConformance


class TestParquet(LoggerConformance):
    module = "millpond_loggers.parquet_logger"
    options: ClassVar = {"part_rows": 6, "images": ["rgb"]}
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in sorted(root.glob("parquet/*.parquet")):
            table = parquet.read_table(path)
            assert all(table["rgb"].to_pylist()), "a row without its picture"
            ids += table["id"].to_pylist()
        return ids
