"""The teams of the world around a supervisor: who wants a result, and which process has it.

Who got it is seen where the loggers themselves see it: in the words that the daemon wants released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from supervisor_books import Item, Key, Reader

from millpond.core.deliveries import Result
from millpond.core.logger_record import LoggerSpec
from millpond.core.slots import SlotRef


@dataclass(frozen=True)
class TeamSpec:
    """One logger of the configuration: as many equal processes as there are in `recovered`.

    Args:
        spec: Of each process.
        recovered: Results of each that an earlier daemon left on the disk.
        wants: Which results it wants; None: all, and nobody asks.
        keeps_slots: Whether its processes release in their own time.
    """

    spec: LoggerSpec
    recovered: Sequence[int]
    wants: Callable[[Key], bool] | None = None
    keeps_slots: bool = False


@dataclass(eq=False)
class Team:
    """The processes of one logger; `wants` is None if they want everything."""

    members: list[Reader]
    wants: Callable[[Key], bool] | None = None
    recovered: list[Key] = field(default_factory=list)
    asked: list[Key] = field(default_factory=list)
    filtered: list[Key] = field(default_factory=list)

    def filter(self, result: Result) -> bool:
        """What the supervisor asks."""
        assert result.key not in self.asked, "it is asked once"
        self.asked.append(result.key)
        return self.is_wanted(result.key)

    def is_wanted(self, key: Key) -> bool:
        return self.wants is None or self.wants(key)

    def take(self, key: Key, ref: SlotRef) -> None:
        """A result was published: one process has it, or none if it is not wanted."""
        takers = [reader for reader in self.members if ref in reader.want.given]
        if not self.is_wanted(key):
            assert not takers, "it was not wanted"
            self.filtered.append(key)
            return
        (taker,) = takers  # Each result goes to one process.
        best = [reader for reader in self.members if not reader.is_down] or self.members
        assert taker in best, "it went to one that is down while another runs"
        assert len(taker.open) == min(len(reader.open) for reader in best), "one had less to do"
        taker.open[key] = Item(key, ref)

    def keys(self) -> Iterator[Key]:
        """All that was ever for it, wherever it is now; one that is in two places comes twice."""
        for reader in self.members:
            yield from reader.outcomes
            yield from reader.open
        yield from self.filtered

    def check(self, published: list[Key]) -> None:
        assert sorted(self.keys()) == sorted([*self.recovered, *published])
