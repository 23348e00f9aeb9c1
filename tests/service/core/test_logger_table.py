"""What happens to loggers, told to the table alone; the supervisor's scripts cover the rest."""

from __future__ import annotations

from typing import Literal

import pytest

from millpond.core.alarms import Alarms
from millpond.core.commands import (
    CloseLogger,
    Command,
    KillLogger,
    RecordDelivered,
    ReportExit,
    ReportReady,
    SendJobs,
    SpawnLogger,
)
from millpond.core.deliveries import Result
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerSpec
from millpond.core.logger_table import END_S, LATE_S, LoggerTable
from millpond.core.slots import SlotTable


class Loggers:
    """A table over real slot words."""

    def __init__(
        self,
        count: int = 2,
        *,
        window: int = 2,
        hang_s: float = 30.0,
        on_crash: Literal["redeliver", "drop"] = "redeliver",
    ) -> None:
        self.acks = [[0] * 5 for _ in range(count)]
        self.slots = SlotTable(4, want=[[0] * 4 for _ in range(count)], ack=self.acks)
        self.alarms = Alarms()
        self.table = LoggerTable(
            self.slots,
            [
                LoggerSpec(f"l{n}", window_max=window, hang_s=hang_s, on_crash=on_crash)
                for n in range(count)
            ],
            alarms=self.alarms,
            slot_bytes=4096,
            keep_s=5.0,
            recovered=[0] * count,
            chance=lambda: 0.5,
        )
        for logger in self.table.everyone:
            assert self.table.spawn(logger, 0.0) == SpawnLogger(logger)

    def time_passes(self, now_s: float) -> list[Command]:
        due = self.alarms.take_due(now_s)
        return [c for alarm, due_s in due for c in self.table.alarm(alarm, due_s, now_s)]

    def for_all(self, results: list[Result]) -> dict[int, list[Result]]:
        return dict.fromkeys(self.table.everyone, results)

    def publish(self, count: int) -> list[Result]:
        results = []
        for sequence in range(1, count + 1):
            slot, generation = self.slots.claim(1)
            self.slots.publish(slot, generation, self.table.everyone)
            results.append(Result(slot, generation, 1, sequence, f"{sequence}", b"frame"))
        return results


def test_jobs_wait_until_a_logger_is_ready_and_then_fit_its_window() -> None:
    loggers = Loggers()
    one, two, three = loggers.publish(3)
    assert loggers.table.admit(loggers.for_all([one, two, three]), 0.5) == []
    assert loggers.table.ready(1, 1.0) == [ReportReady(1), SendJobs(1, [one, two])]
    loggers.acks[1][one.slot] = one.generation
    assert loggers.table.collect(1, 2.0) == [RecordDelivered(1, [one]), SendJobs(1, [three])]
    assert loggers.table.collect(1, 2.0) == []
    loggers.table.check_invariants()


def test_an_exit_takes_back_what_was_not_released_and_nothing_else() -> None:
    loggers = Loggers()
    one, two = loggers.publish(2)
    loggers.table.ready(0, 1.0)
    loggers.table.ready(1, 1.0)
    loggers.table.admit(loggers.for_all([one, two]), 1.5)
    loggers.acks[0][one.slot] = one.generation  # Released, and nobody rang.
    assert loggers.table.exited(0, "crash(SIGKILL)", "", 2.0) == [
        RecordDelivered(0, [one]),
        ReportExit(0, "crash(SIGKILL)", 0.1, is_fatal=False),
    ]
    deliveries = loggers.table[0].deliveries
    assert (deliveries.delivered, deliveries.dead) == (1, 0)
    assert deliveries.waiting() == [two]
    assert loggers.slots.holders_of(one.slot) == [1]
    assert loggers.slots.holders_of(two.slot) == [0, 1]
    assert loggers.alarms.next_s == pytest.approx(2.1)


def test_nothing_is_sent_to_a_logger_that_is_being_killed() -> None:
    loggers = Loggers(1, window=2, hang_s=3.0)
    one, two = loggers.publish(2)
    loggers.table.ready(0, 1.0)
    loggers.table.admit(loggers.for_all([one]), 1.0)
    (kill,) = loggers.time_passes(4.0)
    assert kill == KillLogger(0, "no progress for 3 s", dump=True)
    assert loggers.table.admit(loggers.for_all([two]), 4.1) == []
    loggers.acks[0][one.slot] = one.generation
    assert loggers.table.collect(0, 4.2) == [RecordDelivered(0, [one])]


def test_a_bad_end_is_remembered() -> None:
    loggers = Loggers(1)
    loggers.table.ready(0, 1.0)
    assert loggers.table.close(5.0) == [CloseLogger(0)]
    assert loggers.table.exited(0, "exit(1)", "", 6.0) == [
        ReportExit(0, "exit(1)", None, is_fatal=False)
    ]
    assert loggers.table[0].ended_badly
    assert loggers.table.is_stopped


def test_an_end_at_once_is_not_the_fault_of_a_logger() -> None:
    """It was killed before its `end`, because the operator wanted it so."""
    loggers = Loggers(1)
    loggers.table.ready(0, 1.0)
    assert loggers.table.kill(5.0) == [KillLogger(0, "the daemon ends now")]
    assert loggers.table.exited(0, "crash(SIGKILL)", "", 6.0) == [
        ReportExit(0, "crash(SIGKILL)", None, is_fatal=False)
    ]
    assert not loggers.table[0].ended_badly


@pytest.mark.parametrize(("on_crash", "is_bad"), [("redeliver", False), ("drop", True)])
def test_a_logger_that_is_cut_off_at_the_end_gets_the_rest_again_or_ended_badly(
    on_crash, is_bad
) -> None:
    loggers = Loggers(1, on_crash=on_crash)
    (one,) = loggers.publish(1)
    loggers.table.ready(0, 1.0)
    loggers.table.admit(loggers.for_all([one]), 1.0)
    loggers.table.close(5.0)
    loggers.table.exited(0, "crash(SIGKILL)", "", 6.0)
    assert loggers.table[0].ended_badly == is_bad


def test_they_are_asked_to_end_in_reverse_order() -> None:
    loggers = Loggers(3)
    assert loggers.table.close(1.0) == [CloseLogger(2), CloseLogger(1), CloseLogger(0)]
    late_s = 1.0 + 5.0
    assert loggers.time_passes(late_s) == [KillLogger(n, "did not end in time") for n in (2, 1, 0)]


def test_a_logger_that_has_not_kept_up_gets_little_time_to_end() -> None:
    loggers = Loggers(2, window=1)
    (one,) = loggers.publish(1)
    loggers.table.ready(0, 1.0)
    loggers.table.ready(1, 1.0)
    loggers.table.admit(loggers.for_all([one]), 1.0)
    loggers.acks[1][one.slot] = one.generation
    loggers.table.collect(1, 1.0)
    assert loggers.table.close(2.0) == [CloseLogger(1), CloseLogger(0)]
    assert loggers.time_passes(2.0 + END_S) == [KillLogger(0, "did not end in time")]
    assert loggers.time_passes(2.0 + 5.0) == [KillLogger(1, "did not end in time")]


def test_a_deadline_that_was_missed_by_us_begins_anew() -> None:
    loggers = Loggers(1)
    paused_s = 60.0 + LATE_S + 1
    assert loggers.time_passes(paused_s) == []
    assert loggers.table[0].state is State.STARTING
    assert loggers.time_passes(paused_s + 60.0) == [
        KillLogger(0, "not ready within 60 s", dump=True)
    ]
