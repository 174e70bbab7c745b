"""The command's output: tables on a terminal, CSV in files and pipes, JSON on request."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bots.files.errors import printable

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Cell = str | int | float | bool | datetime | None


def counted(number: int, noun: str) -> str:
    """Returns "1 task", "1,200 tasks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(line: str) -> None:
    """Prints one line, however long; in files and pipes as it is, so that ids can be read from it."""
    out.print(printable(line) if out.is_terminal else line, markup=False, soft_wrap=True)


def complain(line: str) -> None:
    """Prints one line of error, however long."""
    err.print(Text("error: ", style="bold red") + Text(printable(line)), soft_wrap=True)


def warn(line: str) -> None:
    """Prints one line of warning, however long."""
    err.print(Text("warning: ", style="bold yellow") + Text(printable(line)), soft_wrap=True)


def show_json(value: Any) -> None:
    """Prints a value as JSON: dataclasses as objects, arrays as lists, NaN as null, times in ISO 8601."""
    sys.stdout.write(json.dumps(_plain(value), ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_records(records: Sequence[Any], columns: Mapping[str, str], as_json: bool) -> None:
    """Prints dataclasses as JSON, or as a table: from each column's title to the field that it shows."""
    if as_json:
        show_json(records)
    else:
        show(tuple(columns), [[getattr(one, name) for name in columns.values()] for one in records])


def show(columns: Sequence[str], rows: Iterable[Sequence[Cell]], title: str = "") -> None:
    """Prints rows as a table on a terminal, as CSV elsewhere."""
    if not out.is_terminal:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    cells = [list(row) for row in rows]
    for position, column in enumerate(columns):
        numbers = all(isinstance(row[position], int | float | None) for row in cells)
        table.add_column(column, justify="right" if numbers else "left")
    for row in cells:
        table.add_row(*(Text(written(cell)) for cell in row))
    out.print(table)


def show_one(pairs: Sequence[tuple[str, Cell]]) -> None:
    """Prints the properties of one thing, a line each."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        say(f"{name:<{width}}  {written(value)}")


def written(cell: Cell) -> str:
    """Returns a value as people read it; a dash if it is not known."""
    match cell:
        case None:
            return "-"
        case bool():
            return "yes" if cell else "no"
        case float():
            return "-" if math.isnan(cell) else f"{cell:.4g}"
        case int():
            return f"{cell:,}"
        case datetime():
            return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case _:
            return printable(cell)
