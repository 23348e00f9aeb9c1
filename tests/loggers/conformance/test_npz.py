"""The NPZ logger passes the suite that every logger should pass."""

import json
from pathlib import Path

import numpy as np

from millpond.testing import LoggerConformance


class TestNPZ(LoggerConformance):
    module = "millpond_loggers.npz_logger"
    is_ordered = False
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in root.glob("npz/*.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                assert arrays["rgb"].shape == (3, 8, 8)
                ids.append(json.loads(bytes(arrays["job"]))["id"])
        return ids
