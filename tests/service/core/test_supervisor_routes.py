"""Teams, filters and loggers that keep slots, as scripts of events and commands."""

import pytest
from supervisor_pond import (
    ANN,
    BEN,
    CSV,
    DROP,
    IMAGE,
    JSON,
    ONE,
    SEGV,
    SPILL,
    TWO,
    Pond,
    delivered,
    grant,
    published,
    replay,
    result,
    spill,
)

from millpond.core.commands import (
    CloseLogger,
    EndRenderer,
    Finish,
    GrantSlots,
    KillLogger,
    RecordFiltered,
    ReportRaised,
    ReportReady,
    SendJobs,
)
from millpond.core.events import (
    LoggerExited,
    LoggerRaised,
    LoggerReady,
    RendererJoined,
    RendererLeft,
    ResultsKept,
    ResultsPublished,
    ResultsReplayed,
    SlotWanted,
    StopRequested,
    TimePassed,
)
from millpond.core.restart import DISK_ERRORS

THREE, FOUR = result(slot=2, sequence=3), result(slot=3, sequence=4)
HANG_S = 30


def pond_of(*results, slots=16, **options) -> Pond:
    """A pond in which Ann may publish these, slot by slot."""
    pond = Pond(slots=slots, **options)
    pond.tell(RendererJoined(ANN, 9))
    while pond.supervisor.slots.free_count > slots - len(results):
        pond.tell(SlotWanted(ANN))
    return pond


def sent(commands) -> dict[int, list]:
    """What was sent to each logger."""
    return {c.logger: c.results for c in commands if isinstance(c, SendJobs)}


def publish(pond, *results) -> dict[int, list]:
    return sent(pond.tell(ResultsPublished(ANN, list(results))))


def are_odd(one) -> bool:
    return one.sequence % 2 == 1


# Teams.


def test_each_result_goes_to_one_process_of_a_team_and_to_every_other_logger() -> None:
    pond = pond_of(ONE, TWO, THREE, loggers=3, teams=[0, 1, 1]).ready(CSV, JSON, IMAGE)
    assert publish(pond, ONE, TWO, THREE) == {
        CSV: [ONE, TWO, THREE],
        JSON: [ONE, THREE],
        IMAGE: [TWO],
    }


def test_the_process_with_less_to_do_gets_the_next_result() -> None:
    pond = pond_of(ONE, TWO, THREE, FOUR, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    assert publish(pond, ONE, TWO) == {CSV: [ONE], JSON: [TWO]}
    pond.release(JSON, TWO)
    assert publish(pond, THREE) == {JSON: [THREE]}
    pond.release(JSON, THREE)
    assert publish(pond, FOUR) == {JSON: [FOUR]}


def test_a_slot_is_free_when_the_one_process_that_had_it_is_done() -> None:
    pond = pond_of(ONE, TWO, slots=2, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    publish(pond, ONE, TWO)
    pond.tell(SlotWanted(ANN))
    assert pond.release(JSON, TWO) == [delivered(JSON, TWO), grant((1, 2))]


def test_what_comes_while_one_process_is_down_goes_to_those_that_run() -> None:
    pond = pond_of(ONE, TWO, THREE, FOUR, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    publish(pond, ONE, TWO)
    pond.tell(LoggerExited(CSV, SEGV))
    assert publish(pond, THREE, FOUR) == {JSON: [THREE, FOUR]}
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]


def test_a_process_that_hangs_gets_nothing_new_before_it_is_even_reaped() -> None:
    pond = pond_of(ONE, TWO, THREE, FOUR, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    publish(pond, ONE, TWO)
    pond.release(JSON, TWO)
    assert pond.wake() == [KillLogger(CSV, "no progress for 30 s", dump=True)]
    publish(pond, THREE, FOUR)
    assert pond.supervisor.loggers[JSON].deliveries.window == [THREE, FOUR]


def test_a_team_that_is_down_shares_what_comes_and_loses_nothing() -> None:
    pond = pond_of(ONE, TWO, THREE, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    pond.tell(LoggerExited(CSV, SEGV))
    pond.tell(LoggerExited(JSON, SEGV))
    assert publish(pond, ONE, TWO, THREE) == {}
    pond.wake()
    assert pond.tell(LoggerReady(JSON)) == [ReportReady(JSON), SendJobs(JSON, [TWO])]
    assert pond.tell(LoggerReady(CSV)) == [ReportReady(CSV), SendJobs(CSV, [ONE, THREE])]


def test_only_what_waits_for_the_process_that_is_down_goes_to_the_disk() -> None:
    pond = pond_of(ONE, TWO, slots=2, loggers=2, teams=[0, 0]).ready(CSV, JSON)
    publish(pond, ONE, TWO)
    pond.tell(LoggerExited(CSV, SEGV))
    assert pond.tell(SlotWanted(ANN))[0] == spill(ONE)
    assert pond.tell(ResultsKept(1)) == [grant((0, 2))]
    assert pond.supervisor.loggers[JSON].deliveries.window == [TWO]


# Filters.


def test_what_a_team_does_not_want_is_told_once_and_never_sent() -> None:
    pond = pond_of(ONE, TWO, loggers=3, teams=[0, 1, 1], filters={1: are_odd})
    pond.ready(CSV, JSON, IMAGE)
    first, second, *rest = pond.tell(ResultsPublished(ANN, [ONE, TWO]))
    assert (first, second) == (published(ONE, TWO), RecordFiltered(1, [TWO]))
    assert sent(rest) == {CSV: [ONE, TWO], JSON: [ONE]}
    assert pond.supervisor.routes.filtered == [0, 1]


def test_what_nobody_wants_gives_its_slot_back_at_once() -> None:
    pond = Pond(slots=1, filters={0: lambda one: False}).ready(CSV)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (
            ResultsPublished(ANN, [ONE]),
            [published(ONE), RecordFiltered(0, [ONE]), grant((0, 2))],
        ),
    )


def test_a_stop_waits_for_nothing_that_was_not_wanted() -> None:
    pond = pond_of(ONE, filters={0: lambda one: False}, exit_when_done=True).ready(CSV)
    publish(pond, ONE)
    assert pond.tell(RendererLeft(ANN)) == [CloseLogger(CSV)]
    assert pond.tell(LoggerExited(CSV, "exit(0)")) == [Finish()]


def test_a_filter_is_asked_once_wherever_the_result_goes_later() -> None:
    asked = []
    pond = pond_of(ONE, slots=1, policies=[SPILL], filters={0: lambda one: not asked.append(one)})
    publish(pond, ONE)
    pond.tell(SlotWanted(ANN))
    pond.tell(ResultsKept(1))  # Ann has its slot now.
    pond.tell(RendererLeft(ANN))
    assert pond.tell(LoggerReady(CSV))[1:] == [replay((0, 3))]
    back = ONE._replace(generation=3)
    assert pond.tell(ResultsReplayed(CSV, 1, [back], [])) == [SendJobs(CSV, [back])]
    pond.crash(CSV, back)
    assert pond.come_back(CSV) == [SendJobs(CSV, [back])]
    assert asked == [ONE]


def test_of_a_batch_with_a_fault_only_what_came_before_it_is_routed() -> None:
    pond = pond_of(ONE, TWO, filters={0: lambda one: False}).ready(CSV)
    wrong = TWO._replace(sequence=9)
    noted, filtered, ended, *_ = pond.tell(ResultsPublished(ANN, [ONE, wrong]))
    assert (noted, filtered) == (published(ONE), RecordFiltered(0, [ONE]))
    assert ended == EndRenderer(ANN, "sent sequence 9 after 1")
    assert pond.supervisor.routes.filtered == [1]


# Loggers that keep slots.


def keeper(*results, **options) -> Pond:
    """A pond with one such logger, which was sent these."""
    pond = pond_of(*results, **options).ready(CSV)
    publish(pond, *results)
    return pond


def test_what_is_kept_keeps_its_slot() -> None:
    pond = keeper(ONE, slots=1)
    assert pond.keep(CSV, ONE) == []
    assert pond.tell(RendererJoined(BEN, 8)) == []
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE), grant((0, 2))]


def test_one_that_waits_for_more_is_not_taken_to_hang() -> None:
    pond = keeper(ONE, TWO)
    pond.keep(CSV, ONE, TWO)
    for _ in range(5):
        assert pond.wake() == []


def test_one_that_is_sent_something_after_a_rest_has_all_its_time_and_no_more() -> None:
    pond = keeper(ONE)
    pond.tell(SlotWanted(ANN))
    pond.keep(CSV, ONE)
    assert pond.wake() == []
    pond.now_s = 2 * HANG_S - 0.5
    assert publish(pond, TWO) == {CSV: [TWO]}
    pond.start(CSV, TWO)
    assert pond.wake() == []
    assert pond.wake() == [KillLogger(CSV, "no progress for 30 s", dump=True)]
    assert pond.now_s == 3 * HANG_S - 0.5


def test_one_that_logs_slowly_but_goes_on_is_not_taken_to_hang() -> None:
    pond = keeper(ONE, TWO, THREE)
    for count, one in enumerate([ONE, TWO, THREE], 1):
        pond.start(CSV, one)
        while pond.supervisor.wake_at_s < count * 20:
            assert pond.wake() == []
        pond.now_s = count * 20.0
        pond.keep(CSV, *[ONE, TWO, THREE][:count])


def test_one_may_release_what_came_last_first_and_still_waits_for_more() -> None:
    pond = keeper(ONE, TWO)
    pond.keep(CSV, ONE, TWO)
    assert pond.release(CSV, TWO)[0] == delivered(CSV, TWO)
    assert pond.keep(CSV, ONE) == []
    for _ in range(3):
        assert pond.wake() == []
    assert pond.tell(StopRequested())[-1] == CloseLogger(CSV)


def test_what_a_crash_interrupted_goes_one_by_one_to_one_that_releases_nothing() -> None:
    pond = keeper(ONE, TWO, THREE, FOUR)
    pond.keep(CSV, ONE)
    pond.crash(CSV, TWO)
    pond.keep(CSV)
    assert pond.come_back(CSV) == [SendJobs(CSV, [ONE])]
    assert pond.keep(CSV, ONE) == [SendJobs(CSV, [TWO])]
    assert pond.keep(CSV, ONE, TWO) == [SendJobs(CSV, [THREE])]
    assert pond.release(CSV, ONE) == [delivered(CSV, ONE)]
    assert pond.keep(CSV, TWO, THREE) == [SendJobs(CSV, [FOUR])]
    assert pond.supervisor.loggers[CSV].deliveries.blames[TWO.key].crashes == 1


@pytest.mark.parametrize("number", [0, min(DISK_ERRORS)])
def test_what_raised_is_tried_again_while_others_are_kept(number) -> None:
    pond = keeper(ONE, TWO)
    pond.keep(CSV, ONE)
    raised = pond.tell(LoggerRaised(CSV, 1, 1, "OSError: no", number))
    assert bool(number) != (ReportRaised(CSV, TWO, "OSError: no", 0.1) in raised)
    assert pond.wake() == [SendJobs(CSV, [TWO])]


def test_a_stop_does_not_wait_for_what_is_only_kept() -> None:
    pond = keeper(ONE, TWO)
    pond.tell(StopRequested())
    pond.keep(CSV, ONE)
    pond.start(CSV, TWO)
    assert pond.tell(TimePassed()) == []
    assert pond.keep(CSV, ONE, TWO) == [EndRenderer(ANN, ""), CloseLogger(CSV)]
    for one in (ONE, TWO):
        pond.acks[CSV][one.slot] = one.generation  # At its end it releases everything.
    assert pond.tell(LoggerExited(CSV, "exit(0)")) == [delivered(CSV, ONE, TWO), Finish()]


def test_a_keeper_that_does_not_end_has_what_it_kept_for_the_next_daemon() -> None:
    pond = keeper(ONE)
    pond.keep(CSV, ONE)
    pond.tell(StopRequested())
    assert pond.wake() == [KillLogger(CSV, "did not end in time")]
    assert pond.now_s == 5  # It has all its time, for it had kept up.
    assert pond.tell(LoggerExited(CSV, "crash(SIGKILL)"))[0] == spill(ONE)


def test_what_one_must_get_next_is_read_back_while_it_keeps_a_slot() -> None:
    """What stands behind it in the other slot goes to the disk for that."""
    pond = pond_of(ONE, slots=2, window=2, recovered=[2], exit_when_done=True)
    publish(pond, ONE)
    pond.tell(RendererLeft(ANN))
    assert pond.tell(LoggerReady(CSV)) == [ReportReady(CSV), replay((1, 2), token=0)]
    first = result(slot=1, generation=2, renderer=BEN)
    assert sent(pond.tell(ResultsReplayed(CSV, 0, [first], []))) == {CSV: [first]}
    assert pond.keep(CSV, first) == [spill(ONE, home=0)]
    assert pond.tell(ResultsKept(1)) == [replay((0, 2), token=0)]


def test_a_renderer_gets_its_slot_besides_what_is_read_back() -> None:
    pond = Pond(slots=4, loggers=2, policies=[DROP, {}], recovered=[2, 0]).ready(JSON)
    pond.tell(RendererJoined(ANN, 9))
    results = [result(slot=slot, sequence=slot + 1) for slot in range(4)]
    for one in results:
        pond.tell(ResultsPublished(ANN, [one]))
        pond.tell(SlotWanted(ANN))
    pond.tell(LoggerReady(CSV))
    commands = pond.release(JSON, *results)
    assert any(isinstance(command, GrantSlots) for command in commands), commands
