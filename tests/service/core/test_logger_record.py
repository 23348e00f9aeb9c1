"""What is known of a logger follows its life."""

import pytest

from millpond.core.deliveries import Result
from millpond.core.lifecycle import Input, State
from millpond.core.logger_record import LoggerRecord, LoggerSpec, brief


def test_the_end_of_a_process_takes_its_pid_and_its_readiness_along() -> None:
    record = LoggerRecord(LoggerSpec("csv"))
    record.advance(Input.SPAWN)
    record.pid, record.ready_since_s = 4711, 5.0
    record.advance(Input.READY)
    assert (record.pid, record.ready_since_s) == (4711, 5.0)
    record.advance(Input.EXIT)
    assert record.state is State.BACKOFF
    assert (record.pid, record.ready_since_s) == (0, None)


def test_the_first_start_is_worth_waiting_for_and_a_restart_is_not() -> None:
    record = LoggerRecord(LoggerSpec("csv"))
    assert not record.is_broken
    record.advance(Input.SPAWN)
    assert not record.is_broken
    record.advance(Input.EXIT)
    assert record.is_broken
    record.restarts = 1
    record.advance(Input.SPAWN)
    assert record.is_broken
    record.advance(Input.READY)
    assert not record.is_broken
    record.advance(Input.GIVE_UP)
    assert record.is_broken
    record.advance(Input.STOP)
    assert not record.is_broken


def test_a_stop_does_not_wait_for_a_logger_that_was_given_up() -> None:
    record = LoggerRecord(LoggerSpec("csv"))
    assert record.is_drained
    record.deliveries.admit([Result(0, 1, 1, 1, "000001", b"")])
    assert not record.is_drained
    record.advance(Input.SPAWN)
    record.advance(Input.GIVE_UP)
    assert record.is_drained


def test_its_numbers_add_up() -> None:
    record = LoggerRecord(LoggerSpec("csv", window_max=1))
    record.deliveries.admit([Result(slot, 1, 1, slot + 1, "", b"") for slot in range(3)])
    record.deliveries.advance()
    assert record.statistics() == {
        "pid": None,
        "state": "down",
        "restarts": 0,
        "published": 3,
        "delivered": 0,
        "queued": 2,
        "in_window": 1,
        "spilled": 0,
        "dead": 0,
        "last_error": None,
        "ended_badly": False,
    }


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("", ""),
        ("no module named 'x'", "no module named 'x'"),
        ("Traceback (most recent call last):\n  File ...\nValueError: no\n", "ValueError: no"),
        ("making it failed:\nTraceback ...\n  ...\nOSError: no", "making it failed: OSError: no"),
    ],
)
def test_a_problem_is_told_in_one_line(problem: str, line: str) -> None:
    assert brief(problem) == line
