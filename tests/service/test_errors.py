"""Errors tell whose fault it is, and can be caught as what they are elsewhere."""

import pytest

from millpond import errors


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "wrong"),
        ({"key": "a.b"}, "a.b: wrong"),
        ({"file": "x.yaml"}, "x.yaml: wrong"),
        ({"line": 3}, "wrong"),
        ({"file": "x.yaml", "line": 0}, "x.yaml:0: wrong"),
        ({"file": "x.yaml", "line": 3, "key": "a.b"}, "x.yaml:3: a.b: wrong"),
    ],
)
def test_a_configuration_error_says_where_it_is(place, message) -> None:
    error = errors.ConfigError("wrong", **place)
    assert str(error) == message
    assert error.problem == "wrong"
    assert error.key == place.get("key", "")
    assert error.file == place.get("file", "")
    assert error.line == place.get("line")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidResult, ValueError),
        (errors.ChannelsRefused, ValueError),
        (errors.DaemonUnreachable, ConnectionError),
        (errors.PondFull, TimeoutError),
    ],
)
def test_what_users_meet_is_also_a_python_error(error, kind) -> None:
    """So that code that knows nothing of millpond can wait and try again."""
    with pytest.raises(kind, match="no free slot"):
        raise error("no free slot")


def test_all_have_one_base() -> None:
    ours = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(error, errors.MillpondError) for error in ours)
    assert all(error.__doc__ for error in ours)
