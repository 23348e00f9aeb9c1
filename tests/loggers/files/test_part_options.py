"""The options of loggers that write parts."""

from pathlib import Path
from typing import Any

import pytest

from millpond.errors import ConfigError
from millpond_loggers.files.part_options import PartOptions, count_recorded
from millpond_loggers.options import check_options
from millpond_loggers.parquet_logger import ParquetOptions


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"part_rows": 0}, "part_rows"),
        ({"part_rows": 1.5}, "part_rows"),
        ({"part_bytes": "lots"}, "write a size such as 512MiB"),
        ({"part_bytes": "2GiB"}, "part_bytes"),
        ({"part_s": 0}, "part_s"),
        ({"part_s": float("inf")}, "part_s"),
        ({"folder": "a/b"}, "not a plain file name"),
        ({"file": ".hidden"}, "not a plain file name"),
        (
            {"rows": 5},
            r"option 'rows' is unknown; did you mean 'part_rows'\? the options are folder",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_options(PartOptions, options)


def test_sizes_may_have_units() -> None:
    assert check_options(PartOptions, {"part_bytes": "2MiB"}).part_bytes == 2 << 20
    assert check_options(PartOptions, {"part_bytes": 1}).part_bytes == 1


def test_every_option_has_a_description() -> None:
    assert all(field.description for field in PartOptions.model_fields.values())


def test_nothing_is_recorded_where_nothing_is(tmp_path: Path) -> None:
    assert count_recorded(str(tmp_path), ParquetOptions(), lambda _: []) == {}
