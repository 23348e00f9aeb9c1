"""The ``disk:`` section: what leaves the memory for the run folder, and how much of it."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from millpond.config.section import ByteCount, FilePath, Number, Section

_GIB: Final = 2**30
# A segment of the spill begins with the channels: less would hold no result at all.
SPILL_BYTES_MIN: Final = 64 * 1024


class DiskConfig(Section):
    """Results that wait for a logger which is down or slow, and arrays of those that are dead."""

    spill_dir: FilePath | None = Field(
        None, description="Where results wait for their loggers; null: <output_dir>/spill."
    )
    spill_max: ByteCount = Field(
        4 * _GIB, ge=SPILL_BYTES_MIN, le=2**50, description="Bytes there for each logger."
    )
    dead_max: ByteCount = Field(
        _GIB, ge=0, le=2**50, description="Bytes of arrays kept in <output_dir>/dead."
    )
    deadline_s: Number = Field(
        5.0, gt=0, le=600, description="Seconds that the disk may take before results are given up."
    )
