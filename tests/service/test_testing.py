"""The door to the authors' kit."""

import pytest

from millpond import testing
from millpond_loggers import testing as kit


def test_what_the_kit_offers_is_there() -> None:
    assert testing.__all__ == kit.__all__
    for name in kit.__all__:
        assert getattr(testing, name) is getattr(kit, name)


def test_nothing_else_is() -> None:
    with pytest.raises(AttributeError, match=r"'millpond\.testing' has no attribute 'Pond'"):
        _ = testing.Pond
