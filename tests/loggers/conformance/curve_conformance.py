"""The suite for loggers that draw points: these have no ids, only steps and values.

So `read_ids` goes by the value of ``loss``, which is the number of the result; the two tests whose
numbers or ids are odd look at the steps instead.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from millpond.testing import LoggerConformance, MemoryPond
from millpond_loggers.testing import scene


class CurveConformance(LoggerConformance):
    options: ClassVar = {"image_every": 5, "image_count_max": 3}
    is_split = True

    def points(self, root: Path) -> Iterator[tuple[int, float]]:
        """Step and loss of every result, run by run, in order."""
        raise NotImplementedError

    def forget(self) -> None:
        """End what a library has of its own, as the death of the process would."""

    def _pond(self, root: Path, **which: int) -> MemoryPond:
        pond = super()._pond(root, **which)
        restart = pond.restart

        def forget_and_restart(logger_class: Any, **options: Any) -> Any:
            self.forget()
            return restart(logger_class, **options)

        pond.restart = forget_and_restart
        return pond

    def read_ids(self, root: Path) -> list[str]:
        points = list(self.points(root))
        # Each run counts from 0, without a gap and without a point twice.
        expected = 0
        for step, _ in points:
            assert step in {0, expected}
            expected = step + 1
        return [self.id_of(int(loss)) for _, loss in points]

    def test_odd_ids(self, tmp_path: Path) -> None:
        root = tmp_path / "outer" / "root"
        pond = self._pond(root)
        pond.start(self._load())
        for number, id in enumerate(scene.ODD_IDS, 1):
            fields = {"model": id, "environment": id}
            arrays = scene.arrays_of(self._channels(), number)
            pond.log(id, {"zoom": 1}, fields=fields, **arrays)
        pond.end()
        losses = [loss for _, loss in self.points(root)]
        assert losses == list(range(1, len(scene.ODD_IDS) + 1))
        outside = {path for path in tmp_path.rglob("*") if root not in path.parents}
        assert outside == {root, root.parent}, "a value led out of the folder"

    def test_nan_and_the_infinities(self, tmp_path: Path) -> None:
        pond = self._pond(tmp_path)
        pond.start(self._load())
        values = (np.nan, np.inf, -np.inf, 0.0, 1.5)
        for number, value in enumerate(values, 1):
            pond.log(self.id_of(number), **scene.odd_arrays_of(self._channels(), value))
        pond.end()
        points = list(self.points(tmp_path))
        assert [step for step, _ in points] == list(range(len(values)))
        np.testing.assert_array_equal(
            np.clip([loss for _, loss in points], -1e300, 1e300), np.clip(values, -1e300, 1e300)
        )
