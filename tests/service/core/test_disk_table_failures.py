"""A disk that fails, is full, or is silent, told as scripts of events and commands.

It must not hold slots, and no more is dead by it than must be.
"""

from __future__ import annotations

import pytest
from supervisor_pond import (
    ANN,
    CSV,
    JSON,
    ONE,
    SEGV,
    SPILL,
    TWO,
    Pond,
    broken_pond,
    delivered,
    full_pond,
    grant,
    replay,
    result,
    spill,
    told,
)

from millpond.core.commands import (
    BuryResults,
    CancelKeeping,
    GrantSlots,
    ReportDead,
    ReportExit,
    ReportReady,
    SendJobs,
)
from millpond.core.disk_table import BATCH_BYTES, PROBE_S, RECOVERED
from millpond.core.events import (
    KeepingFailed,
    LoggerExited,
    LoggerRaised,
    LoggerReady,
    RendererJoined,
    ResultsKept,
    ResultsPublished,
    ResultsReplayed,
    SlotWanted,
    StopNow,
    TimePassed,
)

THREE = result(slot=1, generation=2, sequence=3)
SILENT = "the disk did not take it within 5 s"
STUCK = "the disk does not answer"
ENOSPC = 28


def test_what_the_disk_does_not_take_of_a_broken_logger_is_dead() -> None:
    """A renderer does not wait for one that is down."""
    pond = broken_pond()
    pond.tell(SlotWanted(ANN))
    dead = ReportDead(CSV, [TWO], "spill_full", "no space")
    pond.play((KeepingFailed(1, "no space"), [dead, grant((1, 2))]), (ResultsKept(1), []))


def test_a_silent_disk_does_not_hold_slots_of_a_broken_logger() -> None:
    pond = broken_pond(intensity=0)
    pond.tell(SlotWanted(ANN))
    dead = ReportDead(CSV, [TWO], "spill_full", "the disk did not take it within 5 s")
    assert pond.wake() == [CancelKeeping(1), dead, grant((1, 2))]
    assert pond.now_s == 5.0
    pond.play((ResultsKept(1), []), (KeepingFailed(1, "late"), []))


def test_a_pause_of_the_machine_is_not_the_fault_of_the_disk() -> None:
    pond = broken_pond(intensity=0)
    pond.tell(SlotWanted(ANN))
    pond.now_s = 60.0
    assert pond.tell(TimePassed()) == []
    assert pond.supervisor.wake_at_s == 65.0
    pond.play((ResultsKept(1), [grant((1, 2))]))


def suspended_pond() -> Pond:
    """A logger whose disk failed has one result in its hands no more, and one that waits."""
    pond = full_pond(window=1).ready(CSV)
    pond.tell(LoggerRaised(CSV, 0, 1, "OSError: no space", ENOSPC))
    return pond


def test_a_result_for_a_logger_that_waits_for_a_disk_is_kept_in_its_slot_if_the_spill_fails() -> (
    None
):
    """Both lie on one disk, perhaps: the renderers may wait for a moment, and nothing is lost."""
    pond = suspended_pond()
    commands = pond.tell(SlotWanted(ANN))
    assert commands[0] == spill(TWO)
    pond.now_s = 1.0
    pond.play((KeepingFailed(1, "no space"), []))
    assert told(pond.tell(SlotWanted(ANN)))
    assert pond.wake() == [SendJobs(CSV, [ONE])]  # The logger is tried first.
    assert pond.now_s == PROBE_S
    pond.tell(LoggerRaised(CSV, 0, 1, "OSError: no space", ENOSPC))
    assert pond.wake() == [spill(TWO, token=2)]
    assert pond.now_s == 1.0 + PROBE_S


def test_what_a_failed_disk_gave_back_may_be_spilled_itself() -> None:
    """It need not hold slots until the logger is tried again."""
    pond = full_pond().ready(CSV)
    for one in (ONE, TWO):
        pond.tell(LoggerRaised(CSV, one.slot, 1, "OSError: no space", ENOSPC))
    commands = pond.tell(SlotWanted(ANN))
    assert commands[0] == spill(TWO)


def test_a_crash_ends_the_rest_of_a_spill_that_failed() -> None:
    """It is broken now: the renderer must not wait until that rest is over, or the restart."""
    pond = suspended_pond()
    pond.tell(SlotWanted(ANN))
    pond.tell(KeepingFailed(1, "no space"))
    commands = pond.tell(LoggerExited(CSV, SEGV))
    assert commands == [ReportExit(CSV, SEGV, 0.1, is_fatal=False), spill(TWO, token=2)]


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_is_put_back_for_a_running_logger_is_sent(is_answered) -> None:
    """Nothing else may happen that would send it."""
    pond = broken_pond()
    pond.tell(SlotWanted(ANN))
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), grant((0, 2))]
    if is_answered:
        pond.play((KeepingFailed(1, "no space"), [SendJobs(CSV, [TWO])]))
    else:
        assert pond.wake() == [CancelKeeping(1), SendJobs(CSV, [TWO])]
        assert pond.now_s == 5.0


def test_what_stands_behind_the_disk_is_dead_when_the_disk_takes_nothing_more() -> None:
    """It would keep the slots by which the others come back."""
    pond = Pond(recovered=[1])
    pond.tell(RendererJoined(ANN, 9))
    pond.tell(ResultsPublished(ANN, [ONE]))
    pond.play(
        (LoggerReady(CSV), [ReportReady(CSV), spill(ONE, home=RECOVERED)]),
        (
            KeepingFailed(1, "no space"),
            [ReportDead(CSV, [ONE], "spill_full", "no space"), replay((0, 2), token=RECOVERED)],
        ),
    )


def test_a_slot_that_others_need_is_not_one_that_comes_free() -> None:
    """The disk is busy with a dead result, but the renderer would not get its slot."""
    pond = full_pond(loggers=2).ready(CSV, JSON)
    pond.release(CSV, TWO)
    for token in (0, 0, 1):
        commands = pond.crash(JSON, ONE)
        assert any(isinstance(command, BuryResults) for command in commands) == bool(token)
        if not token:
            pond.come_back(JSON)
    assert pond.tell(SlotWanted(ANN))[0] == spill(TWO, token=2, logger=JSON)


def test_what_stands_behind_the_disk_goes_back_to_its_place_while_it_is_in_nobodys_way() -> None:
    """The logger went on meanwhile, and the renderers may wait for it: nothing is lost."""
    pond = broken_pond()
    pond.tell(SlotWanted(ANN))
    pond.tell(ResultsKept(1))
    pond.tell(ResultsPublished(ANN, [THREE]))
    assert pond.tell(SlotWanted(ANN))[0] == spill(THREE, token=2, home=1)
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    pond.play((KeepingFailed(2, "no space"), []))
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), replay((0, 2))]
    again = TWO._replace(slot=0, generation=2)
    pond.tell(ResultsReplayed(CSV, 1, [again], []))
    assert pond.release(CSV, again)[:2] == [delivered(CSV, again), SendJobs(CSV, [THREE])]


def test_nothing_of_a_healthy_logger_is_dead_because_the_renderers_do_not_wait_for_it() -> None:
    """It is not through with what is on the disk.  They wait while the disk takes nothing more."""
    pond = broken_pond()
    pond.tell(SlotWanted(ANN))
    pond.tell(ResultsKept(1))
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    pond.tell(ResultsPublished(ANN, [THREE]))
    assert pond.tell(SlotWanted(ANN))[0] == spill(THREE, token=2, home=1)
    pond.play((KeepingFailed(2, "no space"), []))
    assert told(pond.tell(SlotWanted(ANN)))
    failed_s = pond.now_s
    assert pond.wake() == [spill(THREE, token=3, home=1)]
    assert pond.now_s == failed_s + PROBE_S


# A disk that is silent.


def test_a_disk_that_makes_progress_has_its_time_anew() -> None:
    """However much it was given at once."""
    pond = broken_pond(intensity=0, slot_bytes=BATCH_BYTES)
    pond.tell(StopNow())
    assert pond.supervisor.wake_at_s == 5.0
    pond.now_s = 4.0
    pond.play((ResultsKept(1), []))
    cancelled, dead, _ = pond.wake()
    assert pond.now_s == 9.0
    assert (cancelled, dead) == (CancelKeeping(2), ReportDead(CSV, [TWO], "spill_full", SILENT))


def test_all_that_a_silent_disk_was_given_is_given_up_together() -> None:
    """What was asked for last stands behind the rest: it would only wait once more."""
    pond = full_pond(loggers=2, intensity=0, policies=[{}, SPILL]).ready(CSV)
    pond.tell(LoggerExited(CSV, SEGV))
    both = [spill(TWO), spill(TWO, token=2, logger=JSON)]
    assert pond.tell(SlotWanted(ANN))[:2] == both
    assert pond.wake() == [
        CancelKeeping(1),
        ReportDead(CSV, [TWO], "spill_full", SILENT),
        CancelKeeping(2),
        ReportDead(JSON, [TWO], "spill_full", SILENT),
        grant((1, 2)),
    ]
    assert pond.now_s == 5.0


def stuck_pond() -> Pond:
    """A disk that was given up holds nothing more; a renderer has one slot, and CSV is down."""
    pond = broken_pond(intensity=0)
    pond.tell(SlotWanted(ANN))
    assert pond.wake()[0] == CancelKeeping(1)
    pond.tell(ResultsPublished(ANN, [THREE]))
    return pond


def test_nothing_waits_for_a_stuck_disk() -> None:
    """The renderer would wait for its deadline each time."""
    pond = stuck_pond()
    dead = ReportDead(CSV, [THREE], "spill_full", STUCK)
    pond.play((SlotWanted(ANN), [dead, grant((1, 3))]))


@pytest.mark.parametrize("answer", [ResultsKept(1), KeepingFailed(1, "late")])
def test_any_answer_ends_that(answer) -> None:
    pond = stuck_pond()
    pond.play((answer, []))
    assert pond.tell(SlotWanted(ANN))[0] == spill(THREE, token=2)


def test_no_result_is_dead_ahead_of_need() -> None:
    """A stuck disk may come back before anybody waits."""
    pond = Pond(slots=8, policies=[SPILL])
    (granted,) = pond.tell(RendererJoined(ANN, 9))
    refs, sequence, problems = granted.slots, 0, []
    while refs:
        sequence += 1
        ref = refs.pop(0)
        one = result(slot=ref.slot, generation=ref.generation, sequence=sequence)
        commands = pond.tell(ResultsPublished(ANN, [one]))
        if spill(one) in commands:
            commands += pond.wake()
        problems += [c.problem for c in commands if isinstance(c, ReportDead)]
        refs += [ref for c in commands if isinstance(c, GrantSlots) for ref in c.slots]
    assert pond.supervisor.slots.free_count == 0
    assert problems == [SILENT]
    assert pond.tell(SlotWanted(ANN))[0].problem == STUCK


def test_a_stuck_disk_takes_nothing_from_a_healthy_logger() -> None:
    """It starves and a renderer waits, but what left its slot now would be dead."""
    pond = full_pond(intensity=0, recovered=[1])
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.tell(SlotWanted(ANN))[0] == spill(ONE, home=RECOVERED)
    assert pond.wake()[0] == CancelKeeping(1)
    newest = result(slot=0, generation=2, sequence=3)
    pond.tell(ResultsPublished(ANN, [newest]))
    assert pond.come_back(CSV) == []
    assert told(pond.tell(SlotWanted(ANN)))
    assert pond.tell(ResultsKept(1)) == [
        spill(TWO, token=2, home=RECOVERED),
        spill(newest, token=3, home=RECOVERED),
    ]


def test_what_a_silent_disk_has_of_one_that_starves_is_dead() -> None:
    """It is in the way of what comes before it, as when the disk says no."""
    pond = Pond(recovered=[1])
    pond.tell(RendererJoined(ANN, 9))
    pond.tell(ResultsPublished(ANN, [ONE]))
    assert pond.tell(LoggerReady(CSV)) == [ReportReady(CSV), spill(ONE, home=RECOVERED)]
    assert pond.wake() == [
        CancelKeeping(1),
        ReportDead(CSV, [ONE], "spill_full", SILENT),
        replay((0, 2), token=RECOVERED),
    ]
