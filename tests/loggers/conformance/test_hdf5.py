"""The HDF5 logger passes the suite that every logger should pass."""

from pathlib import Path
from typing import ClassVar

import h5py

from millpond.testing import LoggerConformance


class TestHDF5(LoggerConformance):
    module = "millpond_loggers.hdf5_logger"
    options: ClassVar = {"part_rows": 6}
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        ids = []
        for path in sorted(root.glob("hdf5/*.h5")):
            with h5py.File(path) as part:
                assert len({len(dataset) for dataset in part.values()}) == 1, "a torn row"
                ids += list(part["id"].asstr()[:])
        return ids
