"""`bots select`, `bots report` and `bots posteriors`: the loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import typer

from bots.cli.connection import RunName, run_of
from bots.cli.console import err, say, show
from bots.cli.files import Table


def select(
    context: typer.Context,
    run: RunName,
    batch_size: Annotated[int, typer.Argument(metavar="N", help="Number of tasks.", show_default=False)],
    tag: Annotated[list[str] | None, typer.Option(help="Among the tasks of this tag; may be repeated.")] = None,
    lease_seconds: Annotated[float | None, typer.Option(help="Keep the tasks from others for so long.")] = None,
    allow_fewer: Annotated[bool, typer.Option("--allow-fewer", help="Show what there is.")] = False,
    target: Annotated[float | None, typer.Option(help="Pass rate to select near.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="By the posterior mean instead of a draw.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Above 0: softly instead of the nearest.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, version and eligible set: same batch.")] = None,
) -> None:
    """Shows the tasks to train on next; CSV where the output is no terminal."""
    batch = run_of(context, run).select(
        batch_size,
        tags=tag or (),
        lease_seconds=lease_seconds,
        allow_fewer=allow_fewer,
        target=target,
        greedy=greedy or None,
        temperature=temperature,
        seed=seed,
    )
    columns: dict[str, list[Any]] = {"task": batch.tasks.tolist()}
    if batch.ids is not None:
        columns["id"] = batch.ids
    columns |= {"mean": batch.means.tolist(), "draw": batch.draws.tolist()}
    show(tuple(columns), list(zip(*columns.values(), strict=True)))
    err.print(f"version {batch.version}, selection {batch.selection_id}", markup=False, soft_wrap=True)


def report(
    context: typer.Context,
    run: RunName,
    outcomes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK=SUCCESSES/ROLLOUTS]...", help="A TASK that is no number is an id.", show_default=False
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Outcomes in a file with columns task (or id), successes, rollouts; - is the standard input."
        ),
    ] = None,
    selection: Annotated[str, typer.Option(help="The selection that they answer; its leases are released.")] = "",
) -> None:
    """Adds outcomes of rollouts."""
    if (csv is None) == (not outcomes):
        raise ValueError("report: give outcomes as TASK=SUCCESSES/ROLLOUTS or --csv FILE")
    tasks, successes, rollouts = _from_file(csv) if csv is not None else _from_arguments(outcomes or [])
    version = run_of(context, run).report(tasks, successes, rollouts, selection_id=selection)
    say(f"version {version}")


def posteriors(
    context: typer.Context,
    run: RunName,
    out: Annotated[Path, typer.Option(help="Where to: a .csv (task, id, alpha, beta, mean) or a .npz (alpha, beta).")],
) -> None:
    """Writes the posterior of every task to a file."""
    if out.suffix not in (".csv", ".npz"):
        raise ValueError(f"out: {out}, must end in .csv or .npz")
    with err.status(f"reading {run}"):
        alpha, beta = run_of(context, run).posteriors()
        ids = run_of(context, run).task_ids() if out.suffix == ".csv" else []
    if out.suffix == ".npz":
        np.savez(out, alpha=alpha, beta=beta)
    else:
        columns: dict[str, Any] = {"task": np.arange(len(alpha)), "id": ids}
        columns |= {"alpha": alpha, "beta": beta, "mean": alpha / (alpha + beta)}
        if not ids:
            del columns["id"]
        pa.csv.write_csv(pa.table(columns), out)
    say(f"{out}: {len(alpha):,} tasks")


def _from_arguments(outcomes: list[str]) -> tuple[list[Any], list[float], list[int]]:
    tasks, successes, rollouts = [], [], []
    for outcome in outcomes:
        task, equals, counts = outcome.rpartition("=")
        done, slash, tried = counts.partition("/")
        try:
            if not (task and equals and slash):
                raise ValueError
            successes.append(float(done))
            rollouts.append(int(tried))
        except ValueError:
            raise ValueError(f"{outcome!r}: must be TASK=SUCCESSES/ROLLOUTS, such as 17=3/16") from None
        tasks.append(task)
    if all(task.isdecimal() for task in tasks):
        return [int(task) for task in tasks], successes, rollouts
    return tasks, successes, rollouts


def _from_file(path: Path) -> tuple[Any, Any, Any]:
    table = Table(path, ("task", "successes", "rollouts"), ("id",), optional=("task", "id"))
    if "id" in table:
        tasks: Any = table.texts("id")
    elif "task" in table:
        tasks = _whole(table.numbers("task"), "task")
    else:
        raise ValueError(f"{path}: no column 'task' or 'id'")
    return tasks, table.numbers("successes"), table.numbers("rollouts")


def _whole(column: Any, name: str) -> Any:
    with np.errstate(invalid="ignore"):
        whole = column.astype(np.int64)
    if not np.array_equal(whole, column):
        raise ValueError(f"{name}: must be whole numbers")
    return whole
