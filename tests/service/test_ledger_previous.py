"""What the next start of the daemon learns from the ledger: what is left, and for whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from millpond.core.deliveries import Result
from millpond.core.ranges import ResultRanges
from millpond.ledger import Ledger
from millpond.ledger_previous import Previous, Unaccounted
from millpond.ledger_reader import lines_path

LOGGERS = [{"name": "csv"}, {"name": "json"}]


def results(first: int, last: int, renderer: int = 1) -> list[Result]:
    return [Result(0, 1, renderer, n, f"{renderer}/{n}", b"") for n in range(first, last + 1)]


def begin(run: Path, pending: dict[str, ResultRanges] | None = None) -> Ledger:
    ledger = Ledger(run, LOGGERS)
    ledger.begin(pending or {})
    return ledger


def lost(run: Path, logger: str = "csv", dead: object = (), spilled: object = ()) -> list[object]:
    return list(Previous.read(run, []).unaccounted(logger, dead, spilled))


def test_the_first_start_has_no_previous_one(tmp_path: Path) -> None:
    previous = Ledger(tmp_path, LOGGERS).previous
    assert (previous.number, previous.renderer_last, previous.is_closed) == (0, 0, True)
    assert (previous.logger_names, previous.problems, previous.channels) == ([], [], None)
    assert previous.unaccounted("csv", [], []) == []
    assert not previous.owed("csv")
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize("is_end", [True, False])
def test_what_has_neither_outcome_nor_record_is_unaccounted(tmp_path: Path, is_end: bool) -> None:
    ledger = begin(tmp_path)
    ledger.channels({"loss": [[], "float32"]})
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 9))
    ledger.delivered(0, results(1, 4))
    ledger.otherwise(0, results(5, 6))
    ledger.close(is_end=is_end)
    previous = Previous.read(tmp_path, [])
    assert (previous.number, previous.renderer_last, previous.is_closed) == (1, 1, is_end)
    assert previous.logger_names == ["csv", "json"]
    assert previous.channels == {"loss": [[], "float32"]}
    assert previous.delivered["csv"].to_json() == [[1, 1, 4]]
    assert previous.owed("json").to_json() == [[1, 1, 9]]
    assert previous.unaccounted("csv", [(1, 5), (1, 9)], [(1, 6)]) == [
        Unaccounted(1, 7, "1/7"),
        Unaccounted(1, 8, "1/8"),
    ]
    # A record that is gone is not covered by the mark, which passed it.
    assert lost(tmp_path, dead=[(1, 9)])[:2] == [(1, 5, "1/5"), (1, 6, "1/6")]
    assert len(lost(tmp_path, "json")) == 9
    assert lost(tmp_path, "other") == []


def test_what_was_taken_over_is_owed_too(tmp_path: Path) -> None:
    pending = {"csv": ResultRanges([(3, 7), (3, 8), (3, 9)]), "old": ResultRanges([(2, 2)])}
    ledger = begin(tmp_path, pending)
    ledger.delivered(0, results(7, 7, renderer=3))
    ledger.close(is_end=False)
    assert lost(tmp_path, spilled=[(3, 8)]) == [(3, 9, None)]
    assert lost(tmp_path, "json") == []
    assert lost(tmp_path, "old") == [(2, 2, None)]
    assert Previous.read(tmp_path, []).logger_names == ["csv", "json", "old"]


def test_only_the_last_start_counts(tmp_path: Path) -> None:
    """The one before it has told what was left, or passed it on as pending."""
    ledger = begin(tmp_path)
    ledger.renderer_joined(6, 1)
    ledger.published(results(1, 3, renderer=6))
    ledger.close()
    begin(tmp_path).close()
    previous = Previous.read(tmp_path, [])
    assert (previous.number, previous.renderer_last) == (2, 6)
    assert previous.unaccounted("csv", [], []) == []


@pytest.mark.parametrize(
    "content", [b"", bytes(5000), b'\0"start":{}}\n', b"garbage\n", b"x" * 9999]
)
def test_a_start_that_failed_before_its_first_line_is_passed_over(
    tmp_path: Path, content: bytes
) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(6, 1)
    ledger.published(results(1, 3, renderer=6))
    ledger.close()
    for number in (2, 3):
        lines_path(tmp_path, number).write_bytes(content)
    ledger = Ledger(tmp_path, LOGGERS)
    assert ledger.number == 4
    assert ledger.previous.number == 1
    assert len(ledger.previous.unaccounted("csv", [], [])) == 3
    assert "000003.jsonl has no line: that start failed" in ledger.previous.problems
    ledger.begin({})
    ledger.close()
    assert Previous.read(tmp_path, []).renderer_last == 6


def test_nothing_but_garbage_is_no_start(tmp_path: Path) -> None:
    lines_path(tmp_path, 5).parent.mkdir()
    lines_path(tmp_path, 5).write_bytes(b"garbage\n" * 10)
    ledger = Ledger(tmp_path, LOGGERS)
    assert (ledger.number, ledger.previous.number) == (6, 0)
    assert "000005.jsonl has 10 lines that make no sense" in ledger.previous.problems


def test_without_a_first_line_the_numbers_go_on_after_older_starts(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(6, 1)
    ledger.close()
    lines_path(tmp_path, 2).write_bytes(b'{"sta\n{"p":[2,1,["a"]]}\n')
    previous = Previous.read(tmp_path, ["csv"])
    assert (previous.number, previous.renderer_last) == (2, 6)
    assert previous.unaccounted("csv", [], []) == [Unaccounted(2, 1, "a")]
    assert len(previous.problems) == 2
