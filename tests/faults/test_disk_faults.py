"""Disks that are full, read-only, failing or damaged: nothing is lost while there is room anywhere.

What cannot be kept is in the list of the dead, each once, and the daemon never falls over it.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faults.disk_places import fill, record_offsets, remount, small_disk
from faults.oracle import UNACCOUNTED, Account, Journals, judge, read_csv, read_dead
from faults.scene import Outcome, Scene, check_verify, rows, wait_s
from system.harness import SMALL, Daemon, wait_until

Figure = Callable[..., None]
PATIENT = {"when_full": "spill", "hang_s": 120}
FULL_S = 10.0
LONG = 230  # Characters, and still a file name.


def assert_each_once(outcome: Outcome, logger: str) -> None:
    """Recorded and dead ones together are the acknowledged ones."""
    account = outcome.accounts[logger]
    count = account.recorded + sum(account.dead.values())
    assert count == len(outcome.journals.acked)


def test_output_disk_is_full_for_a_while(
    scene: Scene, seconds: Callable[[float], float], figure: Figure
) -> None:
    elsewhere = {"spill_dir": str(scene.folder / "spill")}
    with small_disk(scene.folder / "d" / "run", "32m") as run:
        scene.start([rows("csv"), rows("json")], disk=elsewhere)
        renderer = scene.renderer("r", think_s=0.004).wait_going()
        filler = fill(run)
        end_s = time.monotonic() + seconds(FULL_S)
        suspended = set()
        while time.monotonic() < end_s:
            now = scene.check_books()
            suspended |= {n for n, row in now["loggers"].items() if row["is_suspended"]}
            wait_s(0.05)
        spilled = max(row["spilled"] for row in scene.daemon.status()["loggers"].values())
        filler.unlink()
        start_s = time.monotonic()
        wait_until(
            lambda: not any(row["is_suspended"] for row in scene.check_books()["loggers"].values()),
            "all loggers go on by themselves",
        )
        resumed_s = time.monotonic() - start_s
        waits = renderer.finish().waits
        outcome = scene.epilogue()
        figure("results", len(outcome.journals.acked))
        figure("suspended", ", ".join(sorted(suspended)), "csv, json")
        figure("on the other disk at most", spilled)
        figure("go on after, s", resumed_s, "< 30")
        figure("renderer's worst wait, ms", max(waits) * 1000)
        figure("lost or dead", len(outcome.dead), "0")
        outcome.assert_nothing_lost()
        assert not outcome.dead
        assert suspended == {"csv", "json"}
        assert_each_once(outcome, "csv")
        assert_each_once(outcome, "json")


def test_the_daemon_is_killed_while_the_output_disk_is_full(scene: Scene, figure: Figure) -> None:
    """What is on the other disk comes back, and what was in memory is listed."""
    elsewhere = {"spill_dir": str(scene.folder / "spill")}
    with small_disk(scene.folder / "d" / "run", "32m") as run:
        scene.start([rows("csv"), rows("json")], disk=elsewhere)
        renderer = scene.renderer("r", think_s=0.002, patience_s=0).wait_going()
        filler = fill(run)
        wait_until(lambda: scene.row("csv")["spilled"] > 200, "some are on the other disk")
        scene.daemon.process.kill()
        scene.daemon.process.wait()
        wait_until(renderer.has_ended, "the renderer has learnt it")
        filler.unlink()
        scene.restart().wait_state("running")
        outcome = scene.epilogue()
        accounts = outcome.accounts.values()
        figure("results", len(outcome.journals.acked))
        figure("unaccounted", sum(account.dead[UNACCOUNTED] for account in accounts))
        figure("lost without a word", sum(len(account.lost) for account in accounts), "0")
        outcome.assert_nothing_lost()
        assert {line["reason"] for line in outcome.dead} <= {UNACCOUNTED}
        assert outcome.accounts["csv"].recorded > 200


def test_the_daemon_is_killed_when_the_ledger_has_no_room_either(
    scene: Scene, figure: Figure
) -> None:
    """Its lines wait in memory, and are gone; the marks and the other disk know enough."""
    elsewhere = {"spill_dir": str(scene.folder / "spill")}
    buffer = {"slots": 256, "channels": SMALL}
    with small_disk(scene.folder / "d" / "run", "32m") as run:
        scene.start([rows("csv"), rows("json")], disk=elsewhere, buffer=buffer)
        # Long ids fill the room that the ledger has ahead of need.
        renderer = scene.renderer("r" * LONG, batch=1000, patience_s=0).wait_going()
        filler = fill(run)
        enough = scene.daemon.status()["results"] + 3 * (1 << 20) // LONG
        wait_until(lambda: scene.daemon.status()["results"] > enough, "the ledger is full")
        problem = scene.daemon.status()["disk"]["problem"]
        scene.daemon.process.kill()
        scene.daemon.process.wait()
        wait_until(renderer.has_ended, "the renderer has learnt it")
        filler.unlink()
        scene.restart().wait_state("running")
        outcome = scene.epilogue()
        accounts = outcome.accounts.values()
        figure("results", len(outcome.journals.acked))
        figure("unaccounted", sum(account.dead[UNACCOUNTED] for account in accounts))
        figure("lost without a word", sum(len(account.lost) for account in accounts), "0")
        outcome.assert_nothing_lost()
        assert "no room" in problem
        assert {line["reason"] for line in outcome.dead} <= {UNACCOUNTED}


def test_spill_disk_is_full(scene: Scene, figure: Figure) -> None:
    with small_disk(scene.folder / "spill", "4m") as spill:
        disk = {"spill_dir": str(spill)}
        scene.start([rows("csv", **PATIENT), rows("json")], disk=disk)
        scene.daemon.signal_logger("csv", signal.SIGSTOP)
        renderer = scene.renderer("r", count=3000)
        waits = renderer.wait().waits
        shed = scene.row("csv")["dead"]
        scene.daemon.signal_logger("csv", signal.SIGCONT)
        scene.wait_settled()
        outcome = scene.epilogue()
        figure("results", len(outcome.journals.acked))
        figure("shed by the daemon's count", shed)
        figure("listed as spill_full", outcome.accounts["csv"].dead["spill_full"], str(shed))
        figure("renderer's worst wait, ms", max(waits) * 1000)
        outcome.assert_nothing_lost()
        assert shed > 0
        assert outcome.accounts["csv"].dead == Counter(spill_full=shed)
        assert not outcome.accounts["json"].dead
        assert_each_once(outcome, "csv")


def test_spill_disk_becomes_read_only(scene: Scene, figure: Figure) -> None:
    """While no file on it is open for writing: else the kernel refuses."""
    with small_disk(scene.folder / "spill", "64m") as spill:
        scene.start([rows("csv", **PATIENT), rows("json")], disk={"spill_dir": str(spill)})
        remount(spill, "ro")
        scene.daemon.signal_logger("csv", signal.SIGSTOP)
        renderer = scene.renderer("r", think_s=0.002)
        wait_until(lambda: scene.row("csv")["dead"] > 200, "some are shed")
        remount(spill, "rw")
        wait_until(lambda: scene.row("csv")["spilled"] > 200, "some are on the disk again")
        waits = renderer.finish().waits
        shed = scene.row("csv")["dead"]
        scene.daemon.signal_logger("csv", signal.SIGCONT)
        scene.wait_settled()
        outcome = scene.epilogue()
        figure("results", len(outcome.journals.acked))
        figure("shed by the daemon's count", shed)
        figure("listed as spill_full", outcome.accounts["csv"].dead["spill_full"], str(shed))
        figure("renderer's worst wait, ms", max(waits) * 1000)
        outcome.assert_nothing_lost()
        assert outcome.accounts["csv"].dead == Counter(spill_full=shed)
        assert not outcome.accounts["json"].dead
        assert_each_once(outcome, "csv")


# Damaged segments.

FLIPS, CUTS = 14, 8


def test_segments_are_damaged(
    scene: Scene, tmp_path: Path, chance: random.Random, figure: Figure
) -> None:
    scene.start([rows("csv", **PATIENT, stop_s=0.5)], service={"drain_s": 0.2})
    scene.daemon.signal_logger("csv", signal.SIGSTOP)
    journals = scene.renderer("r", count=30, batch=30).wait()
    scene.daemon.stop(code=None)
    (segment,) = (scene.run / "spill" / "csv").glob("*.seg")
    content = segment.read_bytes()
    offsets = record_offsets(content)
    assert len(offsets) == 30
    cases = [("flip", place) for place in chance.sample(range(len(content)), FLIPS)]
    cases += [("cut", place) for place in chance.sample(range(len(content)), CUTS)]
    missing = 0
    for number, (how, place) in enumerate(cases):
        run = tmp_path / f"c{number}" / "run"
        shutil.copytree(scene.run, run, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        damaged = bytearray(content)
        if how == "flip":
            damaged[place] ^= 1 << chance.randrange(8)
        else:
            del damaged[place:]
        (run / segment.relative_to(scene.run)).write_bytes(damaged)
        account = replay(scene, run, journals)
        about = f"{how} at {place}, records at {offsets[:3]}...: {account.dead}"
        assert not account.lost, about
        assert not account.doubled + account.both + account.dead_twice, about
        assert account.recorded + sum(account.dead.values()) == 30, about
        assert account.recorded >= whole_records(offsets, len(content), how, place), about
        missing += sum(account.dead.values())
    figure("flips and cuts", len(cases))
    figure("records damaged and listed", missing)


def whole_records(offsets: list[int], size: int, how: str, place: int) -> int:
    """How many records the damage leaves whole at least."""
    ends = [*offsets[1:], size]
    if place < offsets[0]:
        return 0  # The head: nobody knows the channels.
    if how == "flip":
        return len(offsets) - 1
    return sum(end <= place for end in ends)


def replay(scene: Scene, run: Path, journals: Journals) -> Account:
    """Have a daemon deliver what is there; give the account of csv."""
    daemon = Daemon(run.parent, {**scene.config, "output_dir": str(run)})
    try:
        daemon.wait_serving()

        def is_over() -> bool:
            row = daemon.status()["loggers"].get("csv")
            return row is None or row["delivered"] + row["dead"] == row["published"]

        wait_until(is_over, "every result has its outcome")
        daemon.stop(code=None)
        assert daemon.process.returncode in (0, 1), daemon.log[-4000:]
        assert "Traceback" not in daemon.log
    finally:
        daemon.end()
    check_verify(run)
    return judge(journals, "csv", read_csv(run / "details.csv"), read_dead(run, journals.keys))
