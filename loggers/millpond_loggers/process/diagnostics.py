"""What a logger has to say about itself, with ``self.logger``.

In a logger process its records go to the daemon's log, with their level.  So does what libraries
say through `logging`, from WARNING on, unless the logger's author has configured `logging`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

from millpond.logger_lines import mark

# Those whose INFO is shown; of libraries that would be too much.
OWN: Final = ("millpond", "millpond_loggers")


class Lines(logging.Handler):
    """Writes records to standard error, each line with its level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record in one go."""
        try:
            sys.stderr.write(f"{mark(record.levelno, self.format(record))}\n")
        except Exception:  # noqa: BLE001  A record that cannot be written is no fault of the result.
            self.handleError(record)


def diagnostics_of(name: str) -> logging.Logger:
    """The diagnostics of the logger of this name."""
    return logging.getLogger(f"millpond.{name}")


def show_diagnostics() -> None:
    """Let all that is said through `logging` in this process be lines with a level.

    This takes the place of the handler of last resort, so that whoever configures `logging` in
    a logger finds nothing in the way.
    """
    logging.lastResort = Lines()
    for name in OWN:
        logging.getLogger(name).setLevel(logging.INFO)
