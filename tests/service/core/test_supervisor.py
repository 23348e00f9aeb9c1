"""What the supervisor promises, as scripts of events and commands.

Any order of events is tried in `test_supervisor_machine.py`; here are the stories.  Those of
loggers that fail and those of the end have files of their own.
"""

import pytest
from supervisor_pond import (
    ANN,
    BEN,
    CSV,
    JSON,
    ONE,
    TWO,
    Pond,
    delivered,
    full_pond,
    grant,
    published,
    result,
)

from millpond.core.commands import (
    EndRenderer,
    ReportReady,
    SendJobs,
    TellHolders,
)
from millpond.core.events import (
    LoggerReady,
    RendererJoined,
    RendererLeft,
    ResultsPublished,
    SlotsReturned,
    SlotWanted,
)
from millpond.core.slots import SlotRef

# The way of a result.


def test_a_result_goes_to_every_logger_and_its_slot_is_free_after_the_last() -> None:
    pond = Pond(loggers=2).ready(CSV, JSON)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (
            ResultsPublished(ANN, [ONE]),
            [published(ONE), SendJobs(CSV, [ONE]), SendJobs(JSON, [ONE])],
        ),
    )
    assert pond.release(JSON, ONE) == [delivered(JSON, ONE)]
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), grant((0, 2))]
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
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), SendJobs(CSV, [TWO]), grant((0, 2))]


def test_many_releases_are_recorded_as_one() -> None:
    pond = full_pond().ready(CSV)
    assert pond.release(CSV, ONE, TWO)[0] == delivered(CSV, ONE, TWO)


def test_a_renderer_that_waits_is_told_for_whom() -> None:
    pond = full_pond()
    pond.ready(CSV).now_s = 2.5
    text = "2 of 2 held by logger 'csv' (pid 4711), oldest 2.5 s, result 000001"
    pond.play((SlotWanted(ANN), [TellHolders(ANN, text)]))
    assert pond.release(CSV, TWO) == [delivered(CSV, TWO), grant((1, 2))]


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
        (
            ResultsPublished(ANN, [ONE, wrong]),
            [published(ONE), SendJobs(CSV, [ONE]), EndRenderer(ANN, problem)],
        ),
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


def test_a_bug_of_ours_is_an_assertion() -> None:
    with pytest.raises(AssertionError):
        Pond().tell("an event that does not exist")
