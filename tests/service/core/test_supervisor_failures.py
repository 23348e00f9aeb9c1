"""Loggers that crash, raise, hang or lose their disk, as scripts of events and commands."""

from unittest.mock import ANY

import pytest
from supervisor_pond import (
    ANN,
    CSV,
    ONE,
    SEGV,
    TWO,
    Pond,
    delivered,
    full_pond,
    grant,
    result,
)

from millpond.core.commands import (
    BuryResults,
    CancelKeeping,
    GrantSlots,
    KillLogger,
    ReplayResults,
    ReportDead,
    ReportExit,
    ReportRaised,
    ReportResumed,
    ReportSuspended,
    SendJobs,
    SpawnLogger,
    SpillResults,
)
from millpond.core.disk_table import PROBE_S
from millpond.core.events import (
    KeepingFailed,
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    RendererJoined,
    ResultsKept,
    ResultsPublished,
    SlotWanted,
    TimePassed,
)
from millpond.core.progress import flush_word
from millpond.core.restart import DISK_ERRORS


def test_what_a_crash_interrupted_is_delivered_again_in_order_one_by_one() -> None:
    """So that the one which ends the logger is known for sure; then as before."""
    pond = Pond(slots=8).ready(CSV)
    pond.play((RendererJoined(ANN, 9), [grant((0, 1), (1, 1))]))
    three = result(slot=2, sequence=3)
    pond.tell(ResultsPublished(ANN, [ONE, TWO]))
    pond.play(
        (
            LoggerExited(CSV, SEGV, "Segmentation fault"),
            [ReportExit(CSV, SEGV, 0.1, is_fatal=False)],
        ),
    )
    assert SendJobs(CSV, [three]) not in pond.tell(ResultsPublished(ANN, [three]))
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.now_s == 0.1
    assert pond.release(CSV, ONE)[:2] == [delivered(CSV, ONE), SendJobs(CSV, [TWO])]
    assert pond.release(CSV, TWO)[:2] == [delivered(CSV, TWO), SendJobs(CSV, [three])]
    assert pond.supervisor.loggers[CSV].deliveries.dead == 0


def test_what_a_crash_interrupted_is_dropped_if_the_operator_wants_that() -> None:
    pond = full_pond(policies=[{"on_crash": "drop"}]).ready(CSV)
    pond.tell(SlotWanted(ANN))
    dead = ReportDead(CSV, [ONE, TWO], SEGV, f"it ended: {SEGV}")
    exited = ReportExit(CSV, SEGV, 0.1, is_fatal=False)
    pond.play((LoggerExited(CSV, SEGV), [dead, exited, grant((1, 2))]))
    assert pond.come_back(CSV) == []


def test_what_was_released_before_the_death_is_delivered() -> None:
    """Nobody rang."""
    pond = full_pond(window=1).ready(CSV)
    pond.acks[CSV][ONE.slot] = ONE.generation
    exited = ReportExit(CSV, SEGV, 0.1, is_fatal=False)
    pond.play((LoggerExited(CSV, SEGV), [delivered(CSV, ONE), exited, grant((0, 2))]))
    assert pond.come_back(CSV) == [SendJobs(CSV, [TWO])]


def test_a_late_release_of_a_dead_logger_counts_only_for_what_it_names() -> None:
    """By a helper that outlived it, say; the word names one use of a slot."""
    pond = full_pond(policies=[{"on_crash": "drop"}]).ready(CSV)
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.release(CSV, ONE, TWO) == []
    again = result(slot=1, generation=2, sequence=3)
    pond.tell(ResultsPublished(ANN, [again]))
    pond.wake()
    pond.ready(CSV)
    assert pond.release(CSV, TWO) == []
    assert pond.supervisor.loggers[CSV].deliveries.window == [again]
    assert pond.release(CSV, again)[0] == delivered(CSV, again)


# Poison.


def test_a_result_that_ends_its_logger_three_times_is_given_up_and_its_arrays_are_kept() -> None:
    pond = full_pond().ready(CSV)
    assert pond.crash(CSV, TWO) == [ReportExit(CSV, SEGV, 0.1, is_fatal=False)]
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert SendJobs(CSV, [TWO]) in pond.release(CSV, ONE)
    pond.crash(CSV, TWO)
    assert pond.come_back(CSV) == [SendJobs(CSV, [TWO])]
    buried, exited = pond.crash(CSV, TWO)
    assert buried == BuryResults(CSV, 1, [TWO], SEGV, "Segmentation fault", attempts=3)
    assert exited == ReportExit(CSV, SEGV, 0.4, is_fatal=False)
    assert pond.supervisor.slots.hold_count(TWO.slot) == 1  # It lies there until it is kept.
    assert pond.supervisor.loggers[CSV].statistics()["queued"] == 1
    pond.tell(ResultsKept(1))
    assert pond.supervisor.slots.hold_count(TWO.slot) == 0
    assert pond.supervisor.loggers[CSV].deliveries.dead == 1
    assert pond.come_back(CSV) == []


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_disk_that_cannot_keep_the_arrays_does_not_keep_the_slot(is_answered) -> None:
    pond = full_pond().ready(CSV)
    for _ in range(3):
        pond.crash(CSV, ONE)
        pond.come_back(CSV)
    assert pond.supervisor.slots.hold_count(ONE.slot) == 1
    if is_answered:
        pond.play((KeepingFailed(1, "no space"), [grant((0, 2))]))
    else:
        assert pond.wake() == [CancelKeeping(1), grant((0, 2))]
    deliveries = pond.supervisor.loggers[CSV].deliveries
    assert (deliveries.dead, deliveries.queued, deliveries.window) == (1, 0, [TWO])


def test_a_crash_in_a_flush_of_many_blames_none() -> None:
    """Each may be the culprit; they are sent one by one, and then it is known."""
    pond = full_pond(intensity=9).ready(CSV)
    for _ in range(4):
        pond.acks[CSV][-1] = flush_word(1)
        assert pond.tell(LoggerExited(CSV, SEGV))[0] == ReportExit(CSV, SEGV, ANY, is_fatal=False)
        pond.come_back(CSV)
    assert pond.supervisor.loggers[CSV].deliveries.blames == {}


def test_who_was_released_before_the_crash_is_not_blamed() -> None:
    pond = full_pond().ready(CSV)
    pond.acks[CSV][ONE.slot] = ONE.generation
    pond.crash(CSV, ONE)
    assert pond.supervisor.loggers[CSV].deliveries.blames == {}


def test_a_delivery_wipes_the_blame_out() -> None:
    pond = full_pond().ready(CSV)
    pond.crash(CSV, ONE)
    pond.come_back(CSV)
    pond.release(CSV, ONE)
    assert pond.supervisor.loggers[CSV].deliveries.blames == {}


def test_a_result_that_raises_is_tried_again_later_and_the_others_go_on() -> None:
    pond = full_pond(window=1).ready(CSV)
    blame = LoggerRaised(CSV, 0, 1, "Traceback ...\nValueError: no picture\n")
    told = ReportRaised(CSV, ONE, blame.problem, again_s=0.1)
    pond.play((blame, [told, SendJobs(CSV, [TWO])]), (blame, []))
    assert pond.supervisor.loggers[CSV].statistics()["last_error"] == "ValueError: no picture"
    assert pond.release(CSV, TWO)[0] == delivered(CSV, TWO)
    assert pond.wake() == [SendJobs(CSV, [ONE])]
    assert pond.now_s == 0.1
    assert pond.release(CSV, ONE)[0] == delivered(CSV, ONE)


def test_a_result_is_tried_five_times_and_then_its_arrays_are_kept() -> None:
    pond = full_pond().ready(CSV)
    pond.release(CSV, TWO)
    text = "Traceback ...\nValueError: no"
    blame = LoggerRaised(CSV, 0, 1, text)
    moments_s = []
    for _ in range(4):
        assert not any(isinstance(command, BuryResults) for command in pond.tell(blame))
        while SendJobs(CSV, [ONE]) not in pond.wake():
            pass
        moments_s.append(pond.now_s)
    assert moments_s == pytest.approx([0.1, 1.1, 6.1, 21.1])
    pond.play((blame, [BuryResults(CSV, 1, [ONE], "exception", text, attempts=5)]))
    pond.tell(ResultsKept(1))
    assert pond.supervisor.loggers[CSV].deliveries.dead == 1


def test_a_retry_is_sent_alone() -> None:
    """Should it be the flush that fails, only one is to blame."""
    pond = full_pond().ready(CSV)
    pond.tell(LoggerRaised(CSV, 0, 1, "ValueError"))
    assert pond.wake() == []  # TWO is in the pipe.
    assert pond.release(CSV, TWO)[:2] == [delivered(CSV, TWO), SendJobs(CSV, [ONE])]


# A disk that fails under a logger.


@pytest.mark.parametrize("number", sorted(DISK_ERRORS))
def test_a_failed_disk_is_not_the_fault_of_the_result(number) -> None:
    """It waits as long as that lasts, and is told once."""
    pond = full_pond().ready(CSV)
    failed = [LoggerRaised(CSV, slot, 1, "OSError: no space", number) for slot in (0, 1)]
    suspended = ReportSuspended(CSV, "OSError: no space", PROBE_S)
    pond.play((failed[0], [suspended]), (failed[1], []))
    for probe in range(1, 9):
        assert pond.wake() == [SendJobs(CSV, [ONE])]
        assert pond.now_s == probe * PROBE_S
        assert pond.supervisor.loggers[CSV].statistics()["is_suspended"]
        pond.play((failed[0], []))
    pond.wake()
    assert pond.release(CSV, ONE)[:3] == [
        delivered(CSV, ONE),
        ReportResumed(CSV),
        SendJobs(CSV, [TWO]),
    ]
    assert not pond.supervisor.loggers[CSV].statistics()["is_suspended"]


def test_nothing_is_sent_while_the_disk_fails() -> None:
    pond = Pond(slots=8).ready(CSV)
    pond.tell(RendererJoined(ANN, 9))
    pond.tell(ResultsPublished(ANN, [ONE]))
    pond.tell(LoggerRaised(CSV, 0, 1, "OSError: no space", min(DISK_ERRORS)))
    assert SendJobs(CSV, [TWO]) not in pond.tell(ResultsPublished(ANN, [TWO]))
    assert pond.wake() == [SendJobs(CSV, [ONE])]


def test_a_crash_ends_the_wait_for_the_disk() -> None:
    pond = full_pond().ready(CSV)
    pond.tell(LoggerRaised(CSV, 0, 1, "OSError: no space", min(DISK_ERRORS)))
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.now_s == 0.1
    assert pond.release(CSV, ONE)[:3] == [
        delivered(CSV, ONE),
        ReportResumed(CSV),
        SendJobs(CSV, [TWO]),
    ]


# Hangs.


def test_a_logger_without_progress_is_killed_and_its_result_blamed() -> None:
    pond = full_pond().ready(CSV)
    pond.start(CSV, ONE)
    assert pond.wake() == [KillLogger(CSV, "no progress for 30 s", dump=True)]
    assert pond.now_s == 30.0
    exited = ReportExit(CSV, "hang", 0.1, is_fatal=False)
    pond.play((LoggerExited(CSV, "crash(SIGKILL)"), [exited]))
    assert pond.supervisor.loggers[CSV].deliveries.blame(ONE).crashes == 1


@pytest.mark.parametrize("is_release", [True, False])
def test_any_progress_is_enough(is_release) -> None:
    pond = full_pond().ready(CSV)
    pond.now_s = 20.0
    if is_release:
        pond.release(CSV, ONE)
    else:
        pond.tell(LoggerRaised(CSV, 0, 1, "ValueError"))
    while not (commands := pond.wake()):
        pass
    assert commands == [KillLogger(CSV, "no progress for 30 s", dump=True)]
    assert pond.now_s == 50.0


def test_a_logger_with_nothing_to_do_does_not_hang() -> None:
    pond = full_pond().ready(CSV)
    pond.release(CSV, ONE, TWO)
    pond.now_s = 30.0
    assert pond.tell(TimePassed()) == []
    assert pond.supervisor.wake_at_s is None


def test_a_pause_of_the_machine_is_not_a_hang() -> None:
    pond = full_pond().ready(CSV)
    pond.now_s = 400.0
    assert pond.tell(TimePassed()) == []
    assert pond.wake() == [KillLogger(CSV, "no progress for 30 s", dump=True)]
    assert pond.now_s == 430.0


# Restarts.


@pytest.mark.parametrize("on_crash", ["redeliver", "drop"])
def test_a_logger_that_was_given_up_is_tried_again_later(on_crash) -> None:
    """Until then its results go to the disk, or are dead: it is disabled."""
    pond = full_pond(intensity=0, policies=[{"on_crash": on_crash}])
    pond.play((LoggerExited(CSV, SEGV), [ReportExit(CSV, SEGV, 300.0, is_fatal=True)]))
    first = pond.tell(SlotWanted(ANN))[0]
    if on_crash == "redeliver":
        assert first == SpillResults(CSV, 1, [TWO], home=1)
        pond.tell(ResultsKept(1))
    else:
        assert first == ReportDead(CSV, [TWO], "disabled", f"it is down: {SEGV}")
    assert pond.wake() == [SpawnLogger(CSV)]
    assert pond.now_s == 300.0


def test_a_logger_that_is_not_ready_in_time_is_killed_and_not_heard_any_more() -> None:
    pond = full_pond()
    assert pond.wake() == [KillLogger(CSV, "not ready within 60 s", dump=True)]
    pond.play(
        (LoggerReady(CSV), []),  # It was in the pipe already.
        (LoggerExited(CSV, "crash(SIGKILL)"), [ReportExit(CSV, "hang", 0.1, is_fatal=False)]),
    )
    assert pond.supervisor.loggers[CSV].last_error == "not ready within 60 s"


def test_the_reason_of_a_failed_start_outlives_the_kill() -> None:
    pond = Pond()
    pond.tell(LoggerFailed(CSV, "ImportError: no"))
    pond.wake()
    pond.tell(LoggerExited(CSV, "crash(SIGKILL)"))
    assert pond.supervisor.loggers[CSV].last_error == "ImportError: no"


def test_a_pause_of_the_machine_is_nobodys_fault() -> None:
    """The deadline was missed by us: it begins anew, once."""
    pond = Pond()
    pond.now_s = 60.0 + 500.0
    assert pond.tell(TimePassed()) == []
    assert pond.supervisor.wake_at_s == 560.0 + 60.0
    assert pond.wake() == [KillLogger(CSV, "not ready within 60 s", dump=True)]


def test_what_is_tried_again_later_gives_its_slot_to_a_renderer_that_waits() -> None:
    """Whatever its policy is: a logger that raises for everything stops no renderer."""
    pond = full_pond(window=2).ready(CSV)
    for slot in (0, 1):
        pond.tell(LoggerRaised(CSV, slot, 1, "ValueError: typo"))
    (spilled,) = pond.tell(SlotWanted(ANN))[:1]
    assert isinstance(spilled, SpillResults)
    assert len(spilled.results) == 1
    kept = pond.tell(ResultsKept(spilled.token))
    assert any(isinstance(command, GrantSlots) for command in kept)
    assert pond.supervisor.loggers[CSV].deliveries.spilled == 1
    # When its time has come, it is read back like any other: here into the slot of the second.
    (makes_room,) = pond.wake()
    assert isinstance(makes_room, SpillResults)
    (back, *_) = pond.tell(ResultsKept(makes_room.token))
    assert isinstance(back, ReplayResults)
    assert back.token == spilled.home


def test_a_retry_on_the_disk_does_not_take_the_others_there() -> None:
    pond = Pond(slots=4, window=1).ready(CSV)
    pond.tell(RendererJoined(ANN, 9))
    four = [result(slot=slot, sequence=slot + 1) for slot in range(4)]
    for one in four:
        pond.tell(ResultsPublished(ANN, [one]))
        pond.tell(SlotWanted(ANN))
    raised = pond.tell(LoggerRaised(CSV, 0, 1, "ValueError: typo"))
    (spilled,) = [command for command in raised if isinstance(command, SpillResults)]
    assert spilled.results == [four[0]]
    assert grant((0, 2)) in pond.tell(ResultsKept(spilled.token))
    fifth = result(slot=0, sequence=5)._replace(generation=2)
    commands = pond.tell(ResultsPublished(ANN, [fifth])) + pond.tell(SlotWanted(ANN))
    assert not any(isinstance(command, SpillResults) for command in commands)


def test_a_start_that_fails_for_want_of_a_disk_is_tried_again_and_never_given_up() -> None:
    pond = Pond(slots=4)
    for _ in range(7):
        pond.tell(LoggerFailed(CSV, "OSError: [Errno 28] No space left", min(DISK_ERRORS)))
        told = pond.tell(LoggerExited(CSV, "exit(1)"))
        assert ReportExit(CSV, "exit(1)", PROBE_S, is_fatal=False) in told
        assert SpawnLogger(CSV) in pond.wake()
    row = pond.supervisor.loggers[CSV].statistics()
    assert row["is_suspended"]
    pond.tell(LoggerReady(CSV))
