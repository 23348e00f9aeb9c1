"""A logger that records nothing and counts: to measure everything else, and to try a set-up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from millpond_loggers.base import BaseLogger, ResultBuffer


class NullLogger(BaseLogger):
    """Counts the results, and says how many at the end.

    Attributes:
        result_count: Results since this process began.
    """

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Begin at zero."""
        super().__init__(root_dir, result_buffer, config)
        self.regid = self.buffer.register()
        self.result_count = 0
        self._is_over = False

    def log(self, item: dict[str, Any] | None) -> None:
        """Count one result; its arrays are not looked at."""
        if item is None:
            self.end()
            return
        self.result_count += 1

    def end(self) -> None:
        """Print how many there were, once."""
        if not self._is_over:
            self._is_over = True
            sys.stdout.write(f"{self.result_count} results\n")
            sys.stdout.flush()


Logger = NullLogger
