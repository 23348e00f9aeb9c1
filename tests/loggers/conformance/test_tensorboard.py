"""The TensorBoard logger passes the suite that every logger should pass."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loggers.conformance.curve_conformance import CurveConformance

pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
loader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_file_loader", reason="tensorboard is not installed"
)


class TestTensorBoard(CurveConformance):
    module = "millpond_loggers.tensorboard_logger"

    def points(self, root: Path) -> Iterator[tuple[int, float]]:
        # By run, then in the order in which TensorBoard reads the files of one.
        for path in sorted(root.glob("tensorboard/*/events.out.tfevents.*")):
            for event in loader.EventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    if value.tag == "loss":
                        yield event.step, value.tensor.float_val[0]
