"""Results leave the slots for the disk and come back, told as scripts of events and commands.

The renderer waits, the logger is down, slow or behind: who gives his slots, and what becomes of
the results when the disk fails, is silent, or gives back something damaged.
"""

from __future__ import annotations

import pytest
from supervisor_pond import (
    ANN,
    BEN,
    CSV,
    DROP,
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
    published,
    replay,
    result,
    spill,
    told,
)

from millpond.core.commands import (
    EndRenderer,
    Finish,
    ReportDead,
    ReportReady,
    SendJobs,
    SpillResults,
    TellHolders,
)
from millpond.core.disk_table import BATCH_BYTES, RECOVERED
from millpond.core.events import (
    LoggerExited,
    LoggerReady,
    RendererJoined,
    ResultsKept,
    ResultsPublished,
    ResultsReplayed,
    SlotsReturned,
    SlotWanted,
    StopNow,
    StopRequested,
    TimePassed,
)
from millpond.core.slots import SlotRef

THREE = result(slot=1, generation=2, sequence=3)
FOUR = result(slot=1, generation=3, sequence=4)


# Out of the slots.


def test_a_crash_gives_the_slots_to_the_renderer_as_soon_as_the_disk_has_the_results() -> None:
    """Not before, and without waiting for the restart; only as much as is needed."""
    pond = broken_pond()
    commands = pond.tell(SlotWanted(ANN))
    assert commands[0] == spill(TWO)  # The newest: the oldest is needed first.
    assert told(commands[1:])
    pond.play((ResultsKept(1), [grant((1, 2))]))
    assert pond.supervisor.loggers[CSV].statistics()["spilled"] == 1


def test_it_is_not_spilled_twice_while_the_disk_is_busy() -> None:
    pond = broken_pond()
    pond.tell(SlotWanted(ANN))
    assert told(pond.tell(SlotWanted(ANN)))


def test_ahead_of_need_it_is_spilled_when_few_slots_are_free() -> None:
    """Below a quarter; nobody waits yet."""
    pond = Pond(slots=8, policies=[SPILL])
    pond.play((RendererJoined(ANN, 9), [grant((0, 1), (1, 1))]))
    sequence, spilled = 0, []
    while not spilled:
        is_low = pond.supervisor.slots.free_count < 8 // 4
        one = result(slot=sequence, sequence=sequence + 1)
        sequence += 1
        commands = pond.tell(ResultsPublished(ANN, [one]))
        spilled = [command for command in commands if isinstance(command, SpillResults)]
        assert bool(spilled) == is_low
    assert spilled == [spill(one)]  # The newest, and no more than is missing.


@pytest.mark.parametrize(
    ("policy", "is_down", "expected"),
    [
        ({}, False, None),
        (SPILL, False, spill(TWO)),
        (DROP, False, ReportDead(CSV, [TWO], "dropped", "")),
        ({}, True, spill(TWO)),
        (DROP, True, spill(TWO)),
        ({"on_crash": "drop"}, True, ReportDead(CSV, [TWO], SEGV, f"it is down: {SEGV}")),
    ],
)
def test_what_happens_to_what_waits_when_a_renderer_does(policy, is_down, expected) -> None:
    """It is in nobody's window: a logger that was never ready, or one that went down before."""
    pond = full_pond(policies=[policy])
    if is_down:
        pond.tell(LoggerExited(CSV, SEGV))
    commands = pond.tell(SlotWanted(ANN))
    if expected is None:
        assert told(commands)
    else:
        assert commands[0] == expected


def test_a_window_is_never_taken() -> None:
    """The logger reads there."""
    pond = full_pond(policies=[SPILL], window=2).ready(CSV)
    assert told(pond.tell(SlotWanted(ANN)))


def test_a_slot_that_another_logger_still_needs_is_not_worth_it() -> None:
    """CSV would lose its place in the slots, and the renderer would get nothing."""
    pond = full_pond(loggers=2, policies=[SPILL, {}]).ready(JSON)
    assert told(pond.tell(SlotWanted(ANN)))
    assert pond.release(JSON, ONE) == [delivered(JSON, ONE), spill(ONE)]


def test_one_result_is_dropped_by_one_logger_and_spilled_for_the_other() -> None:
    pond = full_pond(loggers=2, policies=[DROP, SPILL])
    commands = pond.tell(SlotWanted(ANN))
    assert commands[:2] == [ReportDead(CSV, [TWO], "dropped", ""), spill(TWO, logger=JSON)]
    pond.play((ResultsKept(1), [grant((1, 2))]))


def test_a_row_is_written_in_parts_so_that_a_slow_disk_is_seen_to_make_progress() -> None:
    """The second finds its place behind the first."""
    pond = broken_pond(slot_bytes=BATCH_BYTES)
    pond.play((StopNow(), [EndRenderer(ANN, ""), spill(ONE), spill(TWO, token=2, home=1)]))


def test_a_renderer_that_waits_for_the_disk_is_told_so() -> None:
    pond = broken_pond()
    commands = pond.tell(SlotWanted(ANN))
    text = (
        "1 of 2 held by logger 'csv' (backoff), oldest 0.0 s, result 000001; "
        "1 of 2 held by the disk, which writes or reads them"
    )
    assert commands[1:] == [TellHolders(ANN, text)]


# And back.


def spilled_pond(**options) -> Pond:
    """The disk has the second of two results; the renderer has its slot."""
    pond = broken_pond(**options)
    pond.tell(SlotWanted(ANN))
    pond.tell(ResultsKept(1))
    return pond


def test_what_is_on_the_disk_comes_back_in_its_turn_through_an_ordinary_slot() -> None:
    pond = spilled_pond()
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), replay((0, 2))]
    again = TWO._replace(slot=0, generation=2)
    pond.play((ResultsReplayed(CSV, 1, [again], []), [SendJobs(CSV, [again])]))
    assert pond.release(CSV, again)[0] == delivered(CSV, again)
    statistics = pond.supervisor.loggers[CSV].statistics()
    assert (statistics["delivered"], statistics["spilled"], statistics["dead"]) == (2, 0, 0)


def test_what_is_published_meanwhile_waits_behind_it() -> None:
    pond = spilled_pond()
    pond.come_back(CSV)
    pond.play((ResultsPublished(ANN, [THREE]), [published(THREE)]))
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), replay((0, 2))]
    again = TWO._replace(slot=0, generation=2)
    pond.play((ResultsReplayed(CSV, 1, [again], []), [SendJobs(CSV, [again])]))
    assert pond.release(CSV, again)[:2] == [delivered(CSV, again), SendJobs(CSV, [THREE])]


def test_a_result_that_cannot_be_read_is_dead_and_the_next_one_goes_on() -> None:
    pond = spilled_pond()
    pond.come_back(CSV)
    pond.tell(ResultsPublished(ANN, [THREE]))
    pond.release(CSV, ONE)
    lost = TWO._replace(slot=0, generation=2)
    dead = ReportDead(CSV, [lost], "spill_corrupt", "its record on the disk is damaged")
    commands = pond.tell(ResultsReplayed(CSV, 1, [], [lost]))
    assert commands[:2] == [dead, SendJobs(CSV, [THREE])]


def behind_pond(**options) -> Pond:
    """The logger is healthy, but not through with what is on the disk; a renderer waits."""
    pond = spilled_pond(**options)
    pond.come_back(CSV)
    pond.tell(ResultsPublished(ANN, [THREE]))
    assert pond.tell(SlotWanted(ANN))[0] == spill(THREE, token=2, home=1)
    return pond


def test_the_renderers_do_not_wait_for_what_stands_behind_others_on_the_disk() -> None:
    """It cannot be sent before those, even if the operator has said `when_full: block`."""
    pond = behind_pond()
    pond.play((ResultsKept(2), [grant((1, 3))]))
    assert pond.supervisor.loggers[CSV].statistics()["spilled"] == 2


def test_they_wait_again_for_a_logger_that_has_caught_up() -> None:
    pond = behind_pond(window=1)
    pond.tell(ResultsKept(2))
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), replay((0, 2))]
    second = TWO._replace(slot=0, generation=2)
    pond.tell(ResultsReplayed(CSV, 1, [second], []))
    assert pond.release(CSV, second) == [delivered(CSV, second), replay((0, 3))]
    third = THREE._replace(slot=0, generation=3)
    pond.play(
        (ResultsReplayed(CSV, 1, [third], []), [SendJobs(CSV, [third])]),
        (ResultsPublished(ANN, [FOUR]), [published(FOUR)]),
    )
    assert told(pond.tell(SlotWanted(ANN)))
    assert pond.release(CSV, third)[:2] == [delivered(CSV, third), SendJobs(CSV, [FOUR])]


def test_what_stands_behind_the_disk_leaves_before_what_stands_in_front_of_it() -> None:
    """So the logger goes on from its slots.  But the renderers wait for neither."""
    pond = Pond(slots=3, window=1).ready(CSV)
    pond.tell(RendererJoined(ANN, 9))
    three = [result(slot=slot, sequence=slot + 1) for slot in range(3)]
    for one in three:
        pond.tell(ResultsPublished(ANN, [one]))
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.tell(SlotWanted(ANN))[0] == spill(three[2])
    pond.play((ResultsKept(1), [grant((2, 2))]))
    assert pond.come_back(CSV) == [SendJobs(CSV, three[:1])]
    newest = result(slot=2, generation=2, sequence=4)
    pond.tell(ResultsPublished(ANN, [newest]))
    assert pond.tell(SlotWanted(ANN))[0] == spill(newest, token=2, home=1)
    pond.tell(RendererJoined(BEN, 8))
    assert pond.tell(SlotWanted(BEN))[0] == spill(three[1], token=3)


def test_what_follows_on_the_disk_is_found_behind_what_is_there() -> None:
    """So that it makes one row with it, and is read back as one."""
    pond = spilled_pond()
    pond.tell(ResultsPublished(ANN, [THREE]))
    assert pond.tell(SlotWanted(ANN))[0] == spill(THREE, token=2, home=1)
    pond.tell(ResultsKept(2))
    pond.come_back(CSV)
    pond.release(CSV, ONE)
    again = TWO._replace(slot=0, generation=2)
    pond.tell(ResultsReplayed(CSV, 1, [again], []))
    pond.tell(SlotsReturned(ANN, [SlotRef(1, 3)]))
    assert pond.release(CSV, again) == [delivered(CSV, again), replay((0, 3))]


def starving_pond(**options) -> Pond:
    """A logger is ready; an earlier daemon left results for it, and two others fill the slots."""
    pond = Pond(slots=2, **options)
    pond.tell(RendererJoined(ANN, 9))
    pond.tell(ResultsPublished(ANN, [ONE]))
    pond.tell(ResultsPublished(ANN, [TWO]))
    return pond


def test_a_logger_that_cannot_read_back_takes_slots_from_those_who_wait_behind() -> None:
    """Else it would wait for a slot, and they for it.  It takes no more than it needs.

    The renderers may have the rest.
    """
    pond = starving_pond(recovered=[3])
    pond.play(
        (LoggerReady(CSV), [ReportReady(CSV), spill(ONE, home=RECOVERED)]),
        (ResultsKept(1), [replay((0, 2), token=RECOVERED)]),
    )
    assert pond.tell(SlotWanted(ANN))[0] == spill(TWO, token=2, home=RECOVERED)


@pytest.mark.parametrize("is_json_behind", [True, False])
def test_a_logger_gives_slots_to_one_that_starves_if_it_reads_back_itself(is_json_behind) -> None:
    """One that has all of its results in slots keeps them: it will go on."""
    pond = starving_pond(loggers=2, recovered=[1, int(is_json_behind)])
    both = [spill(ONE, home=RECOVERED), spill(ONE, token=2, home=RECOVERED, logger=JSON)]
    assert pond.tell(LoggerReady(CSV)) == [ReportReady(CSV), *(both if is_json_behind else [])]


def test_the_renderers_leave_some_slots_to_a_logger_that_reads_back() -> None:
    """So that its results come in rows, and not one by one."""
    pond = Pond(slots=8, window=8, recovered=[3]).ready(CSV)
    (granted,) = pond.tell(RendererJoined(ANN, 9))
    refs, sequence = granted.slots, 0
    while refs:
        sequence += 1
        one = result(slot=refs.pop(0).slot, sequence=sequence)
        for command in (*pond.tell(ResultsPublished(ANN, [one])), *pond.tell(SlotWanted(ANN))):
            refs += getattr(command, "slots", [])
    assert sequence == 6
    assert pond.supervisor.slots.free_count == 1
    assert told(pond.tell(SlotWanted(ANN)))
    again = result(renderer=7)
    commands = pond.tell(ResultsReplayed(CSV, RECOVERED, [again], []))
    assert commands[:2] == [SendJobs(CSV, [again]), replay((7, 1), token=RECOVERED)]


def test_no_more_is_dropped_than_those_need_who_wait() -> None:
    """One result for the renderer, and one for the logger that reads back."""
    pond = Pond(slots=4, loggers=2, policies=[DROP, {}], recovered=[1, 0]).ready(JSON)
    pond.tell(RendererJoined(ANN, 9))
    four = [result(slot=slot, sequence=slot + 1) for slot in range(4)]
    for one in four:
        pond.tell(ResultsPublished(ANN, [one]))
    assert told(pond.tell(SlotWanted(ANN)))
    pond.ready(CSV)
    assert pond.release(JSON, *four) == [
        delivered(JSON, *four),
        ReportDead(CSV, [ONE], "dropped", ""),
        ReportDead(CSV, [TWO], "dropped", ""),
        replay((1, 2), token=RECOVERED),
        grant((0, 2)),
    ]


def test_a_drop_for_a_logger_that_reads_back_gives_it_the_slot_at_once() -> None:
    """Nothing else may happen that would."""
    pond = full_pond(loggers=2, policies=[{}, DROP]).ready(CSV)
    pond.tell(LoggerExited(CSV, SEGV))
    pond.tell(SlotWanted(ANN))
    pond.play((ResultsKept(1), [grant((1, 2))]))
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.release(CSV, ONE) == [
        delivered(CSV, ONE),
        ReportDead(JSON, [ONE], "dropped", ""),
        replay((0, 2)),
    ]


def test_what_an_earlier_daemon_left_is_read_a_part_at_a_time() -> None:
    """An eighth of the slots: the renderers get the rest."""
    pond = Pond(slots=16, window=8, recovered=[3])
    first = [result(slot=slot, sequence=slot + 1, renderer=7) for slot in range(2)]
    last = result(slot=2, sequence=3, renderer=7)
    pond.play(
        (LoggerReady(CSV), [ReportReady(CSV), replay((0, 1), (1, 1), token=RECOVERED)]),
        (
            ResultsReplayed(CSV, RECOVERED, first, []),
            [SendJobs(CSV, first), replay((2, 1), token=RECOVERED)],
        ),
        (ResultsReplayed(CSV, RECOVERED, [last], []), [SendJobs(CSV, [last])]),
    )
    pond.release(CSV, *first, last)
    assert pond.supervisor.loggers[CSV].deliveries.is_settled


def test_one_by_one_means_read_back_one_by_one() -> None:
    """What cannot be sent at once would only go to the disk again, and so forever."""
    pond = Pond(slots=16, window=8, recovered=[4]).ready(CSV)
    first = [result(slot=slot, sequence=slot + 1, renderer=7) for slot in range(2)]
    pond.tell(ResultsReplayed(CSV, RECOVERED, first, []))
    second = [result(slot=slot, sequence=slot + 1, renderer=7) for slot in (2, 3)]
    pond.tell(LoggerExited(CSV, SEGV))
    pond.tell(ResultsReplayed(CSV, RECOVERED, second, []))
    assert pond.come_back(CSV) == [SendJobs(CSV, first[:1])]
    assert pond.release(CSV, first[0]) == [delivered(CSV, first[0]), SendJobs(CSV, first[1:])]
    assert pond.release(CSV, first[1]) == [delivered(CSV, first[1]), SendJobs(CSV, second)]


def test_nothing_is_read_back_for_a_logger_that_is_sent_one_by_one_and_has_one() -> None:
    pond = spilled_pond()
    pond.come_back(CSV)
    pond.tell(SlotsReturned(ANN, [SlotRef(1, 2)]))  # A slot is free, and the window has room.
    assert pond.supervisor.loggers[CSV].statistics()["spilled"] == 1
    assert pond.supervisor.loggers[CSV].room == 0


def test_at_the_end_nothing_is_read_back_any_more() -> None:
    pond = spilled_pond()
    pond.come_back(CSV)
    pond.release(CSV, ONE)
    pond.tell(StopRequested())
    pond.now_s = 20.0
    pond.tell(TimePassed())
    again = TWO._replace(slot=0, generation=2)
    pond.play((ResultsReplayed(CSV, 1, [again], []), []))
    assert pond.supervisor.loggers[CSV].statistics()["spilled"] == 1
    pond.play((LoggerExited(CSV, "exit(0)"), [Finish()]))
