"""The ``disk:`` section."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from millpond.config.disk import SPILL_BYTES_MIN, DiskConfig
from millpond.config.model import Config


def test_sizes_have_units() -> None:
    disk = DiskConfig(spill_max="1.5GiB", dead_max="2MB")
    assert (disk.spill_max, disk.dead_max) == (3 * 2**29, 2_000_000)


@pytest.mark.parametrize(
    "given", [{"spill_max": SPILL_BYTES_MIN - 1}, {"deadline_s": 0}, {"dead_max": -1}]
)
def test_what_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DiskConfig(**given)


def test_the_spill_lies_in_the_run_folder_or_where_one_says(tmp_path: Path) -> None:
    def spill_of(run: str, **disk: Path) -> Path:
        config = Config(output_dir=tmp_path / run, logging={"logger_modules": ["csv"]}, disk=disk)
        return config.spill_path

    fast = tmp_path / "fast"
    assert spill_of("one") == tmp_path / "one" / "spill"
    assert spill_of("one", spill_dir=fast).parent == fast
    assert spill_of("one", spill_dir=fast) != spill_of("sub/one", spill_dir=fast)
