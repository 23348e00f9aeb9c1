"""Each call of the daemon on its ledger, spill and list of the dead fails, or is its last."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from faults.disk_cases import Case, failures, injections, leave_behind, spill_and_replay, wait_over
from faults.disk_injection import check_strace

Figure = Callable[..., None]
SAMPLE, SAMPLE_OF_RECOVERY = 30, 20


def test_the_nth_call_on_the_disk(
    tmp_path: Path, chance: random.Random, is_all: bool, figure: Figure
) -> None:
    """Results are published to a stopped logger, spilled, replayed and recorded."""
    check_strace()
    counts = Case(tmp_path / "good", spill_and_replay).run(None)
    cases = injections(counts, chance, None if is_all else SAMPLE)
    failed = failures(cases, lambda number: Case(tmp_path / str(number), spill_and_replay))
    figure("calls of a good run", counts.total())
    figure("errors and kills", len(cases))
    figure("with a loss, a double or a crash", len(failed), "0")
    assert not failed, "\n\n".join(failed)


def test_the_nth_call_of_a_recovery(
    tmp_path: Path, chance: random.Random, is_all: bool, figure: Figure
) -> None:
    """A daemon finds what a killed one has left, lists what is lost, and replays the rest."""
    check_strace()
    journals = leave_behind(tmp_path / "before")
    before = (tmp_path / "before" / "run", journals)
    counts = Case(tmp_path / "good", wait_over, before).run(None)
    cases = injections(counts, chance, None if is_all else SAMPLE_OF_RECOVERY)
    failed = failures(cases, lambda number: Case(tmp_path / str(number), wait_over, before))
    figure("calls of a good run", counts.total())
    figure("errors and kills", len(cases))
    figure("with a loss, a double or a crash", len(failed), "0")
    assert not failed, "\n\n".join(failed)
