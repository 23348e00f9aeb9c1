"""What the supervisor promises, as scripts of events and commands.

Any order of events is tried in `test_supervisor_machine.py`; here are the stories.
"""

import pytest
from supervisor_pond import ANN, BEN, CSV, JSON, ONE, SEGV, TWO, Pond, full_pond, grant, result

from millpond.core.commands import (
    CloseLogger,
    EndRenderer,
    Finish,
    KillLogger,
    ReportDead,
    ReportExit,
    ReportReady,
    SendJobs,
    SpawnLogger,
    TellClosing,
    TellHolders,
)
from millpond.core.events import (
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    RendererJoined,
    RendererLeft,
    ResultsPublished,
    SlotsReturned,
    SlotWanted,
    StopNow,
    StopRequested,
    TimePassed,
)
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerSpec
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

# The way of a result.


def test_a_result_goes_to_every_logger_and_its_slot_is_free_after_the_last() -> None:
    pond = Pond(loggers=2).ready(CSV, JSON)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (ResultsPublished(ANN, [ONE]), [SendJobs(CSV, [ONE]), SendJobs(JSON, [ONE])]),
    )
    assert pond.release(JSON, ONE) == []
    assert pond.release(CSV, ONE) == [grant((0, 2))]
    assert pond.supervisor.results_count == 1


def test_a_logger_gets_nothing_before_it_is_ready() -> None:
    pond = full_pond()
    pond.play(
        (LoggerReady(CSV), [ReportReady(CSV), SendJobs(CSV, [ONE, TWO])]),
        (LoggerReady(CSV), []),  # It says so twice.
    )


def test_a_window_of_one_sends_the_next_result_after_each_release() -> None:
    pond = full_pond(window=1)
    pond.play((LoggerReady(CSV), [ReportReady(CSV), SendJobs(CSV, [ONE])]))
    assert pond.release(CSV, ONE) == [SendJobs(CSV, [TWO]), grant((0, 2))]


def test_a_renderer_that_waits_is_told_for_whom() -> None:
    pond = full_pond()
    pond.ready(CSV).now_s = 2.5
    text = "2 of 2 held by logger 'csv' (pid 4711), oldest 2.5 s, result 000001"
    pond.play((SlotWanted(ANN), [TellHolders(ANN, text)]))
    assert pond.release(CSV, TWO) == [grant((1, 2))]


def test_a_slot_that_is_given_back_goes_to_the_one_who_waits() -> None:
    pond = Pond()
    held_by_ann = "1 of 1 held by renderer (pid 9)"
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (RendererJoined(BEN, 8), []),
        (SlotWanted(BEN), [TellHolders(BEN, held_by_ann)]),
        (SlotsReturned(ANN, [SlotRef(0, 1)]), [grant((0, 2), renderer=BEN)]),
        (RendererLeft(BEN), [grant((0, 3))]),
        (RendererLeft(BEN), []),
    )


# Renderers that do wrong.


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (result(slot=5, sequence=2), "published slot 5 (use 1), which it may not write into"),
        (result(sequence=2), "published slot 0 (use 1), which it may not write into"),
        (result(slot=1, sequence=3), "sent sequence 3 after 1"),
    ],
)
def test_a_wrong_result_ends_its_renderer_and_what_came_before_it_counts(wrong, problem) -> None:
    pond = Pond(slots=8).ready(CSV)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1), (1, 1))]),
        (ResultsPublished(ANN, [ONE, wrong]), [SendJobs(CSV, [ONE]), EndRenderer(ANN, problem)]),
    )


def test_a_renderer_that_was_ended_is_not_heard_and_gets_nothing_until_it_has_left() -> None:
    pond = Pond(slots=8)
    pond.play((RendererJoined(ANN, 9), [grant((0, 1), (1, 1))]))
    problem = "returned slot 0 (use 7), which it does not have"
    pond.play(
        (SlotsReturned(ANN, [SlotRef(0, 7)]), [EndRenderer(ANN, problem)]),
        (ResultsPublished(ANN, [ONE]), []),
        (SlotsReturned(ANN, [SlotRef(0, 1)]), []),
        (SlotWanted(ANN), []),
    )
    assert pond.supervisor.slots.free_count == 6
    pond.play((RendererLeft(ANN), []))
    assert pond.supervisor.slots.free_count == 8


def test_what_was_returned_before_a_fault_goes_to_the_one_who_waits() -> None:
    pond = Pond()
    pond.tell(RendererJoined(ANN, 9))
    pond.tell(RendererJoined(BEN, 8))
    pond.tell(SlotWanted(BEN))
    first = SlotRef(0, 1)
    problem = "returned slot 0 (use 1), which it does not have"
    pond.play(
        (
            SlotsReturned(ANN, [first, first]),
            [EndRenderer(ANN, problem), grant((0, 2), renderer=BEN)],
        )
    )


# Loggers that fail.


def test_a_crash_gives_the_slots_back_before_the_restart() -> None:
    """If the crash kept them, the renderer would wait for the restart."""
    pond = full_pond().ready(CSV)
    pond.tell(SlotWanted(ANN))
    dead = ReportDead(CSV, [ONE, TWO], SEGV, "")
    exited = ReportExit(CSV, SEGV, 0.1, is_fatal=False)
    pond.play((LoggerExited(CSV, SEGV), [dead, exited, grant((1, 2))]))
    assert pond.wake() == [SpawnLogger(CSV)]
    assert pond.now_s == 0.1


def test_what_was_released_before_the_death_is_delivered_and_the_queue_lives() -> None:
    """Nobody rang; and what was never sent does not die with the one it was not sent to."""
    pond = full_pond(window=1).ready(CSV)
    pond.acks[CSV][ONE.slot] = ONE.generation
    exited = ReportExit(CSV, SEGV, 0.1, is_fatal=False)
    pond.play((LoggerExited(CSV, SEGV), [exited, grant((0, 2))]))
    assert pond.supervisor.loggers[CSV].deliveries.delivered == 1
    pond.wake()
    pond.play((LoggerReady(CSV), [ReportReady(CSV), SendJobs(CSV, [TWO])]))


def test_a_late_release_of_a_dead_logger_does_no_harm() -> None:
    """By a helper that outlived it, say; the word names a use that is over."""
    pond = full_pond().ready(CSV)
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.release(CSV, ONE, TWO) == []
    again = result(slot=1, generation=2, sequence=3)
    pond.tell(ResultsPublished(ANN, [again]))
    pond.wake()
    pond.ready(CSV)
    assert pond.release(CSV, TWO) == []
    assert pond.supervisor.loggers[CSV].deliveries.window == [again]
    pond.release(CSV, again)
    assert pond.supervisor.loggers[CSV].deliveries.delivered == 1


def test_an_exception_costs_one_result_and_not_the_logger() -> None:
    pond = full_pond(window=1).ready(CSV)
    text = "Traceback ...\nValueError: no picture\n"
    blame = LoggerRaised(CSV, 0, 1, text)
    dead = ReportDead(CSV, [ONE], "exception", text)
    pond.play((blame, [dead, SendJobs(CSV, [TWO]), grant((0, 2))]), (blame, []))
    assert pond.supervisor.loggers[CSV].statistics()["last_error"] == "ValueError: no picture"


def test_a_renderer_does_not_wait_for_a_logger_that_is_down() -> None:
    """What waits for it is given up for the reason of its end; only as much as is needed."""
    pond = full_pond()
    pond.play(
        (LoggerFailed(CSV, "No module named 'x'"), []),
        (LoggerExited(CSV, "exit(1)"), [ReportExit(CSV, "exit(1)", 0.1, is_fatal=False)]),
        (
            SlotWanted(ANN),
            [
                ReportDead(CSV, [ONE], "exit(1)", "it is down: No module named 'x'"),
                grant((0, 2)),
            ],
        ),
    )


def test_the_last_living_holder_lets_go_for_those_that_are_down() -> None:
    """The slot that CSV releases is still wanted by JSON, which is down: it is shed."""
    pond = full_pond(loggers=2).ready(CSV)
    pond.tell(LoggerExited(JSON, SEGV))
    assert isinstance(pond.tell(SlotWanted(ANN))[-1], TellHolders)
    dead = ReportDead(JSON, [ONE], SEGV, f"it is down: {SEGV}")
    assert pond.release(CSV, ONE) == [dead, grant((0, 2))]
    assert pond.release(CSV, TWO) == []  # Nobody waits any more.


def test_a_logger_that_was_given_up_is_disabled_and_tried_again_later() -> None:
    pond = full_pond(intensity=0)
    pond.play(
        (LoggerExited(CSV, SEGV), [ReportExit(CSV, SEGV, 300.0, is_fatal=True)]),
        (
            SlotWanted(ANN),
            [ReportDead(CSV, [ONE], "disabled", f"it is down: {SEGV}"), grant((0, 2))],
        ),
    )
    assert pond.wake() == [SpawnLogger(CSV)]
    assert pond.now_s == 300.0


def test_a_logger_that_is_not_ready_in_time_is_killed_and_not_heard_any_more() -> None:
    pond = full_pond()
    assert pond.wake() == [KillLogger(CSV, "not ready within 60 s")]
    pond.play(
        (LoggerReady(CSV), []),  # It was in the pipe already.
        (
            LoggerExited(CSV, "crash(SIGKILL)"),
            [ReportExit(CSV, "crash(SIGKILL)", 0.1, is_fatal=False)],
        ),
    )
    assert pond.supervisor.loggers[CSV].last_error == "not ready within 60 s"


def test_the_reason_of_a_failed_start_outlives_the_kill() -> None:
    pond = Pond()
    pond.tell(LoggerFailed(CSV, "ImportError: no"))
    pond.wake()
    pond.tell(LoggerExited(CSV, "crash(SIGKILL)"))
    assert pond.supervisor.loggers[CSV].last_error == "ImportError: no"


# The end.


def test_a_stop_drains_and_ends_the_loggers_in_reverse_order() -> None:
    pond = full_pond(loggers=2).ready(CSV, JSON)
    pond.play((StopRequested(), [TellClosing(ANN)]), (StopRequested(), []))
    pond.play((SlotWanted(ANN), [TellClosing(ANN)]), (RendererJoined(BEN, 8), [TellClosing(BEN)]))
    assert pond.release(CSV, ONE, TWO) == []
    assert pond.release(JSON, ONE, TWO) == [
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


def test_what_is_not_drained_in_time_gets_its_outcome() -> None:
    """What a logger has it may finish; what it was not sent it will not get."""
    pond = full_pond(window=1).ready(CSV)
    pond.tell(StopRequested())
    dead = ReportDead(CSV, [TWO], "shutdown", "")
    assert pond.wake() == [EndRenderer(ANN, ""), dead, CloseLogger(CSV)]
    assert pond.now_s == 10.0
    assert pond.wake() == [KillLogger(CSV, "did not end within 5 s")]
    assert pond.now_s == 15.0
    dead = ReportDead(CSV, [ONE], "shutdown", "it ended: crash(SIGKILL)")
    exited = ReportExit(CSV, "crash(SIGKILL)", None, is_fatal=False)
    pond.play((LoggerExited(CSV, "crash(SIGKILL)"), [dead, exited, Finish()]))


def test_what_a_closed_logger_still_releases_is_delivered() -> None:
    pond = full_pond().ready(CSV)
    pond.tell(StopRequested())
    pond.wake()
    assert pond.release(CSV, ONE) == []
    pond.acks[CSV][TWO.slot] = TWO.generation
    pond.play((LoggerExited(CSV, "exit(0)"), [Finish()]))
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
    lost = ReportDead(CSV, [ONE], SEGV, "")
    pond.play((LoggerExited(CSV, SEGV), [lost, ReportExit(CSV, SEGV, 0.1, is_fatal=False)]))
    assert pond.wake() == [EndRenderer(ANN, ""), ReportDead(CSV, [TWO], "shutdown", SEGV), Finish()]
    assert pond.now_s == 10.0


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
    """Also twice.  Whatever it was not given gets its outcome, once."""
    pond = in_state(state)
    commands = pond.tell(StopNow())
    assert (KillLogger(CSV, "the daemon ends now") in commands) == (state in WITH_PROCESS)
    assert (Finish() in commands) == (state not in WITH_PROCESS)
    again = pond.tell(StopNow())
    assert again == ([KillLogger(CSV, "the daemon ends now")] if state in WITH_PROCESS else [])
    pond.play((LoggerReady(CSV), []), (StopRequested(), []))
    if state in WITH_PROCESS:
        assert pond.tell(LoggerExited(CSV, "crash(SIGKILL)"))[-1] == Finish()
    record = pond.supervisor.loggers[CSV]
    assert record.state is State.STOPPED
    assert record.deliveries.dead == 2
    assert pond.supervisor.wake_at_s is None


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.BACKOFF])
def test_a_stop_waits_for_a_logger_that_may_still_get_its_results(state) -> None:
    pond = in_state(state)
    pond.play((StopRequested(), [TellClosing(ANN)]))
    if state is State.BACKOFF:
        assert pond.wake() == [SpawnLogger(CSV)]
    if state is not State.RUNNING:
        pond.ready(CSV)
    assert pond.release(CSV, ONE, TWO) == [EndRenderer(ANN, ""), CloseLogger(CSV)]


def test_a_stop_does_not_wait_for_a_logger_that_was_given_up() -> None:
    pond = in_state(State.FATAL)
    dead = ReportDead(CSV, [ONE, TWO], "disabled", SEGV)
    pond.play((StopRequested(), [TellClosing(ANN), EndRenderer(ANN, ""), dead, Finish()]))


def test_a_stop_before_the_start_ends_at_once() -> None:
    slots = SlotTable(1, want=[[0]], ack=[[0]])
    supervisor = Supervisor(slots, slot_bytes=1, loggers=[LoggerSpec("csv")], chance=lambda: 0.5)
    assert supervisor.handle(StopRequested(), 0.0) == [Finish()]


def test_exit_when_done_waits_for_the_last_release() -> None:
    pond = Pond(slots=2, exit_when_done=True).ready(CSV)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (ResultsPublished(ANN, [result()]), [SendJobs(CSV, [result()]), grant((1, 1))]),
        (RendererLeft(ANN), []),
    )
    assert pond.release(CSV, result()) == [CloseLogger(CSV)]
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
    dead = ReportDead(CSV, [ONE, TWO], "disabled", SEGV)
    pond.play((RendererLeft(ANN), [dead, Finish()]))


def test_a_bug_of_ours_is_an_assertion() -> None:
    with pytest.raises(AssertionError):
        Pond().tell("an event that does not exist")


def test_a_pause_of_the_machine_is_nobodys_fault() -> None:
    """The deadline was missed by us: it begins anew, once."""
    pond = Pond()
    pond.now_s = 60.0 + 500.0
    assert pond.tell(TimePassed()) == []
    assert pond.supervisor.wake_at_s == 560.0 + 60.0
    assert pond.wake() == [KillLogger(CSV, "not ready within 60 s")]
