"""``millpond dead`` and ``millpond replay``: what loggers missed, and trying it again."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millpond.cli_exit import EXIT_ALREADY_RUNNING, EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE, fail
from millpond.errors import ConfigError, MillpondError

if TYPE_CHECKING:
    from millpond.dead_letters import DeadLine


app = typer.Typer(
    help="The results that a logger will never get, and trying them again.",
    no_args_is_help=True,
    add_completion=False,
)

RunArgument = Annotated[
    Path, typer.Argument(help="The run folder, or the YAML file of the run.", metavar="RUN")
]
LoggerOption = Annotated[
    list[str], typer.Option("--logger", help="Of this logger only.  May be repeated.")
]


@app.command("list")
def list_dead(
    run: RunArgument,
    loggers: LoggerOption = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each.")] = False,
) -> None:
    """List the dead results of a run, with the reason of each and the last line of its problem."""
    from millpond.core.logger_record import brief  # noqa: PLC0415
    from millpond.logger_output import escape  # noqa: PLC0415

    for line in _dead(_run_folder(run), loggers):
        if as_json:
            typer.echo(json.dumps(line._asdict()))
        else:
            name = line.id or f"renderer {line.renderer}, sequence {line.sequence}"
            kept = f", arrays in {line.arrays}" if line.arrays else ""
            why = f": {escape(brief(line.problem))}" if line.problem.strip() else ""
            typer.echo(f"{line.logger}: {name}: {line.reason}, {line.at}{kept}{why}")


@app.command("retry")
def retry_dead(
    run: RunArgument,
    ids: Annotated[list[str], typer.Argument(help="Only results of these ids.")] = [],  # noqa: B006
    loggers: LoggerOption = [],  # noqa: B006
) -> None:
    """Take dead results back: the next start of the run delivers them again.

    Only those whose arrays were kept can be; `millpond replay RUN` delivers them at once.
    """
    from millpond.dead_letters import retract  # noqa: PLC0415

    folder = _run_folder(run)
    chosen = _dead(folder, loggers, ids)
    kept = [line for line in chosen if line.arrays and (folder / line.arrays).is_file()]
    try:
        retract(folder, [(line.logger, line.renderer, line.sequence) for line in kept])
    except OSError as error:
        fail(f"{folder}: {error.strerror}", EXIT_FAILED)
    if kept:
        typer.echo(f"{len(kept)} results are delivered again by: millpond replay {run}")
    elif not chosen:
        typer.echo("no such result is dead")
    if len(kept) < len(chosen):
        typer.echo(f"{len(chosen) - len(kept)} cannot be: their arrays were not kept")


def replay(
    run: RunArgument,
    loggers: LoggerOption = [],  # noqa: B006
) -> None:
    """Deliver what waits on the disk for the loggers of a run, without any renderer, and end."""
    from millpond import diagnostics  # noqa: PLC0415
    from millpond.config.load import load  # noqa: PLC0415
    from millpond.ledger_reader import config_of  # noqa: PLC0415
    from millpond.module_search import check_modules, logger_search_path  # noqa: PLC0415
    from millpond.run_folder import AlreadyRunning  # noqa: PLC0415
    from millpond.serve import serve  # noqa: PLC0415

    source, overrides = run, []
    if run.is_dir():
        given = config_of(run)
        if given is None:
            fail(f"{run} has no ledger that names its configuration: give the YAML", EXIT_USAGE)
        # The folder may have been moved since.  JSON is YAML, whatever is in the name.
        source, overrides = given, [f"output_dir={json.dumps(str(run.resolve()))}"]
    try:
        loaded = load(source, overrides=overrides)
        loaded = loaded.only(loggers) if loggers else loaded
        diagnostics.configure(loaded.service.log_format)
        modules = check_modules(loaded, search_path=logger_search_path(source))
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    try:
        code = serve(loaded, [modules[one.name] for one in loaded.loggers], is_replay=True)
    except AlreadyRunning as error:
        fail(str(error), EXIT_ALREADY_RUNNING)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except (MillpondError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    raise typer.Exit(code)


def _run_folder(run: Path) -> Path:
    """The folder of a run, given itself or the configuration of the run; ends if it is neither."""
    from millpond.verify import run_folder_of  # noqa: PLC0415

    try:
        return run_folder_of(run)
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except FileNotFoundError as error:
        fail(str(error), EXIT_USAGE)


def _dead(folder: Path, loggers: Collection[str], ids: Collection[str] = ()) -> list[DeadLine]:
    """The dead results of these loggers and ids; of all, where none is named."""
    from millpond.dead_letters import dead_of  # noqa: PLC0415

    try:
        dead = dead_of(folder)
    except OSError as error:
        fail(str(error), EXIT_FAILED)
    return [
        line
        for line in dead.values()
        if (not loggers or line.logger in loggers) and (not ids or line.id in ids)
    ]
