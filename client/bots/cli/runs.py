"""`bots run`: runs; `bots.cli.history` has their history."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import Annotated, Literal

import typer

import bots
from bots.cli import history, options
from bots.cli.connection import RunName, client_of, run_of, split, tasks_of
from bots.cli.console import Cell, counted, out, say, show, show_json, show_one
from bots.cli.glance import glance

app = typer.Typer(no_args_is_help=True, help="Runs and their history.")
app.add_typer(history.app)

HYPERPARAMETERS = tuple(field.name for field in dataclasses.fields(bots.Hyperparameters))

TaskNames = Annotated[list[str], typer.Argument(metavar="TASK...", show_default=False)]


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
    row: options.Row = False,
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
