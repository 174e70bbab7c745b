"""`bots run`: the posteriors that there are, and their past."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Annotated

import typer

import bots
from bots.cli import options
from bots.cli.connection import RunName, client_of, run_of, split
from bots.cli.console import Cell, out, say, show, show_one
from bots.cli.glance import glance

app = typer.Typer(no_args_is_help=True, help="The posteriors that there are, and their past.")

HYPERPARAMETERS = tuple(field.name for field in dataclasses.fields(bots.Hyperparameters))
RETENTION = tuple(field.name for field in dataclasses.fields(bots.Retention))

CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", show_default=False)]


@app.command()
def create(
    context: typer.Context,
    run: RunName,
    fork_from: Annotated[
        str | None, typer.Option(metavar="RUN[@VERSION]", help="Start at another run of the dataset.")
    ] = None,
    forgetting: options.Forgetting = None,
    implicit_weight: options.ImplicitWeight = None,
    target: options.Target = None,
    implicit_rollouts: options.ImplicitRollouts = None,
    capability_smoothing: options.CapabilitySmoothing = None,
    rollouts_per_update: options.RolloutsPerUpdate = None,
    tolerance: options.Tolerance = None,
    cooldown: options.Cooldown = None,
    uniform_fraction: options.UniformFraction = None,
    temperature: options.Temperature = None,
    greedy: options.Greedy = None,
    snapshot_interval: Annotated[int | None, typer.Option(help="Events between snapshots.")] = None,
    history: Annotated[int | None, typer.Option(help="Events kept behind the newest.")] = None,
    history_stride: Annotated[int | None, typer.Option(help="Versions between the snapshots kept.")] = None,
    request_memory: Annotated[int | None, typer.Option(help="Ids of reports remembered.")] = None,
) -> None:
    """Starts a run. With equal content under the name, nothing happens."""
    hyperparameters = options.given(
        forgetting=forgetting,
        implicit_weight=implicit_weight,
        target=target,
        implicit_rollouts=implicit_rollouts,
        capability_smoothing=capability_smoothing,
        rollouts_per_update=rollouts_per_update,
        tolerance=tolerance,
        cooldown=cooldown,
        uniform_fraction=uniform_fraction,
        temperature=temperature,
        greedy=greedy,
    )
    dataset, name = split(run)
    created = client_of(context).create_run(
        dataset,
        name,
        fork_from=None if fork_from is None else _fork_point(fork_from),
        retention=bots.Retention(
            snapshot_interval=snapshot_interval,
            history=history,
            history_stride=history_stride,
            request_memory=request_memory,
        ),
        **hyperparameters,
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
    out.print(glance(summary, None, datetime.now(timezone.utc)))


@app.command()
def update(
    context: typer.Context,
    run: RunName,
    forgetting: options.Forgetting = None,
    implicit_weight: options.ImplicitWeight = None,
    target: options.Target = None,
    implicit_rollouts: options.ImplicitRollouts = None,
    capability_smoothing: options.CapabilitySmoothing = None,
    rollouts_per_update: options.RolloutsPerUpdate = None,
    tolerance: options.Tolerance = None,
    cooldown: options.Cooldown = None,
    uniform_fraction: options.UniformFraction = None,
    temperature: options.Temperature = None,
    greedy: options.Greedy = None,
) -> None:
    """Changes hyperparameters, for every trainer of the run."""
    hyperparameters = options.given(
        forgetting=forgetting,
        implicit_weight=implicit_weight,
        target=target,
        implicit_rollouts=implicit_rollouts,
        capability_smoothing=capability_smoothing,
        rollouts_per_update=rollouts_per_update,
        tolerance=tolerance,
        cooldown=cooldown,
        uniform_fraction=uniform_fraction,
        temperature=temperature,
        greedy=greedy,
    )
    show_one(_properties(run_of(context, run).update(**hyperparameters)))


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
