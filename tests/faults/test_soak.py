"""A random mix of faults, for as long as wanted: in the end every result has its one outcome."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from faults.oracle import UNACCOUNTED
from faults.scene import (
    OFTEN,
    Outcome,
    RendererProcess,
    Scene,
    diary,
    random_logger,
    rows,
    wait_s,
)
from system.harness import SMALL

Figure = Callable[..., None]
USUAL_S = 60.0
PAUSE_S = (0.3, 1.5)  # Between two faults.
# How often each fault comes, against the others.
FAULTS = {
    "kill a logger": 6,
    "kill all loggers": 2,
    "stop a logger": 3,
    "kill the renderer": 3,
    "end the daemon": 1,
    "kill the daemon": 1,
    "slow phase": 2,
}
RENDERERS = 2
SETTLED_S = 120.0
RAISING = 0.005  # Part of the results.
# What may be dead besides what raises: a logger that is killed or stopped three times at the
# same result is not told from one that dies of it.
BLAMED = {"crash(SIGKILL)", "hang"}


class Soak:
    """Does one fault after the other."""

    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self.scene = scene
        self.chance = chance
        self.slow_file = scene.folder / "slow"
        self.done: Counter[str] = Counter()
        self.history: list[str] = []
        self.renderers: list[RendererProcess] = []

    def begin(self) -> None:
        choice = self.chance.choice
        options = {"moods": ["raise"], "slow_s": 0.03, "slow_file": str(self.slow_file)}
        often = {"restart": OFTEN, "hang_s": 2, "stop_s": 2, "max_in_window": choice([1, 4, 32])}
        loggers = [
            rows("csv", **often),
            rows("json", when_full="spill", **often),
            diary("plugin", options=options, when_full="spill", **often),
        ]
        buffer = {"slots": choice([16, 64, 256]), "channels": {**SMALL}}
        rgb = {"shape": choice([[3, 16, 16], [3, 128, 128]]), "dtype": "float32"}
        buffer["channels"]["rgb"] = rgb
        self.note(f"{buffer['slots']} slots, {often['max_in_window']} in the window")
        self.scene.start(loggers, service={"drain_s": 2}, buffer=buffer)
        self.renderers = [self.new_renderer() for _ in range(RENDERERS)]

    def new_renderer(self) -> RendererProcess:
        name = f"r{len(self.scene.renderers)}"
        think_s = self.chance.choice([0.003, 0.01])
        moods = {"mood_rates": {"raise": RAISING}}
        return self.scene.renderer(name, think_s=think_s, **moods).wait_going()

    def note(self, text: str) -> None:
        self.history.append(f"{time.monotonic():.2f} {text}")

    def one(self) -> None:
        fault = self.chance.choices([*FAULTS], [*FAULTS.values()])[0]
        self.done[fault] += 1
        self.note(fault)
        getattr(self, fault.replace(" ", "_"))()
        self.watch(self.chance.uniform(*PAUSE_S))

    def watch(self, seconds: float) -> None:
        """Let time pass, and see that the books of the daemon add up."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.scene.check_books()
            assert self.scene.daemon.process.poll() is None, self.scene.daemon.log[-5000:]
            wait_s(0.1)

    def kill_a_logger(self) -> None:
        random_logger(self.scene, self.chance, signal.SIGKILL)

    def kill_all_loggers(self) -> None:
        for row in self.scene.daemon.status()["loggers"].values():
            if row["pid"]:
                self.scene.daemon.signal_child(row["pid"], signal.SIGKILL)

    def stop_a_logger(self) -> None:
        name = random_logger(self.scene, self.chance, signal.SIGSTOP)
        self.watch(self.chance.uniform(0.2, 3.0))
        pid = self.scene.row(name)["pid"] if name else None
        if pid:
            self.scene.daemon.signal_child(pid, signal.SIGCONT)

    def kill_the_renderer(self) -> None:
        number = self.chance.randrange(RENDERERS)
        self.renderers[number].kill()
        self.renderers[number] = self.new_renderer()

    def end_the_daemon(self) -> None:
        self.scene.stop()
        self.scene.restart()

    def kill_the_daemon(self) -> None:
        self.scene.daemon.process.kill()
        self.scene.daemon.wait_exit(code=None)
        self.scene.restart()

    def slow_phase(self) -> None:
        self.slow_file.touch()
        self.watch(self.chance.uniform(1.0, 4.0))
        self.slow_file.unlink()


def check(outcome: Outcome, done: Counter[str]) -> None:
    """Every acknowledged result has one outcome for each logger, for a reason that can be."""
    outcome.assert_nothing_lost()
    for line in outcome.dead:
        raises = line["logger"] == "plugin" and line["id"].endswith("raise")
        allowed = BLAMED | ({"exception"} if raises else set())
        if done["kill the daemon"]:
            allowed |= {UNACCOUNTED}
        assert line["reason"] in allowed, line
    plugin = outcome.accounts["plugin"]
    raising = [id for id in outcome.journals.acked if id.endswith("raise")]
    dead = {line["id"] for line in outcome.dead_of("plugin")}
    assert set(raising) <= dead
    assert plugin.acked > 0


def test_soak(
    scene: Scene, chance: random.Random, seconds: Callable[[float], float], figure: Figure
) -> None:
    soak = Soak(scene, chance)
    soak.begin()
    end_s = time.monotonic() + seconds(USUAL_S)
    try:
        while time.monotonic() < end_s:
            soak.one()
        outcome = scene.epilogue(within_s=SETTLED_S)
        check(outcome, soak.done)
    except BaseException as error:
        error.add_note("\n".join(soak.history))
        raise
    accounts = outcome.accounts
    for fault, count in soak.done.items():
        figure(fault, count)
    figure("acknowledged", len(outcome.journals.acked))
    figure("lost", sum(len(account.lost) for account in accounts.values()), "0")
    doubled = sum(len(accounts[name].doubled) for name in ("csv", "json"))
    figure("twice in csv, json", doubled, "0")
    figure("twice in the plugin", len(accounts["plugin"].doubled))
    for reason, count in Counter(line["reason"] for line in outcome.dead).items():
        figure(f"dead: {reason}", count)
