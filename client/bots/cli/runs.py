"""`bots run`: runs and their history."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime, timezone
from typing import Annotated, Literal

import typer

import bots
from bots.cli import options
from bots.cli.connection import RunName, client_of, run_of, split, tasks_of
from bots.cli.console import Cell, counted, err, out, say, show, show_json, show_one, show_records
from bots.cli.glance import glance

app = typer.Typer(no_args_is_help=True, help="Runs and their history.")

HYPERPARAMETERS = tuple(field.name for field in dataclasses.fields(bots.Hyperparameters))

CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", show_default=False)]
TaskNames = Annotated[list[str], typer.Argument(metavar="TASK...", show_default=False)]
Row = Annotated[bool, typer.Option("--row", help="The tasks are row numbers although the dataset has ids.")]


@app.command()
def create(
    context: typer.Context,
    run: RunName,
    model: Annotated[
        Literal["interpolation", "item_response"] | None, typer.Option(help="Default: what the columns are for.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Label of the policy that trains.")] = "",
    fork_from: Annotated[
        str | None, typer.Option(metavar="[DATASET/]RUN[@VERSION]", help="Start at the posterior of another run.")
    ] = None,
    target: options.Target = None,
    rest: options.Rest = None,
    uniform_fraction: options.UniformFraction = None,
    temperature: options.Temperature = None,
    greedy: options.Greedy = None,
    rollouts_per_update: options.RolloutsPerUpdate = None,
    forgetting: options.Forgetting = None,
    implicit_weight: options.ImplicitWeight = None,
    implicit_rollouts: options.ImplicitRollouts = None,
    residual_memory: options.ResidualMemory = None,
    drift: options.Drift = None,
    as_json: options.Json = False,
) -> None:
    """Starts a run. If the run exists and was asked for equally, nothing happens."""
    given = options.given(
        target=target,
        rest=rest,
        uniform_fraction=uniform_fraction,
        temperature=temperature,
        greedy=greedy,
        rollouts_per_update=rollouts_per_update,
        forgetting=forgetting,
        implicit_weight=implicit_weight,
        implicit_rollouts=implicit_rollouts,
        residual_memory=residual_memory,
        drift=drift,
    )
    dataset, name = split(run)
    fork = None if fork_from is None else _fork_point(fork_from)
    made = client_of(context).create_run(dataset, name, model=model, policy=policy, fork_from=fork, **given)
    _show_run(made.info(), as_json)


@app.command("list")
def list_(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Shows the runs of a dataset."""
    runs = list(client_of(context).list_runs(dataset))
    if as_json:
        show_json(runs)
        return
    show(
        ("name", "model", "version", "target", "policy", "forked from", "created"),
        [
            (
                run.name,
                "damaged" if run.damage else run.model,
                run.version,
                None if run.damage else run.hyperparameters.target,
                run.policy,
                _point(run.forked_from),
                run.create_time,
            )
            for run in runs
        ],
    )
    for run in runs:
        if run.damage:
            say(f"{run.name}: {run.damage}")


@app.command("show")
def show_(context: typer.Context, run: RunName, as_json: options.Json = False) -> None:
    """Shows one run: its hyperparameters, and how hard the tasks are for the policy now."""
    summary = run_of(context, run).summary()
    if as_json:
        show_json(summary)
        return
    show_one(_properties(summary.run))
    out.print(glance(summary, None, datetime.now(timezone.utc)))


@app.command()
def update(
    context: typer.Context,
    run: RunName,
    target: options.Target = None,
    rest: options.Rest = None,
    uniform_fraction: options.UniformFraction = None,
    temperature: options.Temperature = None,
    greedy: options.Greedy = None,
    rollouts_per_update: options.RolloutsPerUpdate = None,
    forgetting: options.Forgetting = None,
    implicit_weight: options.ImplicitWeight = None,
    implicit_rollouts: options.ImplicitRollouts = None,
    residual_memory: options.ResidualMemory = None,
    drift: options.Drift = None,
    as_json: options.Json = False,
) -> None:
    """Changes hyperparameters, for every trainer of the run."""
    given = options.given(
        target=target,
        rest=rest,
        uniform_fraction=uniform_fraction,
        temperature=temperature,
        greedy=greedy,
        rollouts_per_update=rollouts_per_update,
        forgetting=forgetting,
        implicit_weight=implicit_weight,
        implicit_rollouts=implicit_rollouts,
        residual_memory=residual_memory,
        drift=drift,
    )
    _show_run(run_of(context, run).update(**given), as_json)


@app.command()
def retire(
    context: typer.Context,
    run: RunName,
    tasks: TaskNames,
    reason: Annotated[str, typer.Option(help="For the history: a broken verifier, a duplicate.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take them back.")] = False,
    row: Row = False,
) -> None:
    """Takes tasks out of every selection."""
    changed = run_of(context, run)
    change = changed.unretire if undo else changed.retire
    retired = change(tasks_of(context, run, tasks, row), reason=reason, rows=row)
    say(f"{counted(retired, 'task')} {'is' if retired == 1 else 'are'} retired")


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


def _show_run(run: bots.RunInfo, as_json: bool) -> None:
    if as_json:
        show_json(run)
    else:
        show_one(_properties(run))


def _properties(run: bots.RunInfo) -> list[tuple[str, Cell]]:
    given = {name: getattr(run.hyperparameters, name) for name in HYPERPARAMETERS}
    return [
        ("run", f"{run.dataset}/{run.name}"),
        ("uid", run.uid),
        ("model", run.model),
        ("policy", run.policy or None),
        ("version", run.version),
        ("forked from", _point(run.forked_from)),
        ("created", run.create_time),
        *((name, value) for name, value in given.items() if value is not None),
    ]


def _point(fork: bots.ForkPoint | None) -> str | None:
    return None if fork is None else f"{fork.dataset}/{fork.run}@{fork.version}"


def _fork_point(text: str) -> bots.ForkPoint:
    name, at, version = text.partition("@")
    dataset, slash, run = name.rpartition("/")
    if at and not version.isdecimal():
        raise ValueError(f"fork-from: got {text!r}, must be written [DATASET/]RUN[@VERSION]")
    return bots.ForkPoint(run, int(version) if at else None, dataset if slash else None)
