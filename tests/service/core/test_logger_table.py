"""What happens to loggers, told to the table alone; the supervisor's scripts cover the rest."""

from __future__ import annotations

import pytest

from millpond.core.commands import (
    CloseLogger,
    KillLogger,
    ReportDead,
    ReportExit,
    ReportReady,
    SendJobs,
    SpawnLogger,
)
from millpond.core.deliveries import Result
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerSpec
from millpond.core.logger_table import LATE_S, LoggerTable
from millpond.core.slots import SlotTable


class Loggers:
    """A table over real slot words."""

    def __init__(self, count: int = 2, *, window: int = 2) -> None:
        self.acks = [[0] * 4 for _ in range(count)]
        self.slots = SlotTable(4, want=[[0] * 4 for _ in range(count)], ack=self.acks)
        specs = [LoggerSpec(f"l{n}", window_max=window) for n in range(count)]
        self.table = LoggerTable(self.slots, specs, chance=lambda: 0.5)
        for logger in self.table.everyone:
            assert self.table.spawn(logger, 0.0) == SpawnLogger(logger)

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
    assert loggers.table.admit([one, two, three]) == []
    assert loggers.table.ready(1, 1.0) == [ReportReady(1), SendJobs(1, [one, two])]
    loggers.acks[1][one.slot] = one.generation
    assert loggers.table.collect(1) == [SendJobs(1, [three])]
    assert loggers.table.collect(1) == []
    loggers.table.check_invariants()


def test_an_exit_gives_back_what_it_held_and_nothing_else() -> None:
    loggers = Loggers()
    one, two = loggers.publish(2)
    loggers.table.ready(0, 1.0)
    loggers.table.ready(1, 1.0)
    loggers.table.admit([one, two])
    loggers.acks[0][one.slot] = one.generation  # Released, and nobody rang.
    assert loggers.table.exited(0, "crash(SIGKILL)", 2.0) == [
        ReportDead(0, [two], "crash(SIGKILL)", ""),
        ReportExit(0, "crash(SIGKILL)", 0.1, is_fatal=False),
    ]
    record = loggers.table[0]
    assert (record.deliveries.delivered, record.deliveries.dead) == (1, 1)
    assert loggers.slots.holders_of(two.slot) == [1]
    assert loggers.table.wake_at_s == pytest.approx(2.1)


def test_a_bad_end_is_remembered() -> None:
    loggers = Loggers(1)
    loggers.table.ready(0, 1.0)
    assert loggers.table.close(5.0) == [CloseLogger(0)]
    assert loggers.table.exited(0, "exit(1)", 6.0) == [
        ReportExit(0, "exit(1)", None, is_fatal=False)
    ]
    assert loggers.table[0].ended_badly
    assert loggers.table.is_stopped


def test_they_are_asked_to_end_in_reverse_order() -> None:
    loggers = Loggers(3)
    assert loggers.table.close(1.0) == [CloseLogger(2), CloseLogger(1), CloseLogger(0)]
    late_s = 1.0 + 5.0
    assert loggers.table.time_passed(late_s) == [
        KillLogger(n, "did not end within 5 s") for n in range(3)
    ]


def test_a_deadline_that_was_missed_by_us_begins_anew() -> None:
    loggers = Loggers(1)
    paused_s = 60.0 + LATE_S + 1
    assert loggers.table.time_passed(paused_s) == []
    assert loggers.table[0].state is State.STARTING
    assert loggers.table.time_passed(paused_s + 60.0) == [KillLogger(0, "not ready within 60 s")]
