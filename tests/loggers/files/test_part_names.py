"""The names of parts and journals."""

import pytest

from millpond_loggers.files.part_names import PartNames

ONLY = PartNames("parquet", "part.parquet")
SECOND = PartNames("parquet", "part.parquet", instance=2, instances=3)


def test_parts_and_journals_have_the_number_of_the_process_if_there_are_several() -> None:
    assert ONLY.part(7) == "part-000007.parquet"
    assert ONLY.journal == ".part.parquet.journal"
    assert SECOND.part(1_000_000) == "part-2-1000000.parquet"
    assert SECOND.journal == ".part-2.parquet.journal"


def test_one_of_several_is_called_as_the_only_one_of_its_own_name() -> None:
    """So `millpond verify` asks for the files of one process by an option alone."""
    assert PartNames("parquet", "part-2.parquet").part(1) == SECOND.part(1)
    assert PartNames("parquet", "part-2.parquet").journal == SECOND.journal


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("part-000001.parquet", 1),
        ("part-123456.parquet", 123_456),
        ("part-1234567.parquet", 1_234_567),
        ("part-2-000001.parquet", 0),
        ("part-1.parquet", 0),
        ("part-0000001.parquet", 0),
        ("part-000000.parquet", 0),
        ("part-00000\u0661.parquet", 0),
        ("part-000001.parquet.tmp", 0),
        ("part-000001.h5", 0),
        ("other-000001.parquet", 0),
        (".part.parquet.journal", 0),
        ("part-.parquet", 0),
        ("", 0),
    ],
)
def test_only_parts_of_this_process_have_a_number(name: str, number: int) -> None:
    assert ONLY.number(name) == number


def test_a_name_without_an_extension_is_as_good() -> None:
    names = PartNames("f", "rows", instance=2, instances=2)
    assert (names.part(3), names.journal) == ("rows-2-000003", ".rows-2.journal")
    assert names.number("rows-2-000003") == 3


@pytest.mark.parametrize(
    ("names", "abandoned"),
    [
        (ONLY, {".part-1.parquet.journal", ".part-3.parquet.journal"}),
        (
            PartNames("f", "part.parquet", 1, 2),
            {".part.parquet.journal", ".part-3.parquet.journal"},
        ),
    ],
)
def test_a_journal_is_abandoned_if_no_process_has_it_now(
    names: PartNames, abandoned: set[str]
) -> None:
    files = {
        ".part.parquet.journal",
        ".part-1.parquet.journal",
        ".part-3.parquet.journal",
        ".part-x.parquet.journal",
        ".other.parquet.journal",
        ".part.parquet.journal.damaged",
        "part-000001.parquet",
    }
    assert set(filter(names.is_abandoned, files)) == abandoned
