"""How a command ends: its exit codes, and the line that says why."""

from __future__ import annotations

from typing import Final, NoReturn

import typer

EXIT_USAGE: Final = 64
EXIT_NOT_RUNNING: Final = 69
EXIT_FAILED: Final = 70
EXIT_ALREADY_RUNNING: Final = 75
EXIT_CONFIG: Final = 78


def fail(problem: str, code: int) -> NoReturn:
    """Say what is wrong, and end."""
    typer.echo(f"millpond: {problem}", err=True)
    raise typer.Exit(code)
