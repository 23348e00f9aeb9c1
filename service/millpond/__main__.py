"""``python -m millpond`` and the command ``millpond``."""

from __future__ import annotations

import os
import sys
from typing import Final

TYPER_USAGE: Final = 2
EXIT_USAGE: Final = 64
EXIT_BUG: Final = 70


def main() -> None:
    """Run the command line; the version is told without importing any of it."""
    open_standard_streams()
    if sys.argv[1:] == ["--version"]:
        from millpond import __version__  # noqa: PLC0415

        sys.stdout.write(f"millpond {__version__}\n")
        return
    from millpond.cli import app  # noqa: PLC0415

    try:
        app()
    except SystemExit as end:
        # Typer says 2 for wrong usage; sysexits.h, whose other codes we use, says 64.
        sys.exit(EXIT_USAGE if end.code == TYPER_USAGE else end.code)
    except Exception:  # noqa: BLE001  A bug of ours: Python's 1 would say that results were lost.
        sys.excepthook(*sys.exc_info())
        sys.exit(EXIT_BUG)


def open_standard_streams() -> None:
    """Open what was closed by who started us: else the next file opened would take its place."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


if __name__ == "__main__":
    main()
