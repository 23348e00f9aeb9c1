"""Stops, drains and ends, as scripts of events and commands: nothing is left without outcome."""

import pytest
from supervisor_pond import (
    ANN,
    BEN,
    CSV,
    JSON,
    ONE,
    SEGV,
    TWO,
    Pond,
    delivered,
    full_pond,
    grant,
    published,
    result,
)

from millpond.core.commands import (
    CancelKeeping,
    CloseLogger,
    EndRenderer,
    Finish,
    KillLogger,
    ReportDead,
    ReportExit,
    SendJobs,
    SpawnLogger,
    SpillResults,
    TellClosing,
)
from millpond.core.events import (
    KeepingFailed,
    LoggerExited,
    LoggerRaised,
    LoggerReady,
    RendererJoined,
    RendererLeft,
    ResultsKept,
    ResultsPublished,
    ResultsReplayed,
    SlotWanted,
    StopNow,
    StopRequested,
)
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import DISK_ERRORS
from millpond.core.slots import SlotTable
from millpond.core.supervisor import Supervisor


def test_a_stop_drains_and_ends_the_loggers_in_reverse_order() -> None:
    pond = full_pond(loggers=2).ready(CSV, JSON)
    pond.play((StopRequested(), [TellClosing(ANN)]), (StopRequested(), []))
    pond.play((SlotWanted(ANN), [TellClosing(ANN)]), (RendererJoined(BEN, 8), [TellClosing(BEN)]))
    assert pond.release(CSV, ONE, TWO) == [delivered(CSV, ONE, TWO)]
    assert pond.release(JSON, ONE, TWO) == [
        delivered(JSON, ONE, TWO),
        EndRenderer(ANN, ""),
        EndRenderer(BEN, ""),
        CloseLogger(JSON),
        CloseLogger(CSV),
    ]
    pond.play(
        (RendererLeft(ANN), []),
        (LoggerExited(CSV, "exit(0)"), []),
        (LoggerExited(JSON, "exit(0)"), [Finish()]),
        (StopNow(), []),
    )
    assert pond.supervisor.wake_at_s is None


def test_what_is_not_drained_in_time_is_kept_for_the_next_daemon() -> None:
    """What a logger has it may finish, for a moment; it ends when the disk has the rest."""
    pond = full_pond(window=1).ready(CSV)
    pond.tell(StopRequested())
    spill = SpillResults(CSV, 1, [TWO], home=1)
    assert pond.wake() == [EndRenderer(ANN, ""), spill, CloseLogger(CSV)]
    assert pond.now_s == 10.0
    assert pond.wake() == [KillLogger(CSV, "did not end in time")]
    assert pond.now_s == 11.0
    exited = ReportExit(CSV, "crash(SIGKILL)", None, is_fatal=False)
    pond.play(
        (LoggerExited(CSV, "crash(SIGKILL)"), [SpillResults(CSV, 2, [ONE], home=2), exited]),
        (ResultsKept(1), []),
        (ResultsKept(2), [Finish()]),
    )
    assert pond.supervisor.loggers[CSV].statistics()["spilled"] == 2


def test_what_is_not_drained_in_time_is_dead_if_it_is_not_to_be_redelivered() -> None:
    pond = full_pond(window=1, policies=[{"on_crash": "drop"}]).ready(CSV)
    pond.tell(StopRequested())
    dead = ReportDead(CSV, [TWO], "shutdown", "")
    assert pond.wake() == [EndRenderer(ANN, ""), dead, CloseLogger(CSV)]
    assert pond.wake() == [KillLogger(CSV, "did not end in time")]
    dead = ReportDead(CSV, [ONE], "shutdown", "it ended: crash(SIGKILL)")
    exited = ReportExit(CSV, "crash(SIGKILL)", None, is_fatal=False)
    pond.play((LoggerExited(CSV, "crash(SIGKILL)"), [dead, exited, Finish()]))


def test_what_the_disk_does_not_take_at_the_end_is_dead() -> None:
    pond = full_pond()
    pond.tell(LoggerExited(CSV, SEGV))
    pond.play(
        (StopNow(), [EndRenderer(ANN, ""), SpillResults(CSV, 1, [ONE, TWO], home=1)]),
        (
            KeepingFailed(1, "no space"),
            [ReportDead(CSV, [ONE, TWO], "spill_full", "no space"), Finish()],
        ),
    )
    assert pond.supervisor.wake_at_s is None


def test_an_end_does_not_wait_for_a_disk_that_is_silent() -> None:
    pond = full_pond()
    pond.tell(LoggerExited(CSV, SEGV))
    pond.tell(StopNow())
    cancelled, dead, finish = pond.wake()
    assert (cancelled, finish) == (CancelKeeping(1), Finish())
    assert (dead.results, dead.reason) == ([ONE, TWO], "spill_full")


@pytest.mark.parametrize("number", [0, min(DISK_ERRORS)])
def test_what_raises_at_the_end_is_tried_by_the_next_daemon(number) -> None:
    pond = full_pond(window=1).ready(CSV)
    pond.tell(StopNow())
    pond.tell(ResultsKept(1))
    pond.play((LoggerRaised(CSV, 0, 1, "OSError: no", number), []))
    pond.play((LoggerExited(CSV, "exit(0)"), [SpillResults(CSV, 2, [ONE], home=2)]))
    pond.play((ResultsKept(2), [Finish()]))
    assert pond.supervisor.wake_at_s is None


def test_what_a_closed_logger_still_releases_is_delivered() -> None:
    pond = full_pond().ready(CSV)
    pond.tell(StopRequested())
    pond.wake()
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE)]
    pond.acks[CSV][TWO.slot] = TWO.generation
    pond.play((LoggerExited(CSV, "exit(0)"), [delivered(CSV, TWO), Finish()]))
    assert pond.supervisor.loggers[CSV].deliveries.delivered == 2
    assert pond.supervisor.wake_at_s is None


def test_nothing_is_taken_any_more_when_the_renderers_were_ended() -> None:
    """A result that was on its way then would get no outcome."""
    pond = Pond(slots=2).ready(CSV)
    pond.tell(RendererJoined(ANN, 9))
    pond.play((StopRequested(), [TellClosing(ANN), EndRenderer(ANN, ""), CloseLogger(CSV)]))
    pond.play((ResultsPublished(ANN, [ONE]), []), (RendererLeft(ANN), []))
    assert pond.supervisor.results_count == 0
    assert pond.supervisor.slots.free_count == 2


def test_a_restart_that_falls_due_with_the_end_of_the_drain_does_not_happen() -> None:
    """It would be started only to be ended."""
    pond = full_pond(window=1).ready(CSV)
    pond.tell(StopRequested())
    pond.now_s = 9.9
    pond.play((LoggerExited(CSV, SEGV), [ReportExit(CSV, SEGV, 0.1, is_fatal=False)]))
    assert pond.wake() == [EndRenderer(ANN, ""), SpillResults(CSV, 1, [ONE, TWO], home=1)]
    assert pond.now_s == 10.0
    pond.play((ResultsKept(1), [Finish()]))


def in_state(state: State) -> Pond:
    pond = full_pond(intensity=0 if state is State.FATAL else 5)
    if state is State.RUNNING:
        pond.ready(CSV)
    elif state in (State.BACKOFF, State.FATAL):
        pond.tell(LoggerExited(CSV, SEGV))
    elif state is State.STOPPING:
        pond.tell(StopRequested())
        pond.wake()
    assert pond.supervisor.loggers[CSV].state is state
    return pond


WITH_PROCESS = [State.STARTING, State.RUNNING, State.STOPPING]


@pytest.mark.parametrize("state", [*WITH_PROCESS, State.BACKOFF, State.FATAL])
def test_stop_now_ends_a_logger_in_any_state(state) -> None:
    """Also twice.  Whatever it was not given is kept for the next daemon, once."""
    pond = in_state(state)
    commands = pond.tell(StopNow())
    assert (KillLogger(CSV, "the daemon ends now") in commands) == (state in WITH_PROCESS)
    assert Finish() not in commands
    again = pond.tell(StopNow())
    assert again == ([KillLogger(CSV, "the daemon ends now")] if state in WITH_PROCESS else [])
    pond.play((LoggerReady(CSV), []), (StopRequested(), []))
    if state in WITH_PROCESS:
        pond.tell(LoggerExited(CSV, "crash(SIGKILL)"))
    assert pond.tell(ResultsKept(1)) == [Finish()]
    record = pond.supervisor.loggers[CSV]
    assert record.state is State.STOPPED
    assert record.statistics()["spilled"] == 2
    assert pond.supervisor.wake_at_s is None


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.BACKOFF])
def test_a_stop_waits_for_a_logger_that_may_still_get_its_results(state) -> None:
    pond = in_state(state)
    pond.play((StopRequested(), [TellClosing(ANN)]))
    if state is State.BACKOFF:
        assert pond.wake() == [SpawnLogger(CSV)]
    if state is not State.RUNNING:
        pond.ready(CSV)
    assert pond.release(CSV, ONE, TWO) == [
        delivered(CSV, ONE, TWO),
        EndRenderer(ANN, ""),
        CloseLogger(CSV),
    ]


def test_a_stop_does_not_wait_for_a_logger_that_was_given_up() -> None:
    pond = in_state(State.FATAL)
    spill = SpillResults(CSV, 1, [ONE, TWO], home=1)
    pond.play(
        (StopRequested(), [TellClosing(ANN), EndRenderer(ANN, ""), spill]),
        (ResultsKept(1), [Finish()]),
    )


def test_a_stop_before_the_start_ends_at_once() -> None:
    slots = SlotTable(1, want=[[0]], ack=[[0, 0]])
    supervisor = Supervisor(slots, slot_bytes=1, loggers=[LoggerSpec("csv")], chance=lambda: 0.5)
    assert supervisor.handle(StopRequested(), 0.0) == [Finish()]


def test_exit_when_done_waits_for_the_last_release() -> None:
    pond = Pond(slots=2, exit_when_done=True).ready(CSV)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (ResultsPublished(ANN, [ONE]), [published(ONE), SendJobs(CSV, [ONE]), grant((1, 1))]),
        (RendererLeft(ANN), []),
    )
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), CloseLogger(CSV)]
    pond.play((LoggerExited(CSV, "exit(0)"), [Finish()]))


def test_exit_when_done_does_not_wait_for_results_that_never_come() -> None:
    """The renderer failed before its first one: nobody should have to find that out."""
    pond = Pond(slots=2, exit_when_done=True).ready(CSV)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (RendererLeft(ANN), [CloseLogger(CSV)]),
        (LoggerExited(CSV, "exit(0)"), [Finish()]),
    )


def test_exit_when_done_does_not_wait_for_a_logger_that_was_given_up() -> None:
    pond = full_pond(intensity=0, exit_when_done=True)
    pond.tell(LoggerExited(CSV, SEGV))
    spill = SpillResults(CSV, 1, [ONE, TWO], home=1)
    pond.play((RendererLeft(ANN), [spill]), (ResultsKept(1), [Finish()]))


def test_exit_when_done_waits_for_what_an_earlier_daemon_left() -> None:
    pond = Pond(slots=2, exit_when_done=True, recovered=[1]).ready(CSV)
    pond.tell(RendererJoined(ANN, 9))
    pond.play((RendererLeft(ANN), []))
    old = result(renderer=7)
    pond.play((ResultsReplayed(CSV, 0, [old], []), [SendJobs(CSV, [old])]))
    assert pond.release(CSV, old) == [delivered(CSV, old), CloseLogger(CSV)]
