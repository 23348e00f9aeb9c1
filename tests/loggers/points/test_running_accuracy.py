"""Running accuracy: shares over all and by group, bounded, and taken up again."""

import pytest

from millpond_loggers.points.running_accuracy import TAG_CHARACTERS_MAX, RunningAccuracy, group_name


def test_the_share_is_that_of_all_results_so_far() -> None:
    running = RunningAccuracy(20)
    shares = [running.add({"is_correct": flag}, {})["accuracy/is_correct"] for flag in (1, 0, 0, 1)]
    assert shares == [1.0, 0.5, pytest.approx(1 / 3), 0.5]


def test_each_value_of_a_group_has_a_share_of_its_own() -> None:
    running = RunningAccuracy(20)
    running.add({"is_correct": True}, {"model": "teapot"})
    assert running.add({"is_correct": False}, {"model": "cup"}) == {
        "accuracy/is_correct": 0.5,
        "accuracy/is_correct/model/cup": 0.0,
    }


def test_values_beyond_the_bound_count_only_in_the_whole() -> None:
    running = RunningAccuracy(2)
    for number in range(5):
        shares = running.add({"ok": True}, {"model": f"m{number}", "place": "here"})
        assert ("accuracy/ok/model/m" + str(number) in shares) == (number < 2)
        assert shares["accuracy/ok/place/here"] == shares["accuracy/ok"] == 1.0
    assert running.counts["accuracy/ok"] == [5, 5]
    assert "accuracy/ok/model/m1" in running.add({"ok": True}, {"model": "m1"})


def test_it_goes_on_from_its_counts_with_the_same_bound() -> None:
    first = RunningAccuracy(1)
    first.add({"ok": True}, {"model": "a"})
    again = RunningAccuracy(1, first.counts)
    shares = again.add({"ok": False}, {"model": "b"})
    assert shares == {"accuracy/ok": 0.5}
    assert first.counts["accuracy/ok"] == [1, 1]


def test_a_copy_counts_on_its_own() -> None:
    running = RunningAccuracy(20)
    running.add({"ok": True}, {})
    running.copy().add({"ok": False}, {})
    assert running.counts == {"accuracy/ok": [1, 1]}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("teapot", "teapot"),
        ("a/b\nc", "a_b_c"),
        ("..", "_"),
        ("", "_"),
        ("  ", "_"),
        (1.5, "1.5"),
        ("кресло", "кресло"),
        ("\ud800", "_"),
        ("x" * 500, "x" * TAG_CHARACTERS_MAX),
    ],
)
def test_any_value_has_a_name_that_fits_into_a_tag(value: object, name: str) -> None:
    assert group_name(value) == name
