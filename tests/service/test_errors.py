"""Whose fault it is can be told from the type of an error."""

import pytest

from millpond import errors
from millpond.errors import ConfigError, MillpondError


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidResult, ValueError),
        (errors.ChannelsRefused, ValueError),
        (errors.DaemonUnreachable, ConnectionError),
        (errors.PondFull, TimeoutError),
        (errors.SegmentError, Exception),
        (errors.PeerError, Exception),
        (errors.ConfigError, Exception),
    ],
)
def test_every_error_is_ours_and_what_python_would_call_it(kind, builtin) -> None:
    assert issubclass(kind, MillpondError)
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "is wrong"),
        ({"key": "a.b"}, "a.b: is wrong"),
        ({"file": "c.yaml"}, "c.yaml: is wrong"),
        ({"file": "c.yaml", "line": 3}, "c.yaml:3: is wrong"),
        ({"file": "c.yaml", "line": 3, "key": "a.b"}, "c.yaml:3: a.b: is wrong"),
        ({"line": 3}, "is wrong"),
    ],
)
def test_a_configuration_error_says_as_much_of_the_place_as_is_known(place, message) -> None:
    error = ConfigError("is wrong", **place)
    assert str(error) == message
    assert error.problem == "is wrong"
    assert {name: getattr(error, name) for name in place} == place
