"""The JSON logger passes the suite that every logger should pass."""

import json
from pathlib import Path

from millpond.testing import LoggerConformance


class TestJSON(LoggerConformance):
    module = "millpond_loggers.json_logger"
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in sorted(root.glob("details*.log")):
            ids += [json.loads(line)["id"] for line in path.read_text("utf-8").split("\n")[:-1]]
        return ids
