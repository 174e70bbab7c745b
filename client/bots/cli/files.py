"""Tables of tasks and outcomes in files: CSV, Parquet or JSON lines, by the name's ending."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst")


class Table:
    """The columns of a file that were asked for."""

    def __init__(
        self, path: Path, numbers: Collection[str], texts: Collection[str], *, optional: Collection[str] = ()
    ) -> None:
        """Reads a file, or with "-" CSV from the standard input.

        numbers, texts  names of columns to read as numbers and as texts.
        optional        those of them that may be missing.
        ValueError: the ending is unknown, a column is missing, or does not hold what it should. OSError: cannot be
        read.
        """
        self._path = path
        try:
            self._table = _read(path, set(numbers), set(texts))
        except pa.ArrowException as error:
            raise ValueError(f"{path}: {error}") from error
        missing = [column for column in (*numbers, *texts) if not (column in self or column in optional)]
        if missing:
            columns = ", ".join(self._table.column_names)
            raise ValueError(f"{path}: no column {missing[0]!r}; there are {columns}")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __contains__(self, column: str) -> bool:
        return column in self._table.column_names

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Returns a column as float64; NaN where the file has nothing. ValueError: it is not numbers."""
        try:
            values = self._table[column].cast(pa.float64())
        except pa.ArrowException as error:
            raise ValueError(f"{self._path}: column {column}: {error}") from error
        return np.asarray(values.to_numpy(), dtype=np.float64)

    def texts(self, column: str) -> list[str]:
        """Returns a column as strings. ValueError: the file has nothing at some place."""
        values = self._table[column]
        if values.null_count:
            row = values.is_null().to_pylist().index(True)
            raise ValueError(f"{self._path}: column {column}: nothing in row {row + 1}")
        result: list[str] = values.cast(pa.string()).to_pylist()
        return result


def _read(path: Path, numbers: set[str], texts: set[str]) -> Any:
    name = path.name.lower()
    if str(path) == "-" or name.endswith(CSV):
        # As text from the start: 007 is an id and not a number.
        options = pa.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
        return pa.csv.read_csv(sys.stdin.buffer if str(path) == "-" else path, convert_options=options)
    if name.endswith(PARQUET):
        present = pa.parquet.read_schema(path).names
        wanted = [column for column in present if column in numbers | texts]
        return pa.parquet.read_table(path, columns=wanted or present[:1])
    if name.endswith(JSON_LINES):
        return pa.json.read_json(path)
    raise ValueError(f"{path}: must end in {', '.join((*CSV, *PARQUET, *JSON_LINES))}")
