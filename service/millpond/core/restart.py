"""When a logger that ended is started again, and how often a result is tried.

The first is a function of its exits, the time and chance.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

# An import error does not heal by trying again: a logger that was never ready gets this many.
START_TRIES_MAX: Final = 3
# A doubling needs no more steps than this to pass any sensible limit.
DOUBLINGS_MAX: Final = 30
JITTER: Final = 0.2  # A fifth up or down, so that loggers that fell together rise apart.

# One result that ends its logger so often, or raises so often, is given up.
CRASHES_MAX: Final = 3
RETRY_S: Final = (0.1, 1.0, 5.0, 15.0)  # Before each further try of a result that raised.
RAISES_MAX: Final = len(RETRY_S) + 1
# It is the disk that fails, not the result: it will pass, however often it is tried.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a logger may end before the daemon goes on without it.

    Args:
        intensity: Exits that are borne within `period_s`; one more is FATAL.
        period_s: Seconds.
        delay_s: Seconds before the first restart; doubled with each further exit.
        delay_s_max: The longest delay, in seconds.
        healthy_s: Seconds of health after which the delay starts anew.
        retry_s: Seconds after which a FATAL logger is tried again.
    """

    intensity: int = 5
    period_s: float = 60.0
    delay_s: float = 0.1
    delay_s_max: float = 30.0
    healthy_s: float = 60.0
    retry_s: float = 300.0


class RestartHistory:
    """The recent exits of one logger."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self._exits_s: list[float] = []
        self._streak = 0  # Exits since it was last healthy.
        self._failed_starts = 0  # Exits in a row before it was ready.

    def record_exit(
        self, now_s: float, *, ready_since_s: float | None, chance: float
    ) -> float | None:
        """Note an exit and say how long to wait before the restart.

        Args:
            now_s: When the process was reaped, in seconds on a clock that never goes back.
            ready_since_s: When it had become ready on that clock, or None if it never was.
            chance: From 0 to 1, for the jitter.

        Returns:
            The delay in seconds, or None to give up: the logger ends more often than the policy
            bears, or was not ready once in `START_TRIES_MAX` tries.

        Source:
            Erlang/OTP, supervisor, "Maximum Restart Intensity"; the doubling delay is ours.
        """
        policy = self.policy
        self._exits_s = [t for t in self._exits_s if t > now_s - policy.period_s] + [now_s]
        self._failed_starts = self._failed_starts + 1 if ready_since_s is None else 0
        if ready_since_s is not None and now_s - ready_since_s >= policy.healthy_s:
            self._streak = 0
        self._streak += 1
        if len(self._exits_s) > policy.intensity or self._failed_starts >= START_TRIES_MAX:
            self.forgive()
            return None
        doubled = policy.delay_s * 2.0 ** min(self._streak - 1, DOUBLINGS_MAX)
        return min(doubled, policy.delay_s_max) * (1 - JITTER + 2 * JITTER * chance)

    def forgive(self) -> None:
        """Forget all exits, before a logger that was given up is tried again."""
        self._exits_s = []
        self._streak = 0
        self._failed_starts = 0
