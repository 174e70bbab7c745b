"""`bots select`, `bots report` and `bots posteriors`: the loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import typer

from bots.cli import options
from bots.cli.connection import RunName, run_of, tasks_of
from bots.cli.console import counted, err, say, show, show_json
from bots.cli.files import Table


def select(
    context: typer.Context,
    run: RunName,
    batch_size: Annotated[int, typer.Argument(metavar="N", help="Number of tasks.", show_default=False)],
    ids: Annotated[bool, typer.Option("--ids", help="Print the ids alone, one a line (row numbers if none).")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="Among the tasks of this tag; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not this task; may be repeated.")] = None,
    lease_seconds: Annotated[float | None, typer.Option(help="Keep the tasks from others for this long.")] = None,
    allow_fewer: Annotated[bool, typer.Option("--allow-fewer", help="Take fewer if fewer are eligible.")] = False,
    target: options.Target = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="By the posterior mean instead of a draw.")] = False,
    temperature: options.Temperature = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, version and eligible set: same batch.")] = None,
    row: options.Row = False,
    as_json: options.Json = False,
) -> None:
    """Shows the tasks to train on next; CSV if the output is no terminal."""
    batch = run_of(context, run).select(
        batch_size,
        tags=tag or (),
        exclude=tasks_of(context, run, exclude or [], row),
        rows=row,
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
    if as_json:
        show_json(columns | {"version": batch.version, "selection": batch.selection_id})
        return
    if ids:
        for name in batch.ids or columns["task"]:
            say(str(name))
    else:
        show(tuple(columns), list(zip(*columns.values(), strict=True)))
    err.print(f"version {batch.version}, selection {batch.selection_id}", markup=False, soft_wrap=True)


def report(
    context: typer.Context,
    run: RunName,
    outcomes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK=SUCCESSES/ROLLOUTS]...",
            help="A TASK is an id if the dataset has ids, else a row number.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Outcomes in a file with columns id or task (row number), successes, rollouts; - is standard input."
        ),
    ] = None,
    selection: Annotated[str, typer.Option(help="The selection that they answer; its leases on them end.")] = "",
    row: options.Row = False,
    as_json: options.Json = False,
) -> None:
    """Adds outcomes of rollouts."""
    if (csv is None) == (not outcomes):
        raise ValueError("report: got both or neither, must be outcomes as TASK=SUCCESSES/ROLLOUTS or --csv FILE")
    if csv is not None:
        tasks: Any
        tasks, successes, rollouts, row = _from_file(csv)
    else:
        names, successes, rollouts = _from_arguments(outcomes or [])
        tasks = tasks_of(context, run, names, row)
    version = run_of(context, run).report(tasks, successes, rollouts, selection_id=selection, rows=row)
    if as_json:
        show_json({"version": version})
    else:
        say(f"version {version}")


def posteriors(
    context: typer.Context,
    run: RunName,
    out: Annotated[
        Path, typer.Option(help="Where to: .csv or .parquet (task, id, tag, alpha, beta, mean), or .npz (alpha, beta).")
    ],
) -> None:
    """Writes the posterior of every task to a file."""
    if out.suffix not in (".csv", ".parquet", ".npz"):
        raise ValueError(f"out: got {str(out)!r}, must end in .csv, .parquet or .npz")
    with err.status(f"reading {run}"):
        table = run_of(context, run).table()
    alpha, beta = table["alpha"], table["beta"]
    if out.suffix == ".npz":
        np.savez(out, alpha=alpha, beta=beta)
    else:
        columns = pa.table({"task": np.arange(len(alpha))} | table | {"mean": alpha / (alpha + beta)})
        write = pa.csv.write_csv if out.suffix == ".csv" else pa.parquet.write_table
        write(columns, out)
    say(f"{out}: {counted(len(alpha), 'task')}")


def _from_arguments(outcomes: list[str]) -> tuple[list[str], list[float], list[int]]:
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
            raise ValueError(f"outcome: got {outcome!r}, must be TASK=SUCCESSES/ROLLOUTS, such as 17=3/16") from None
        tasks.append(task)
    return tasks, successes, rollouts


def _from_file(path: Path) -> tuple[Any, Any, Any, bool]:
    """Returns (tasks, successes, rollouts, whether the tasks are row numbers)."""
    table = Table(path, ("task", "successes", "rollouts"), ("id",), optional=("task", "id"))
    if "id" in table:
        return table.texts("id"), table.numbers("successes"), table.numbers("rollouts"), False
    if "task" in table:
        return table.numbers("task"), table.numbers("successes"), table.numbers("rollouts"), True
    raise ValueError(f"{path}: no column 'id' or 'task'")
