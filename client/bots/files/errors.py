"""The error of a file that cannot be read as asked."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any, Literal

Kind = Literal["file", "column", "data"]

LONGEST_VALUE = 80


class DataError(ValueError):
    """A file cannot be read as asked; the message is one line.

    kind    "file": the file cannot be opened or is none of the formats; "column": it has no such column; "data": its
            content breaks a rule.
    path    the file.
    row     where in the file, counted from 1: a line of CSV and JSON lines, a row of the other formats; or None.
    unit    "line" or "row": what `row` counts.
    column  name as it was asked for, or None.
    value   the offending value, or None.
    rule    what must hold.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rule: str,
        *,
        kind: Kind = "data",
        row: int | None = None,
        unit: str = "row",
        column: str | None = None,
        value: Any = None,
    ) -> None:
        self.kind, self.path, self.row, self.unit = kind, os.fspath(path), row, unit
        self.column, self.value, self.rule = column, value, rule
        place = self.path
        if row is not None:
            place += f", {unit} {row}"
        if column is not None:
            place += f", column {column}"
        super().__init__(printable(f"{place}: {'' if value is None else f'got {shown(value)}, '}{rule}"))


class BadValue(Exception):
    """A value breaks a rule. The caller, which knows the file and the row, raises a DataError instead.

    index  position of the value in its column.
    """

    def __init__(self, index: int, value: Any, rule: str) -> None:
        super().__init__(rule)
        self.index, self.value, self.rule = index, value, rule


def printable(text: str) -> str:
    """Returns a text on one line, with escapes for what a terminal would take as a command or cannot show."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def shown(value: Any) -> str:
    """Returns a value as one line of at most 80 characters."""
    # A number of a JSON file is kept as its text.
    text = str(value) if getattr(value, "is_number", False) else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def missing_column(path: str | os.PathLike[str], column: str, names: Sequence[str]) -> DataError:
    """Returns the error for a column that a file does not have once; it lists those that the file has."""
    if column in names:
        return DataError(path, "must be a name that one column has, not several", kind="column", column=column)
    by_ending = [
        name for name in names if name.lower().endswith("." + column.lower()) or name.lower() == column.lower()
    ]
    similar = by_ending or difflib.get_close_matches(column, names, n=1)
    hint = f" (did you mean {similar[0]!r}?)" if similar else ""
    rule = f"must be a column of the file{hint}: {', '.join(names) or 'it has none'}"
    return DataError(path, rule, kind="column", column=column)
