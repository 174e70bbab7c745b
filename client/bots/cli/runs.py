"""`bots run`: the posteriors that there are, and their past."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

import bots
from bots.cli.connection import RunName, client_of, run_of, split
from bots.cli.console import Cell, out, say, show, show_one
from bots.cli.glance import glance

app = typer.Typer(no_args_is_help=True, help="The posteriors that there are, and their past.")

HYPERPARAMETERS = tuple(field.name for field in dataclasses.fields(bots.Hyperparameters))
RETENTION = tuple(field.name for field in dataclasses.fields(bots.Retention))

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=VALUE]...", help=f"Hyperparameters: {', '.join(HYPERPARAMETERS)}.", show_default=False
    ),
]
CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", show_default=False)]


@app.command()
def create(
    context: typer.Context,
    run: RunName,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help=f"Hyperparameters: {', '.join(HYPERPARAMETERS)}; and what is kept: {', '.join(RETENTION)}.",
            show_default=False,
        ),
    ] = None,
    fork_from: Annotated[
        str | None, typer.Option(metavar="RUN[@VERSION]", help="Start at another run of the dataset.")
    ] = None,
) -> None:
    """Starts a run. With equal content under the name, nothing happens."""
    dataset, name = split(run)
    values = _parse(settings, (*HYPERPARAMETERS, *RETENTION))
    kept = {name: int(value) for name, value in values.items() if name in RETENTION}
    created = client_of(context).create_run(
        dataset,
        name,
        fork_from=None if fork_from is None else _fork_point(fork_from),
        retention=bots.Retention(**kept) if kept else None,
        **{name: value for name, value in values.items() if name in HYPERPARAMETERS},
    )
    show_one(_properties(created.info()))


@app.command("list")
def list_(context: typer.Context, dataset: Annotated[str, typer.Argument(show_default=False)]) -> None:
    """Shows the runs of a dataset."""
    show(
        ("name", "version", "target", "forgetting", "forked from", "created"),
        [
            (
                run.name,
                run.version,
                run.hyperparameters.target,
                run.hyperparameters.forgetting,
                _point(run.forked_from),
                run.create_time,
            )
            for run in client_of(context).list_runs(dataset)
        ],
    )


@app.command("show")
def show_(context: typer.Context, run: RunName) -> None:
    """Shows one run: what it learns by, and how hard the data is for the policy now."""
    summary = run_of(context, run).summary()
    show_one(_properties(summary.run))
    out.print(glance(summary, None))


@app.command()
def update(context: typer.Context, run: RunName, settings: Settings = None) -> None:
    """Changes hyperparameters, for every trainer of the run."""
    show_one(_properties(run_of(context, run).update(**_parse(settings, HYPERPARAMETERS))))


@app.command()
def delete(
    context: typer.Context,
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Deletes a run with its history and checkpoints."""
    dataset, name = split(run)
    if not yes:
        typer.confirm(f"delete run {run} with its history?", abort=True)
    client_of(context).delete_run(dataset, name)
    say(f"{run} is deleted")


@app.command()
def checkpoint(
    context: typer.Context,
    run: RunName,
    name: CheckpointName,
    version: Annotated[int | None, typer.Option(help="Version to keep; the newest where it is left out.")] = None,
    ttl_seconds: Annotated[float | None, typer.Option(help="For how long; for ever where it is left out.")] = None,
) -> None:
    """Keeps a version under a name."""
    kept = run_of(context, run).checkpoint(name, version=version, ttl_seconds=ttl_seconds)
    say(f"{kept.name}: version {kept.version}")


@app.command()
def checkpoints(context: typer.Context, run: RunName) -> None:
    """Shows the checkpoints of a run."""
    show(
        ("name", "version", "created", "expires"),
        [(kept.name, kept.version, kept.create_time, kept.expire_time) for kept in run_of(context, run).checkpoints()],
    )


@app.command()
def delete_checkpoint(context: typer.Context, run: RunName, name: CheckpointName) -> None:
    """Deletes a checkpoint."""
    run_of(context, run).delete_checkpoint(name)
    say(f"{name} is deleted")


@app.command()
def restore(
    context: typer.Context,
    run: RunName,
    checkpoint: Annotated[str | None, typer.Argument(help="The checkpoint to go back to.", show_default=False)] = None,
    version: Annotated[int | None, typer.Option(help="The version to go back to.")] = None,
) -> None:
    """Goes back to a checkpoint or a version, for every trainer of the run."""
    say(f"{run}: version {run_of(context, run).restore(checkpoint=checkpoint, version=version)}")


@app.command()
def events(
    context: typer.Context,
    run: RunName,
    after: Annotated[int | None, typer.Option(help="Only events above this version.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
) -> None:
    """Shows the history of a run, oldest first."""
    show(
        ("version", "time", "job", "event"),
        [
            (event.version, event.time, event.job, _described(event.kind))
            for event in run_of(context, run).events(after_version=after, limit=limit)
        ],
    )


def _described(kind: bots.ReportEvent | bots.HyperparametersEvent | bots.RestoreEvent) -> str:
    match kind:
        case bots.ReportEvent():
            return f"report of {len(kind.tasks)} tasks: {kind.successes.sum():g} of {kind.rollouts.sum()} rollouts"
        case bots.HyperparametersEvent():
            return "changed " + ", ".join(f"{name}={value}" for name, value in kind.changes.items())
        case bots.RestoreEvent():
            return f"restored version {kind.version}" + (f" ({kind.checkpoint})" if kind.checkpoint else "")


def _properties(run: bots.RunInfo) -> list[tuple[str, Cell]]:
    return [
        ("run", f"{run.dataset}/{run.name}"),
        ("uid", run.uid),
        ("version", run.version),
        ("forked from", _point(run.forked_from)),
        ("created", run.create_time),
        *((name, getattr(run.hyperparameters, name)) for name in HYPERPARAMETERS),
        *((name, getattr(run.retention, name)) for name in RETENTION),
    ]


def _point(fork: bots.ForkPoint | None) -> str | None:
    return None if fork is None else f"{fork.run}@{fork.version}"


def _fork_point(text: str) -> bots.ForkPoint:
    run, at, version = text.partition("@")
    return bots.ForkPoint(run, int(version) if at else None)


def _parse(settings: list[str] | None, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the values of NAME=VALUE. ValueError: another name, or no number, true or false."""
    values: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, text = setting.partition("=")
        if not equals or name not in names:
            raise ValueError(f"{setting!r}: must be NAME=VALUE with a name of {', '.join(names)}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            raise ValueError(f"{name}: {text!r}, must be a number, true or false") from None
        if not isinstance(values[name], int | float):
            raise ValueError(f"{name}: {text!r}, must be a number, true or false")
    return values
