"""The command line.

Exit codes: 0 all is well, 1 something was lost, 64 wrong usage, 69 not running, 70 the daemon has
a bug or the machine failed it, 75 already running, 78 wrong configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from millpond import __version__, cli_dead, cli_loggers
from millpond.cli_exit import (
    EXIT_ALREADY_RUNNING,
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_NOT_RUNNING,
    EXIT_USAGE,
    fail,
)
from millpond.errors import ConfigError, MillpondError

app = typer.Typer(
    help="The daemon beside a renderer: each result once in shared memory, every logger fed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[Path, typer.Argument(help="The YAML file.", metavar="CONFIG")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override a key: --set service.drain_s=3.  May be repeated."),
]


@app.command()
def run(
    config: ConfigArgument,
    exit_when_done: Annotated[
        bool,
        typer.Option(
            "--exit-when-done",
            help="End when every renderer has left and all is recorded, or waits on the disk for a "
            "logger that was given up (exit code 1).",
        ),
    ] = False,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C; twice ends it at once."""
    from millpond import diagnostics  # noqa: PLC0415
    from millpond.config.load import load  # noqa: PLC0415
    from millpond.machine_check import check_machine  # noqa: PLC0415
    from millpond.module_search import check_modules, logger_search_path  # noqa: PLC0415

    try:
        loaded = load(config, overrides=overrides)
        diagnostics.configure(loaded.service.log_format)
        modules = check_modules(loaded, search_path=logger_search_path(config))
        check_machine(loaded)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    from millpond.run_folder import AlreadyRunning  # noqa: PLC0415
    from millpond.serve import serve  # noqa: PLC0415

    try:
        code = serve(
            loaded,
            [modules[logger.name] for logger in loaded.loggers],
            exit_when_done=exit_when_done,
        )
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except AlreadyRunning as error:
        fail(str(error), EXIT_ALREADY_RUNNING)
    except (MillpondError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    raise typer.Exit(code)


@app.command()
def check(config: ConfigArgument, overrides: SetOption = []) -> None:  # noqa: B006
    """Say whether a configuration can be run here; start nothing that stays."""
    from millpond.config.load import load  # noqa: PLC0415
    from millpond.filters import check_channels  # noqa: PLC0415
    from millpond.logger_check import check_loggers  # noqa: PLC0415
    from millpond.machine_check import check_machine  # noqa: PLC0415
    from millpond.module_search import check_modules, logger_search_path  # noqa: PLC0415

    try:
        loaded = load(config, overrides=overrides)
        search_path = logger_search_path(config)
        modules = check_modules(loaded, search_path=search_path)
        check_machine(loaded)
        if loaded.buffer.declared is not None:
            check_channels(loaded, loaded.buffer.declared)
        notes = check_loggers(loaded, modules)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    names = ", ".join(logger.name for logger in loaded.loggers)
    typer.echo(f"{config}: good; loggers: {names}; files in {loaded.output_dir}")
    for note in notes:
        typer.echo(f"note: {note}")


@app.command()
def status(
    where: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a health socket, or the YAML file of the run.", metavar="WHERE"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show what a running daemon does."""
    from millpond.health_client import fetch_status, health_socket_of  # noqa: PLC0415

    try:
        health_socket = health_socket_of(where)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    try:
        now = fetch_status(health_socket)
    except OSError as error:
        problem = error.strerror or error
        fail(f"no daemon answers at {health_socket}: {problem}", EXIT_NOT_RUNNING)
    typer.echo(json.dumps(now, indent=2) if as_json else status_text(now))


@app.command()
def verify(
    where: Annotated[
        Path,
        typer.Argument(help="A run folder, or the YAML file of the run.", metavar="RUN"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Say whether every published result has its outcome, and is in the loggers' files."""
    from millpond.verify import run_folder_of  # noqa: PLC0415
    from millpond.verify import verify as compare  # noqa: PLC0415

    try:
        report = compare(run_folder_of(where))
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except FileNotFoundError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(str(error), EXIT_FAILED)
    typer.echo(json.dumps(report.to_json()) if as_json else "\n".join(report.lines()))
    raise typer.Exit(0 if report.is_good else 1)


@app.command()
def bench(
    config: ConfigArgument,
    rate: Annotated[
        float | None, typer.Option(help="Results per second that you want.", min=0.001)
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each run publishes.", min=0.1)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Measure what a configuration can do here, logger by logger, and what holds it back."""
    from millpond.bench import bench as measure  # noqa: PLC0415
    from millpond.config.load import load  # noqa: PLC0415
    from millpond.machine_check import check_machine  # noqa: PLC0415
    from millpond.module_search import check_modules, logger_search_path  # noqa: PLC0415

    try:
        loaded = load(config, overrides=overrides)
        modules = check_modules(loaded, search_path=logger_search_path(config))
        check_machine(loaded)
        report = measure(loaded, modules, seconds=seconds)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except MillpondError as error:
        fail(str(error), EXIT_FAILED)
    typer.echo(json.dumps(report.to_json()) if as_json else "\n".join(report.lines(rate)))


def status_text(now: dict[str, Any]) -> str:
    """A status for people: a head line, then a line for each logger, and for its processes."""
    slots = now["slots"]
    lines = [
        f"{now['name']}: {now['state']}, pid {now['pid']}, up {now['uptime_s']:.0f} s, "
        f"{now['results']} results, {slots['free']} of {slots['total']} slots free, "
        f"renderers: {len(now['renderers'])}"
    ]
    for name, row in now["loggers"].items():
        lines.append(f"  {name}: {_row_text(row)}")
        for number, process in enumerate(row.get("processes", ()), 1):
            lines.append(f"    {name}/{number}: {_row_text(process)}")
    return "\n".join(lines)


def _row_text(row: dict[str, Any]) -> str:
    """The numbers of a logger, or of one of its processes."""
    lag = row["queued"] + row["in_window"]
    count = row.get("filtered", 0)  # A process gets nothing that is filtered.
    filtered = f"{count} filtered, " if count else ""
    error = f", last error: {row['last_error']}" if row["last_error"] else ""
    state = f"{row['state']}, cannot write" if row["is_suspended"] else row["state"]
    return (
        f"{state}, {row['delivered']} delivered, {filtered}{lag} waiting, "
        f"{row['spilled']} on the disk, {row['dead']} dead, {row['restarts']} restarts{error}"
    )


# In the order of `--help`: those that everybody needs came first.
app.command()(cli_dead.replay)
app.command()(cli_loggers.init_logger)
app.add_typer(cli_dead.app, name="dead")
app.add_typer(cli_loggers.app, name="loggers")


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
) -> None:
    """The daemon beside a renderer: each result once in shared memory, every logger fed."""
    if version:
        typer.echo(f"millpond {__version__}")
        raise typer.Exit
