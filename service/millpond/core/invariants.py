"""What must be true of the loggers between two events, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from millpond.core.disk_table import DiskTable
from millpond.core.lifecycle import HAS_PROCESS
from millpond.core.logger_record import LoggerRecord
from millpond.core.slots import SlotTable


def check_holds(slots: SlotTable, records: Sequence[LoggerRecord], disk: DiskTable) -> None:
    """Assert that holds and deliveries are the same.  Looks at everything."""
    disk.check_invariants()
    held = [0] * slots.slot_count
    for logger, record in enumerate(records):
        deliveries = record.deliveries
        deliveries.check_invariants()
        kept = disk.held_by(logger)
        for result in (*deliveries.window, *deliveries.returned, *deliveries.waiting(), *kept):
            assert logger in slots.holders_of(result.slot)
            held[result.slot] += 1
        assert record.state in HAS_PROCESS or not deliveries.window
    for slot, count in enumerate(held):
        assert count == len(slots.holders_of(slot)), "a hold without a delivery"
