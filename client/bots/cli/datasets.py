"""`bots dataset`: the tasks that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bots.cli.connection import client_of
from bots.cli.console import err, say, show, show_one
from bots.cli.files import Table
from bots.resources import Dataset

app = typer.Typer(no_args_is_help=True, help="The tasks that there are.")

Name = Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    file: Annotated[
        Path, typer.Argument(help="One row a task: CSV, Parquet or JSON lines; - is CSV from the standard input.")
    ],
    weak: Annotated[str | None, typer.Option(metavar="COL", help="Pass rates of the weak reference model.")] = None,
    strong: Annotated[str | None, typer.Option(metavar="COL", help="Pass rates of the strong reference model.")] = None,
    id_: Annotated[str | None, typer.Option("--id", metavar="COL", help="Ids of the tasks.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="COL", help="Tags of the tasks, one each.")] = None,
    grid: Annotated[float, typer.Option(help="Step to which reference pass rates are rounded; 0 keeps them.")] = 0.0,
) -> None:
    """Stores a dataset from a file. With equal content under the name, nothing happens."""
    numbers = [column for column in (weak, strong) if column is not None]
    texts = [column for column in (id_, tag) if column is not None]
    with err.status(f"reading {file}"):
        table = Table(file, numbers, texts)
        columns: dict[str, Any] = {
            "weak": None if weak is None else table.numbers(weak),
            "strong": None if strong is None else table.numbers(strong),
            "ids": None if id_ is None else table.texts(id_),
            "tags": None if tag is None else table.texts(tag),
        }
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task(f"storing {name}", total=len(table))
        dataset = client_of(context).create_dataset(
            name,
            size=len(table),
            reference_grid=grid,
            progress=lambda tasks: bar.update(task, completed=tasks),
            **columns,
        )
    say(f"{dataset.name}: {dataset.size:,} tasks, {dataset.referenced_tasks:,} referenced, {dataset.strata:,} strata")


@app.command("list")
def list_(context: typer.Context) -> None:
    """Shows all datasets."""
    show(
        ("name", "tasks", "strata", "tags", "ids", "created"),
        [
            (dataset.name, dataset.size, dataset.strata, len(dataset.tags), dataset.has_ids, dataset.create_time)
            for dataset in client_of(context).list_datasets()
        ],
    )


@app.command("show")
def show_(context: typer.Context, name: Name) -> None:
    """Shows one dataset."""
    dataset = client_of(context).get_dataset(name)
    show_one(_properties(dataset))


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    runs: Annotated[bool, typer.Option("--runs", help="Delete its runs with it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Deletes a dataset."""
    if not yes:
        typer.confirm(f"delete dataset {name}{' and its runs' if runs else ''}?", abort=True)
    client_of(context).delete_dataset(name, delete_runs=runs)
    say(f"{name} is deleted")


def _properties(dataset: Dataset) -> list[tuple[str, Any]]:
    tags = [(f"tag {tag}", tasks) for tag, tasks in dataset.tags.items()]
    return [
        ("name", dataset.name),
        ("uid", dataset.uid),
        ("tasks", dataset.size),
        ("with references", dataset.referenced_tasks),
        ("reference grid", dataset.reference_grid),
        ("strata", dataset.strata),
        ("ids", dataset.has_ids),
        ("runs", dataset.runs),
        ("created", dataset.create_time),
        ("fingerprint", dataset.fingerprint),
        *tags,
    ]
