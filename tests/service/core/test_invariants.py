import pytest
from supervisor_pond import Pond

from millpond.core.invariants import check_holds


def test_a_hold_without_a_delivery_is_found() -> None:
    pond = Pond()
    table = pond.supervisor.loggers
    check_holds(pond.supervisor.slots, list(table), table.disk)
    ref = pond.supervisor.slots.claim(9)
    assert ref is not None
    pond.supervisor.slots.publish(*ref, [0])
    with pytest.raises(AssertionError, match="a hold without a delivery"):
        check_holds(pond.supervisor.slots, list(table), table.disk)
