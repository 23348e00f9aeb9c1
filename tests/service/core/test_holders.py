"""A renderer that waits learns for whom."""

from millpond.core.deliveries import Result
from millpond.core.holders import describe_holders
from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerRecord, LoggerSpec
from millpond.core.renderer_table import Renderer


def logger(name: str, count: int, *, state: State, window_max: int = 2) -> LoggerRecord:
    record = LoggerRecord(LoggerSpec(name, window_max=window_max))
    record.deliveries.admit(
        [Result(slot, 1, 1, slot + 1, f"{slot + 120:06}", b"") for slot in range(8 - count, 8)]
    )
    record.state, record.pid = state, 4711
    if state is State.RUNNING:
        record.deliveries.advance(9)
    return record


SINCE_S = [100.0 + slot for slot in range(8)]


def test_the_one_with_most_slots_is_named_first() -> None:
    text = describe_holders(
        [logger("csv", 1, state=State.RUNNING), logger("board", 5, state=State.RUNNING)],
        [Renderer(pid=99, credits_max=4, claimed=2), Renderer(pid=98, credits_max=4)],
        since_s=SINCE_S,
        now_s=115.44,
    )
    assert text == (
        "5 of 8 held by logger 'board' (pid 4711), oldest 12.4 s, result 000123; "
        "2 of 8 held by renderer (pid 99); "
        "1 of 8 held by logger 'csv' (pid 4711), oldest 8.4 s, result 000127"
    )


def test_a_logger_without_a_process_is_named_by_its_state() -> None:
    loggers = [logger("csv", 3, state=State.BACKOFF)]
    text = describe_holders(loggers, [], since_s=SINCE_S, now_s=105.0)
    assert text == "3 of 8 held by logger 'csv' (backoff), oldest 0.0 s, result 000125"


def test_a_failed_disk_is_named_and_what_it_gave_back_counts() -> None:
    csv = logger("csv", 3, state=State.RUNNING)
    csv.is_disk_bad = True
    csv.deliveries.returned = csv.deliveries.window[:1]
    del csv.deliveries.window[0]
    text = describe_holders([csv], [], since_s=SINCE_S, now_s=105.0)
    assert text == (
        "3 of 8 held by logger 'csv' (pid 4711, its disk failed), oldest 0.0 s, result 000125"
    )


def test_slots_on_their_way_from_or_to_the_disk_are_named() -> None:
    """They stand in nobody's queue meanwhile."""
    csv = logger("csv", 5, state=State.BACKOFF)
    csv.deliveries.make_batches({3, 4, 5}, token=1, count_max=9)
    text = describe_holders([csv], [], on_disk=3, since_s=SINCE_S, now_s=108.0)
    assert text == (
        "3 of 8 held by the disk, which writes or reads them; "
        "2 of 8 held by logger 'csv' (backoff), oldest 2.0 s, result 000126"
    )


def test_nobody_is_named_when_nobody_holds_one() -> None:
    loggers = [logger("csv", 0, state=State.RUNNING)]
    text = describe_holders(loggers, [Renderer(pid=1, credits_max=4)], since_s=SINCE_S, now_s=0.0)
    assert text == "nobody holds a slot now"


def test_the_answer_fits_a_frame_however_many_there_are() -> None:
    loggers = [logger(f"board-{n}", 1, state=State.RUNNING) for n in range(64)]
    for record in loggers:
        record.deliveries.window[:] = [r._replace(id="x" * 1024) for r in record.deliveries.window]
    text = describe_holders(loggers, [], since_s=SINCE_S, now_s=120.0)
    assert text.endswith("; and 56 more")
    assert len(text) < 4096
