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


class Clock:
    """Calls what is due when a second is said to be over."""

    class Handle:
        def __init__(self, call) -> None:
            self.call = call

        def cancel(self) -> None:
            self.call = lambda: None

    def __init__(self) -> None:
        self.handles = []

    def call_later(self, after_s: float, call) -> "Clock.Handle":
        assert after_s == reports.GROUP_S
        self.handles.append(self.Handle(call))
        return self.handles[-1]

    def pass_second(self) -> None:
        due, self.handles = self.handles, []
        for handle in due:
            handle.call()


def made(names: list[str]) -> Reports:
    return Reports(names, Clock().call_later)


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
    made(["csv", "image"]).exit(report)
    assert logs == [{"logger": "image", **said}]


@pytest.mark.parametrize(
    "report",
    [
        ReportDead(CSV, results(2), "exception", "ValueError: no"),
        BuryResults(CSV, 7, results(2), "exception", "ValueError: no", attempts=5),
    ],
)
def test_lost_results_are_told_by_id_and_reason(logs, report) -> None:
    made(["csv", "image"]).dead(report)
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
    made(["csv"]).dead(ReportDead(CSV, results(1000), "shutdown", ""))
    assert logs[0]["count"] == 1000
    assert logs[0]["ids"] == [*(f"{n:06}" for n in range(IDS_SHOWN_MAX)), "..."]
    made(["csv"]).dead(ReportDead(CSV, results(IDS_SHOWN_MAX), "shutdown", ""))
    assert len(logs[1]["ids"]) == IDS_SHOWN_MAX  # They are not cut, and it is seen.


TRACEBACK = "Traceback (most recent call last):\n  File x, line {}\nValueError: number {}\n"


def test_a_traceback_is_told_once_and_its_last_line_always(logs) -> None:
    reports = made(["csv", "image"])
    for logger in (CSV, CSV, IMAGE):
        reports.dead(ReportDead(logger, results(1), "exception", TRACEBACK.format(1, 1)))
    reports.close()
    assert [(entry["event"], entry["logger"]) for entry in logs] == [
        ("logger failed", "csv"),
        ("results lost", "csv"),
        ("logger failed", "image"),
        ("results lost", "image"),
        ("results lost", "csv"),
    ]
    assert logs[0]["traceback"] == TRACEBACK.format(1, 1)
    assert logs[0]["result"] == "000000"
    assert {entry["problem"] for entry in logs if "problem" in entry} == {"ValueError: number 1"}


def test_tracebacks_that_are_always_new_do_not_flood_the_log(logs) -> None:
    told = made(["csv"])
    for number in range(TRACEBACKS_MAX + 10):
        told.dead(ReportDead(CSV, results(1), "exception", TRACEBACK.format(1, number)))
    events = [entry["event"] for entry in logs]
    assert events.count("logger failed") == TRACEBACKS_MAX
    assert events.count("results lost") == TRACEBACKS_MAX + 10


def test_a_logger_that_cannot_write_is_told_with_the_reason_and_when_it_can_again(logs) -> None:
    reports = made(["csv", "image"])
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
    reporter = made(["csv", "image"])
    for _ in range(3):
        reporter.dead(ReportDead(CSV, results(2), "dropped", ""))
    assert [(line["event"], line["count"]) for line in logs] == [("results dropped", 2)]
    assert logs[0]["log_level"] == "warning"


def test_what_is_lost_one_by_one_for_one_reason_is_told_once_a_second(logs) -> None:
    clock = Clock()
    told = Reports(["csv", "image"], clock.call_later)

    def lose(count: int, problem: str = "ValueError: no") -> None:
        for result in results(count):
            told.dead(ReportDead(CSV, [result], "exception", problem))

    def counts() -> list[int]:
        found = [entry["count"] for entry in logs]
        logs.clear()
        return found

    lose(256)
    assert counts() == [1]
    lose(2, "KeyError: another")
    assert counts() == [1]
    clock.pass_second()
    assert logs[0]["ids"] == [*(f"{n:06}" for n in range(1, IDS_SHOWN_MAX + 1)), "..."]
    assert counts() == [255, 1]
    lose(3)
    assert counts() == []
    clock.pass_second()
    assert counts() == [3]
    for _ in range(2):
        clock.pass_second()
    assert clock.handles == []
    assert counts() == []
    lose(1)
    assert counts() == [1]


def test_what_is_not_told_at_the_end_is_told_then_and_nothing_twice(logs) -> None:
    clock = Clock()
    told = Reports(["csv"], clock.call_later)
    for reason in ("dropped", "exception"):
        for result in results(3):
            told.dead(ReportDead(CSV, [result], reason, ""))
    told.close()
    told.close()
    clock.pass_second()
    assert [(entry["event"], entry["count"]) for entry in logs] == [
        ("results dropped", 1),
        ("results lost", 1),
        ("results dropped", 2),
        ("results lost", 2),
    ]


def test_a_result_that_raised_is_told_once_for_each_kind_of_problem(logs) -> None:
    reports = made(["csv", "image"])
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
