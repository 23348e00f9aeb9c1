"""What is known of a logger follows its life."""

import pytest

from millpond.core.deliveries import Batch, Result
from millpond.core.lifecycle import Input, State
from millpond.core.logger_record import LoggerRecord, LoggerSpec, brief
from millpond.core.progress import IDLE, returned_word


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
    assert record.is_drained(IDLE)
    record.deliveries.admit([Result(0, 1, 1, 1, "000001", b"")])
    assert not record.is_drained(IDLE)
    record.advance(Input.SPAWN)
    record.advance(Input.GIVE_UP)
    assert record.is_drained(IDLE)


def running(**options) -> LoggerRecord:
    record = LoggerRecord(LoggerSpec("csv", **options))
    record.advance(Input.SPAWN)
    record.advance(Input.READY)
    return record


@pytest.mark.parametrize(
    ("policy", "well", "down", "suspended"),
    [
        (("block", "redeliver"), "", "spills", "spills"),
        (("block", "drop"), "", "drops", ""),
        (("spill", "redeliver"), "spills", "spills", "spills"),
        (("spill", "drop"), "spills", "drops", "spills"),
        (("drop", "redeliver"), "drops", "spills", "spills drops"),
        (("drop", "drop"), "drops", "drops", "drops"),
    ],
)
def test_who_must_not_keep_the_renderers_waiting(policy, well, down, suspended) -> None:
    """What it has on the disk changes nothing: a renderer waits for one that reads it back."""

    def what(record: LoggerRecord) -> str:
        return " ".join(["spills"] * record.spills + ["drops"] * record.drops)

    when_full, on_crash = policy
    record = running(when_full=when_full, on_crash=on_crash)
    assert what(record) == well
    record.is_suspended = True
    assert what(record) == suspended
    record.is_suspended = False
    record.deliveries.recover(Batch(0, [], 0, on_disk=1))
    assert what(record) == well
    record.advance(Input.EXIT)
    assert what(record) == down


def test_what_may_be_sent_depends_on_its_life_and_on_what_came_back() -> None:
    record = LoggerRecord(LoggerSpec("csv", window_max=3))
    assert record.room == 0
    record = running(window_max=3)
    record.deliveries.admit([Result(slot, 1, 1, slot + 1, "", b"") for slot in range(4)])
    assert record.room == 3
    record.suspects = 1
    assert record.room == 1
    record.deliveries.advance(1)
    record.suspects, record.is_alone = 0, True
    assert record.room == 0
    record.deliveries.take_window()
    assert record.room == 3
    record.kill_cause = "hang"
    assert record.room == 0
    record.kill_cause, record.is_suspended = "", True
    assert record.room == 0


def test_its_numbers_add_up() -> None:
    record = LoggerRecord(LoggerSpec("csv", window_max=1))
    record.deliveries.admit([Result(slot, 1, 1, slot + 1, "", b"") for slot in range(3)])
    record.deliveries.advance(9)
    assert record.statistics() == {
        "pid": None,
        "state": "down",
        "is_suspended": False,
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


def test_what_a_logger_only_keeps_holds_up_no_stop() -> None:
    record = running()
    record.deliveries.admit([Result(0, 1, 1, 1, "1", b""), Result(1, 1, 1, 2, "2", b"")])
    record.deliveries.advance(1)
    assert not record.is_drained(returned_word(0, 1))  # One was not even sent.
    record.deliveries.advance(1)
    assert not record.is_drained(returned_word(0, 1))
    assert not record.is_drained(IDLE)
    assert record.is_drained(returned_word(1, 1))


def test_a_suspect_that_is_logged_and_kept_is_followed_by_the_next_one() -> None:
    record = running(window_max=2)
    record.deliveries.admit([Result(slot, 1, 1, slot + 1, "id", b"") for slot in range(3)])
    record.deliveries.advance(1)
    record.suspects, record.is_alone = 1, True
    assert record.room == 0
    assert not record.note_word(returned_word(5, 1), 1.0)
    assert record.note_word(returned_word(0, 1), 2.0)
    assert not record.note_word(returned_word(0, 1), 3.0)
    assert record.progress_s == 2.0
    assert record.room == 1
    record.deliveries.advance(1)
    assert record.room == 0
    record.suspects = 0
    assert record.note_word(returned_word(1, 1), 4.0)
    assert record.room == 0  # It keeps as many as it may have.
    record.deliveries.collect([1, 0, 0])
    assert (record.deliveries.kept, record.room) == (1, 1)
