"""`bots dataset`: the tasks that there are."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bots.cli import options
from bots.cli.connection import client_of
from bots.cli.console import complain, counted, err, say, show, show_one, warn
from bots.files import Column, Columns, DataError, Inspection, inspect, read
from bots.files.errors import printable, shown
from bots.files.reading import NAME
from bots.resources import Dataset

app = typer.Typer(no_args_is_help=True, help="The tasks that there are.")

# As in sysexits.h: EX_NOINPUT, EX_USAGE, EX_DATAERR.
EXIT_STATUS = {"file": 66, "column": 64, "data": 65}

Name = Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="One row a task: Parquet, Arrow, CSV, TSV, JSON lines or a JSON array, also compressed; files, folders, "
        "globs, a folder of save_to_disk; - is the standard input.",
        show_default=False,
    ),
]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    files: Files,
    id_: Annotated[str | None, typer.Option("--id", metavar="COL", help="Ids of the tasks.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="COL", help="Tags of the tasks, one each.")] = None,
    weak: Annotated[str | None, typer.Option(metavar="COL", help="Pass rates of a weak policy.")] = None,
    strong: Annotated[str | None, typer.Option(metavar="COL", help="Pass rates of a strong policy.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COL", help="Pass rates of another policy; may be repeated.")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="A number that tells of difficulty; may be repeated.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COL", help="Prompts, from which features are computed.")] = None,
    scale: Annotated[float, typer.Option(help="What counts as a pass rate of 1: 100 for percentages.")] = 1.0,
    reverse: Annotated[bool, typer.Option("--reverse", help="The pass rates are difficulties: 1 minus them.")] = False,
    distinct: Annotated[
        Literal["first"] | None, typer.Option(help="first: of rows with equal ids, keep the first.")
    ] = None,
    prior_alpha: Annotated[float | None, typer.Option(help="Prior of every task; default 1.")] = None,
    prior_beta: Annotated[float | None, typer.Option(help="Prior of every task; default 1.")] = None,
    grid: Annotated[float, typer.Option(help="Step to which reference pass rates are rounded; 0 keeps them.")] = 0.0,
    as_json: options.Json = False,
) -> None:
    """Stores a dataset from files. If a dataset of this name has equal content, nothing changes."""
    if not NAME.fullmatch(name):
        rule = "must be 1 to 63 of a-z, 0-9, '.', '_', '-', and start with a letter or digit"
        raise ValueError(f"name: got {name!r}, {rule}")
    with _told(), _bar(DownloadColumn()) as bar:
        reading = bar.add_task(f"reading {files[0] if len(files) == 1 else f'{len(files)} files'}", total=None)
        columns = read(
            files,
            id=id_,
            tag=tag,
            references=_references(weak, strong, reference or []),
            features=feature or [],
            text=text,
            scale=scale,
            reverse=reverse,
            distinct=distinct,
            progress=lambda done, total: bar.update(reading, completed=done, total=total),
        )
    for warning in columns.warnings:
        warn(warning)
    features = columns.features | _text_features(columns)
    with _bar(MofNCompleteColumn()) as bar:
        storing = bar.add_task(f"storing {name}", total=columns.size)
        dataset = client_of(context).create_dataset(
            name,
            size=columns.size,
            ids=columns.ids,
            tags=columns.tags,
            references=columns.references,
            features=features or None,
            prior=None if prior_alpha is prior_beta is None else (prior_alpha or 1.0, prior_beta or 1.0),
            reference_grid=grid,
            progress=lambda tasks: bar.update(storing, completed=tasks),
        )
    left_out = columns.rows - columns.size
    if as_json:
        say(json.dumps(_json(dataset) | {"rows_left_out": left_out, "warnings": columns.warnings}))
        return
    without = f" ({counted(left_out, 'row')} of equal ids left out)" if left_out else ""
    say(f"{dataset.name}: {_counts(dataset)}{without}")


@app.command("inspect")
def inspect_(files: Files, as_json: options.Json = False) -> None:
    """Shows the columns of files, what they look like, and the command to type next."""
    with _told():
        seen = inspect(files)
    if as_json:
        say(json.dumps(dataclasses.asdict(seen) | {"columns": [_column(column) for column in seen.columns]}))
        return
    title = f"{seen.files:,} files" if seen.files > 1 else printable(files[0])
    show(
        ("column", "type", "looks like", "first values"),
        [
            (
                printable(column.name),
                column.type,
                _looks(column),
                printable(", ".join(shown(value) for value in column.examples)),
            )
            for column in seen.columns
        ],
        title if seen.rows is None else f"{title}: {counted(seen.rows, 'row')}",
    )
    err.print(_advice(seen), markup=False, soft_wrap=True)


@app.command("list")
def list_(context: typer.Context) -> None:
    """Shows all datasets."""
    show(
        ("name", "tasks", "strata", "references", "features", "tags", "ids", "created"),
        [
            (
                dataset.name,
                "damaged" if dataset.damage else dataset.size,
                dataset.strata,
                " ".join(dataset.references),
                len(dataset.features),
                len(dataset.tags),
                dataset.has_ids,
                dataset.create_time,
            )
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
        *((f"reference {name}", tasks) for name, tasks in dataset.references.items()),
        ("reference grid", dataset.reference_grid),
        ("features", len(dataset.features)),
        ("strata", dataset.strata),
        ("ids", dataset.has_ids),
        ("runs", dataset.runs),
        ("created", dataset.create_time),
        ("fingerprint", dataset.fingerprint),
        *tags,
    ]


@contextmanager
def _told() -> Iterator[None]:
    """Ends the command with one line and the exit status of the kind of error."""
    try:
        yield
    except DataError as error:
        complain(str(error))
        raise typer.Exit(EXIT_STATUS[error.kind]) from None


def _bar(counts: DownloadColumn | MofNCompleteColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        counts,
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def _references(weak: str | None, strong: str | None, others: list[str]) -> dict[str, str]:
    """Returns the column of each reference. ValueError: one is not NAME=COL, or is given twice."""
    named = [("weak", weak), ("strong", strong)]
    for other in others:
        name, equals, column = other.partition("=")
        if not (name and equals and column):
            raise ValueError(f"reference: got {other!r}, must be NAME=COL")
        named.append((name, column))
    given = [(name, column) for name, column in named if column is not None]
    references = dict(given)
    if len(references) < len(given):
        raise ValueError(f"reference: got {', '.join(name for name, _ in given)}, must be distinct names")
    return references


def _text_features(columns: Columns) -> dict[str, Any]:
    """Returns features of the texts, by name; empty if there are no texts."""
    if columns.texts is None:
        return {}
    from bots.features import from_text

    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task("features of the texts", total=columns.size)
        matrix = from_text(columns.texts, progress=lambda texts: bar.update(task, completed=texts))
    names = [*(f"text{number}" for number in range(matrix.shape[1] - 1)), "length"]
    return dict(zip(names, matrix.T, strict=True))


def _counts(dataset: Dataset) -> str:
    parts = [counted(dataset.size, "task"), *(f"{tasks:,} with {name}" for name, tasks in dataset.references.items())]
    if dataset.tags:
        parts.append(counted(len(dataset.tags), "tag"))
    if dataset.features:
        parts.append(counted(len(dataset.features), "feature"))
    return ", ".join(parts) + ("" if dataset.created is not False else "; it existed with equal content")


def _json(dataset: Dataset) -> dict[str, Any]:
    time = dataset.create_time
    return dataclasses.asdict(dataset) | {"create_time": None if time is None else time.isoformat()}


def _column(column: Column) -> dict[str, Any]:
    mean = None if math.isnan(column.mean) else column.mean
    return dataclasses.asdict(column) | {"mean": mean, "examples": [str(value) for value in column.examples]}


def _looks(column: Column) -> str:
    if column.role != "pass rate":
        return column.role
    return ("difficulty" if column.reverse else "pass rate") + (" in percent" if column.scale == 100 else "")


def _advice(seen: Inspection) -> str:
    return f"next: {printable(seen.line)}"
