"""`bots run`: the history of a run, its checkpoints and its leases."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

import bots
from bots.cli import options
from bots.cli.connection import RunName, run_of
from bots.cli.console import counted, err, say, show, show_json, show_records

app = typer.Typer()

CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", show_default=False)]


@app.command()
def checkpoint(
    context: typer.Context,
    run: RunName,
    name: CheckpointName,
    version: Annotated[int | None, typer.Option(help="Version to keep; default: the newest.")] = None,
    ttl_seconds: Annotated[float | None, typer.Option(help="For how long; default: until it is deleted.")] = None,
) -> None:
    """Keeps a version under a name."""
    kept = run_of(context, run).checkpoint(name, version=version, ttl_seconds=ttl_seconds)
    say(f"{kept.name}: version {kept.version}")


@app.command()
def checkpoints(context: typer.Context, run: RunName, as_json: options.Json = False) -> None:
    """Shows the checkpoints of a run."""
    columns = {"name": "name", "version": "version", "created": "create_time", "expires": "expire_time"}
    show_records(list(run_of(context, run).checkpoints()), columns, as_json)


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
def undo(
    context: typer.Context,
    run: RunName,
    version: Annotated[int, typer.Argument(help="The version that the report made.", show_default=False)],
) -> None:
    """Takes one report out, for every trainer of the run. What came after it stays."""
    say(f"{run}: version {run_of(context, run).undo(version)}")


@app.command()
def leases(context: typer.Context, run: RunName, as_json: options.Json = False) -> None:
    """Shows the selections that have leased tasks."""
    columns = {"selection": "selection_id", "identity": "identity", "job": "job", "tasks": "tasks"}
    show_records(list(run_of(context, run).leases()), columns | {"seconds left": "remaining_seconds"}, as_json)


@app.command()
def release(
    context: typer.Context,
    run: RunName,
    selection: Annotated[str | None, typer.Option(help="End the leases of this selection.")] = None,
    held_by: Annotated[str | None, typer.Option(metavar="JOB", help="End the leases of this job.")] = None,
    every: Annotated[bool, typer.Option("--all", help="End all leases of the run.")] = False,
) -> None:
    """Ends leases, so that the tasks can be selected again."""
    if [selection is not None, held_by is not None, every].count(True) != 1:
        raise ValueError("release: got none or several, must have exactly one of --selection, --held-by and --all")
    held = run_of(context, run)
    ended = held.release(selection) if selection is not None else held.end_leases(job=held_by)
    say(f"{ended:,} leases ended")


@app.command()
def events(
    context: typer.Context,
    run: RunName,
    after: Annotated[int | None, typer.Option(help="Only events above this version.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many; 0: all.", min=0)] = 100,
    as_json: options.Json = False,
) -> None:
    """Shows the history of a run, oldest first. With --json: one event a line."""
    history = run_of(context, run).events(after_version=after)
    shown = itertools.islice(history, limit or None)
    if as_json:
        for event in shown:
            show_json(event)
        return
    show(
        ("version", "time", "identity", "job", "event"),
        [(event.version, event.time, event.identity, event.job, _described(event.kind)) for event in shown],
    )
    if limit and next(history, None) is not None:
        err.print(f"there are more than {limit}: --after or --limit 0")


def _described(
    kind: bots.ReportEvent | bots.HyperparametersEvent | bots.RestoreEvent | bots.UndoEvent | bots.RetireEvent,
) -> str:
    match kind:
        case bots.ReportEvent():
            solved = f"{kind.successes.sum():,g} of {counted(int(kind.rollouts.sum()), 'rollout')}"
            said = f"report of {counted(len(kind.tasks), 'task')}: {solved}"
            if len(kind.shadow_tasks):
                said += f", {counted(len(kind.shadow_tasks), 'shadow task')}"
            return said if kind.outlier is None else f"{said} (outlier: {_outlier(kind.outlier)})"
        case bots.HyperparametersEvent():
            return "changed " + ", ".join(f"{name}={value}" for name, value in kind.changes.items())
        case bots.RestoreEvent():
            return f"restored version {kind.version}" + (f" ({kind.checkpoint})" if kind.checkpoint else "")
        case bots.UndoEvent():
            return f"undid version {kind.version}"
        case bots.RetireEvent():
            done = "took back" if kind.undo else "retired"
            return f"{done} {counted(len(kind.tasks), 'task')}" + (f": {kind.reason}" if kind.reason else "")


def _outlier(of: bots.Outlier) -> str:
    return f"pass rates {of.deviation:+.1f} standard deviations, rollouts {of.rollouts_ratio:.3g} times the usual"
