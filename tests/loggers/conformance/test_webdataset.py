"""The WebDataset logger passes the suite that every logger should pass."""

import itertools
import json
import tarfile
from pathlib import Path
from typing import ClassVar

from millpond.testing import LoggerConformance


class TestWebDataset(LoggerConformance):
    module = "millpond_loggers.webdataset_logger"
    options: ClassVar = {"part_rows": 6, "array_elements_max": 8}
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in sorted(root.glob("shards/*.tar")):
            with tarfile.open(path) as shard:
                members = [(member.name, shard.extractfile(member)) for member in shard]
                for _, sample in itertools.groupby(members, lambda it: it[0].partition(".")[0]):
                    files = {name.partition(".")[2]: file for name, file in sample}
                    assert set(files) == {"json", "rgb.png", "segmentation.npy"}
                    ids.append(json.load(files["json"])["id"])
        return ids
