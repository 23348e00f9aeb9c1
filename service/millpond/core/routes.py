"""Which loggers get a result: those that want it, and of several processes of one logger, one.

A logger of the configuration is a *team* of one process or more.  Everywhere else in the core each
process counts as a logger, with deliveries of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from millpond.core.deliveries import Result
from millpond.core.logger_record import LoggerRecord

Filter = Callable[[Result], bool]
"""Whether a team wants a result.  It is asked once, when the result is published."""


class Routes:
    """The teams, what they want, and what each process of a team was given.

    Args:
        records: The loggers.
        teams: The team of each logger, from 0, without a gap; those of one team stand together.
        filters: By team; one without a filter wants everything.

    Attributes:
        filtered: Results that each team did not want.
    """

    def __init__(
        self,
        records: Sequence[LoggerRecord],
        teams: Sequence[int],
        filters: Mapping[int, Filter],
    ) -> None:
        self._records = records
        members: dict[int, list[int]] = {}
        for logger, team in enumerate(teams):
            members.setdefault(team, []).append(logger)
        assert sorted(members) == list(range(len(members)))
        self._teams = [members[team] for team in range(len(members))]
        self._filters = filters
        self._turns = [0] * len(members)
        self._loads: dict[int, list[_Load]] = {}
        self._shares: dict[int, list[Result]] = {}
        self._unwanted: dict[int, list[Result]] = {}
        self.filtered = [0] * len(members)

    @property
    def are_plain(self) -> bool:
        """Whether every logger gets every result."""
        return not self._filters and len(self._teams) == len(self._records)

    def route(self, result: Result) -> list[int]:
        """The loggers that get a result; none if nobody wants it."""
        chosen = []
        for team, members in enumerate(self._teams):
            wants = self._filters.get(team)
            if wants is not None and not wants(result):
                self._unwanted.setdefault(team, []).append(result)
                self.filtered[team] += 1
                continue
            logger = members[0] if len(members) == 1 else self._least_busy(team)
            self._shares.setdefault(logger, []).append(result)
            chosen.append(logger)
        return chosen

    def take(self) -> tuple[dict[int, list[Result]], dict[int, list[Result]]]:
        """What was routed since the last call: by logger, and by team what it did not want."""
        shares, unwanted = self._shares, self._unwanted
        self._shares, self._unwanted = {}, {}
        self._loads.clear()
        return shares, unwanted

    def _least_busy(self, team: int) -> int:
        """The process with the least to do; one that is down only if all are."""
        loads = self._loads.get(team)
        if loads is None:
            loads = self._loads[team] = self._read_loads(team)
        least = min(loads, key=_by_load)
        least.results += 1
        self._turns[team] = least.place + 1
        return least.logger

    def _read_loads(self, team: int) -> list[_Load]:
        """What each process of a team has to do, in turn; read once for all that come together."""
        loads = []
        for place, logger in enumerate(self._teams[team]):
            record = self._records[logger]
            loads.append(_Load(record.is_broken, record.deliveries.unsettled, logger, place))
        turn = self._turns[team] % len(loads)
        return loads[turn:] + loads[:turn]


@dataclass(slots=True)
class _Load:
    is_broken: bool
    results: int
    logger: int
    place: int


_by_load = attrgetter("is_broken", "results")
