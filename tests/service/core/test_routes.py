from millpond.core.deliveries import Result
from millpond.core.lifecycle import Input
from millpond.core.logger_record import LoggerRecord, LoggerSpec
from millpond.core.routes import Routes


def result(sequence: int) -> Result:
    return Result(sequence % 8, 1, 1, sequence, f"{sequence}", b"frame")


def records(count: int) -> list[LoggerRecord]:
    made = [LoggerRecord(LoggerSpec(f"{number}")) for number in range(count)]
    for record in made:
        record.advance(Input.SPAWN)
        record.advance(Input.READY)
    return made


def test_routes_are_plain_when_each_logger_gets_everything() -> None:
    assert Routes(records(2), [0, 1], {}).are_plain
    assert not Routes(records(2), [0, 0], {}).are_plain
    assert not Routes(records(2), [0, 1], {1: lambda _: True}).are_plain


def test_a_result_goes_to_one_process_of_each_team_in_turn() -> None:
    routes = Routes(records(4), [0, 1, 1, 1], {})
    results = [result(sequence) for sequence in range(1, 7)]
    chosen = [routes.route(one) for one in results]
    assert all(first == 0 for first, _ in chosen)
    assert [second for _, second in chosen] == [1, 2, 3, 1, 2, 3]
    shares, unwanted = routes.take()
    assert shares[0] == results
    assert sorted(one.sequence for some in (1, 2, 3) for one in shares[some]) == [1, 2, 3, 4, 5, 6]
    assert unwanted == {}
    assert routes.take() == ({}, {})


def test_the_least_busy_process_is_next() -> None:
    made = records(3)
    made[0].deliveries.admit([result(1), result(2)])
    made[2].deliveries.admit([result(3)])
    routes = Routes(made, [0, 0, 0], {})
    assert [routes.route(result(n)) for n in range(4, 8)] == [[1], [1], [2], [0]]


def test_a_process_that_is_down_gets_nothing_unless_all_are() -> None:
    made = records(2)
    made[0].advance(Input.EXIT)
    routes = Routes(made, [0, 0], {})
    assert [routes.route(result(n)) for n in (1, 2, 3)] == [[1], [1], [1]]
    made[1].advance(Input.EXIT)
    routes.take()
    assert routes.route(result(4)) == [0]


def test_what_a_team_does_not_want_is_counted_and_told() -> None:
    routes = Routes(records(2), [0, 1], {1: lambda one: one.sequence > 2})
    assert [routes.route(result(n)) for n in (1, 2, 3)] == [[0], [0], [0, 1]]
    shares, unwanted = routes.take()
    assert [one.sequence for one in shares[1]] == [3]
    assert [one.sequence for one in unwanted[1]] == [1, 2]
    assert routes.filtered == [0, 2]


def test_a_result_that_nobody_wants_goes_nowhere() -> None:
    routes = Routes(records(1), [0], {0: lambda _: False})
    assert routes.route(result(1)) == []
    assert routes.take() == ({}, {0: [result(1)]})
