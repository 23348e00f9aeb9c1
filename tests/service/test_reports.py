"""Whatever is lost is said once, by id, and stays on the list of the dead."""

import json

import pytest
import structlog
from structlog.testing import capture_logs

from millpond import reports
from millpond.core.commands import ReportDead, ReportExit
from millpond.core.deliveries import Result
from millpond.reports import IDS_SHOWN_MAX, Reports
from millpond.run_folder import DEAD_NAME, RunFolder

CSV, IMAGE = 0, 1


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path)
    yield made
    made.close()


@pytest.fixture
def logs(monkeypatch):
    """What is logged; another test may have configured and cached the logger of the module."""
    monkeypatch.setattr(reports, "log", structlog.get_logger())
    with capture_logs() as captured:
        yield captured


def results(count: int) -> list[Result]:
    return [Result(n, 1, 1, n + 1, f"{n:06}", b"") for n in range(count)]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            ReportExit(IMAGE, "crash(SIGSEGV)", 0.123456, is_fatal=False),
            {
                "event": "logger ended",
                "log_level": "warning",
                "cause": "crash(SIGSEGV)",
                "restart_s": 0.123,
            },
        ),
        (
            ReportExit(IMAGE, "hang", 300.0, is_fatal=True),
            {
                "event": "logger given up",
                "log_level": "error",
                "cause": "hang",
                "retry_s": 300.0,
            },
        ),
        (
            ReportExit(IMAGE, "exit(1)", None, is_fatal=False),
            {"event": "logger ended badly", "log_level": "warning", "cause": "exit(1)"},
        ),
    ],
)
def test_an_exit_is_told_with_its_cause_and_what_is_done(folder, logs, report, said) -> None:
    Reports(["csv", "image"], folder).exit(report)
    assert logs == [{"logger": "image", **said}]


def test_lost_results_are_logged_and_listed(folder, logs) -> None:
    report = ReportDead(CSV, results(2), "exception", "ValueError: no")
    Reports(["csv", "image"], folder).dead(report)
    assert logs == [
        {
            "event": "results lost",
            "log_level": "error",
            "logger": "csv",
            "count": 2,
            "reason": "exception",
            "ids": ["000000", "000001"],
            "problem": "ValueError: no",
        }
    ]
    rows = [json.loads(line) for line in (folder.folder / DEAD_NAME).read_text().splitlines()]
    assert [(row["id"], row["logger"], row["reason"]) for row in rows] == [
        ("000000", "csv", "exception"),
        ("000001", "csv", "exception"),
    ]


def test_the_log_shows_some_ids_and_the_list_has_all(folder, logs) -> None:
    Reports(["csv"], folder).dead(ReportDead(CSV, results(1000), "shutdown", ""))
    assert logs[0]["count"] == 1000
    assert len(logs[0]["ids"]) == IDS_SHOWN_MAX + 1
    assert logs[0]["ids"][-1] == "..."  # They are cut, and it is seen.
    rows = [json.loads(line) for line in (folder.folder / DEAD_NAME).read_text().splitlines()]
    assert [row["id"] for row in rows] == [result.id for result in results(1000)]


def test_when_the_list_cannot_be_written_the_log_has_every_id(folder, logs) -> None:
    (folder.folder / DEAD_NAME).mkdir()
    Reports(["csv"], folder).dead(ReportDead(CSV, results(25), "drop", ""))
    assert [entry["event"] for entry in logs] == [
        "results lost",
        "list of lost results not written",
    ]
    assert "directory" in logs[1]["problem"]
    assert logs[1]["ids"] == [result.id for result in results(25)]
