"""The workloads of the benchmarks."""

from __future__ import annotations

import numpy as np
from peers.job import Job

_RNG = np.random.default_rng(0)
_SCALARS = {
    "loss": np.asarray(0.5, "float32"),
    "prediction": np.asarray(3),
    "is_correct": np.asarray(True),
}

WORKLOADS = {
    job.name: job
    for job in (
        Job("bare", "nothing", 60_000, _SCALARS),
        Job("tiny", "lines", 30_000, _SCALARS),
        Job(
            "image",
            "lines",
            4_000,
            {
                "rgb": _RNG.random((3, 256, 256), dtype=np.float32),
                "segmentation": _RNG.integers(0, 7, (1, 256, 256), dtype=np.int32),
                **_SCALARS,
            },
        ),
        Job("hd", "lines", 600, {"rgb": _RNG.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)}),
    )
}
