"""``millpond loggers`` and ``millpond init-logger``: which loggers there are, and a new one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli_exit import EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE, fail
from millpond.errors import ConfigError

if TYPE_CHECKING:
    from millpond.logger_list import ListedLogger, Option

app = typer.Typer(
    help="The loggers that a configuration may name.", no_args_is_help=True, add_completion=False
)


@app.command("list")
def list_loggers(
    name: Annotated[
        str | None,
        typer.Argument(help="Only this one, with its options: a short name, a path or a file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """List the loggers: what each writes, where it comes from, what it needs, its options."""
    from millpond import logger_list  # noqa: PLC0415

    if name is not None:
        _list_one(name, as_json=as_json)
        return
    rows = logger_list.list_loggers()
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows], indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        typer.echo("\n".join(line for row in rows for line in lines_of(row)))


def init_logger(
    name: Annotated[str, typer.Argument(help="What to call it, such as worst.")],
    folder: Annotated[
        Path, typer.Option(help="Where to write its two files.", file_okay=False)
    ] = Path(),
) -> None:
    """Write a small logger that works, and its test: the beginning of one of your own."""
    from millpond.logger_template import write_logger  # noqa: PLC0415

    try:
        made = write_logger(name, folder)
    except (ValueError, FileExistsError) as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(str(error), EXIT_FAILED)
    typer.echo(f"wrote {made.module} and {made.test}")
    typer.echo("in the configuration, relative to its folder or to where you run it:")
    typer.echo(f"  logging: {{logger_modules: [{made.reference}]}}")
    typer.echo("its test:")
    typer.echo(f"  python -m pytest {made.test}")


def lines_of(row: ListedLogger) -> list[str]:
    """A logger in the list, for people: what it is, and the names of its options."""
    if row.description.options is None:
        options = "not described: it takes any"
    else:
        options = ", ".join(option.name for option in row.description.options) or "none"
    return [*_head_lines(row), *([] if row.description.problem else [f"  options: {options}"])]


def lines_with_options(row: ListedLogger) -> list[str]:
    """A logger with all that it says of its options."""
    lines = _head_lines(row)
    if row.description.options is None:
        return [*lines, "  options: not described: it takes any"]
    if not row.description.options:
        return [*lines, "  options: none"]
    return [*lines, "  options:", *(f"    {_option_line(one)}" for one in row.description.options)]


def _list_one(name: str, *, as_json: bool) -> None:
    from millpond.logger_list import list_logger  # noqa: PLC0415

    try:
        row = list_logger(name)
    except ConfigError as error:
        fail(error.problem, EXIT_USAGE)
    if as_json:
        typer.echo(json.dumps(row.to_json(), indent=2))
    elif not row.description.problem:
        typer.echo("\n".join(lines_with_options(row)))
    if row.description.problem:
        fail(f"{name} cannot be used: {row.description.problem}", EXIT_CONFIG)


def _head_lines(row: ListedLogger) -> list[str]:
    lines = [f"{row.name}: {row.state}"]
    if row.description.summary:
        lines.append(f"  {row.description.summary}")
    return [*lines, f"  {row.place}, {row.origin}" if row.origin else f"  {row.place}"]


def _option_line(option: Option) -> str:
    default = "required" if option.is_required else f"default {json.dumps(option.default)}"
    about = ", ".join(filter(None, (option.type, option.range, default)))
    return f"{option.name} ({about})" + (f": {option.description}" if option.description else "")


def _print_table(rows: Sequence[ListedLogger]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False, leading=1)
    for title in ("logger", "what it does", "from", "state", "options"):
        table.add_column(title, overflow="fold", no_wrap=title == "logger")
    for row in rows:
        options = row.description.options or ()
        table.add_row(
            row.name,
            row.description.summary,
            row.origin,
            row.state,
            ", ".join(option.name for option in options),
        )
    # A [parquet] in a command is no markup.
    Console(markup=False, highlight=False).print(table)
