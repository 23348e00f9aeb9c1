"""What happens to loggers and results is said in the log: briefly, and each thing once."""

import pytest
import structlog
from structlog.testing import capture_logs

from millpond import reports
from millpond.core.commands import (
    BuryResults,
    ReportDead,
    ReportExit,
    ReportRaised,
    ReportResumed,
    ReportSuspended,
)
from millpond.core.deliveries import Result
from millpond.reports import IDS_SHOWN_MAX, TRACEBACKS_MAX, Reports

CSV, IMAGE = 0, 1


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
def test_an_exit_is_told_with_its_cause_and_what_is_done(logs, report, said) -> None:
    Reports(["csv", "image"]).exit(report)
    assert logs == [{"logger": "image", **said}]


@pytest.mark.parametrize(
    "report",
    [
        ReportDead(CSV, results(2), "exception", "ValueError: no"),
        BuryResults(CSV, 7, results(2), "exception", "ValueError: no", attempts=5),
    ],
)
def test_lost_results_are_told_by_id_and_reason(logs, report) -> None:
    Reports(["csv", "image"]).dead(report)
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


def test_the_log_shows_some_ids_and_that_there_are_more(logs) -> None:
    Reports(["csv"]).dead(ReportDead(CSV, results(1000), "shutdown", ""))
    assert logs[0]["count"] == 1000
    assert logs[0]["ids"] == [*(f"{n:06}" for n in range(IDS_SHOWN_MAX)), "..."]
    Reports(["csv"]).dead(ReportDead(CSV, results(IDS_SHOWN_MAX), "shutdown", ""))
    assert len(logs[1]["ids"]) == IDS_SHOWN_MAX  # They are not cut, and it is seen.


TRACEBACK = "Traceback (most recent call last):\n  File x, line {}\nValueError: number {}\n"


def test_a_traceback_is_told_once_and_its_last_line_always(logs) -> None:
    reports = Reports(["csv", "image"])
    for logger in (CSV, CSV, IMAGE):
        reports.dead(ReportDead(logger, results(1), "exception", TRACEBACK.format(1, 1)))
    assert [(entry["event"], entry["logger"]) for entry in logs] == [
        ("logger failed", "csv"),
        ("results lost", "csv"),
        ("results lost", "csv"),
        ("logger failed", "image"),
        ("results lost", "image"),
    ]
    assert logs[0]["traceback"] == TRACEBACK.format(1, 1)
    assert logs[0]["result"] == "000000"
    assert {entry["problem"] for entry in logs if "problem" in entry} == {"ValueError: number 1"}


def test_tracebacks_that_are_always_new_do_not_flood_the_log(logs) -> None:
    told = Reports(["csv"])
    for number in range(TRACEBACKS_MAX + 10):
        told.dead(ReportDead(CSV, results(1), "exception", TRACEBACK.format(1, number)))
    events = [entry["event"] for entry in logs]
    assert events.count("logger failed") == TRACEBACKS_MAX
    assert events.count("results lost") == TRACEBACKS_MAX + 10


def test_a_logger_that_cannot_write_is_told_with_the_reason_and_when_it_can_again(logs) -> None:
    reports = Reports(["csv", "image"])
    reports.suspended(ReportSuspended(IMAGE, "No space left on device", 5.0))
    reports.resumed(ReportResumed(IMAGE))
    assert logs == [
        {
            "event": "logger cannot write",
            "log_level": "error",
            "logger": "image",
            "problem": "No space left on device",
            "probe_s": 5.0,
        },
        {"event": "logger writes again", "log_level": "warning", "logger": "image"},
    ]


def test_what_is_dropped_on_purpose_is_told_at_most_once_a_second(logs):
    reporter = Reports(["csv", "image"])
    for _ in range(3):
        reporter.dead(ReportDead(CSV, results(2), "dropped", ""))
    assert [(line["event"], line["count"]) for line in logs] == [("results dropped", 2)]
    assert logs[0]["log_level"] == "warning"


def test_a_result_that_raised_is_told_once_for_each_kind_of_problem(logs) -> None:
    reports = Reports(["csv", "image"])
    text = "Traceback ...\nKeyError: 'losss' (mine.py:7, in log)"
    for result in results(3):
        reports.raised(ReportRaised(IMAGE, result, text, 0.1))
    [line] = logs
    assert line == {
        "event": "logger raised",
        "log_level": "warning",
        "logger": "image",
        "result": "000000",
        "problem": "KeyError: 'losss' (mine.py:7, in log)",
        "again_s": 0.1,
    }
