"""Tables of outcomes in files, in every format of `bots.files`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bots.files import values
from bots.files.errors import BadValue, DataError
from bots.files.finding import find
from bots.files.reading import opened


class Table:
    """The columns of a file that were asked for."""

    def __init__(
        self, path: Path, numbers: Collection[str], texts: Collection[str], *, optional: Collection[str] = ()
    ) -> None:
        """Reads a file, or with "-" the standard input.

        numbers, texts  names of columns to read as numbers and as texts.
        optional        those of them that may be missing.
        DataError: the file cannot be read, or lacks a column.
        """
        (source,) = find([path])
        self._path = path
        self._rows: list[int] = []
        with opened(source) as reader:
            self._unit = reader.unit
            names = reader.names()
            wanted = [name for name in (*numbers, *texts) if name in names or name not in optional]
            self._columns: dict[str, list[Any]] = {name: [] for name in wanted}
            for chunk in reader.chunks(wanted):
                self._rows += chunk.rows
                for name, column in chunk.columns.items():
                    self._columns[name] += values.listed(column)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Returns a column as `[n]`; NaN if a cell has none. DataError: a cell is no number."""
        try:
            return values.numbers(self._columns[column])
        except BadValue as bad:
            raise self._error(column, bad) from None

    def texts(self, column: str) -> list[str]:
        """Returns a column as texts. DataError: a cell has none."""
        try:
            texts = values.texts(self._columns[column])
            if None in texts:
                raise BadValue(texts.index(None), "", "must be text")
        except BadValue as bad:
            raise self._error(column, bad) from None
        return [text for text in texts if text is not None]

    def _error(self, column: str, bad: BadValue) -> DataError:
        row = self._rows[bad.index]
        return DataError(self._path, bad.rule, row=row, unit=self._unit, column=column, value=bad.value)
