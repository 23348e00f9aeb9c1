"""``python -m millpond`` and the command ``millpond``."""

from __future__ import annotations

import sys
from typing import Final

TYPER_USAGE: Final = 2
EXIT_USAGE: Final = 64
EXIT_BUG: Final = 70


def main() -> None:
    """Run the command line; the version is told without importing any of it."""
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


if __name__ == "__main__":
    main()
