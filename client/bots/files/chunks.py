"""Rows of a file that are read together, in whichever format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

# Rows of a chunk: of several MB each, some of them fit in memory; of a few bytes, the cost of a chunk is small.
CHUNK_ROWS = 8192
# A cell or a line beyond this is a quote or a line that does not end.
LONGEST_CELL = 1 << 28


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one file.

    rows     `[n]` line or row of each, counted from 1.
    columns  name -> `[n]` values: a pyarrow array, or a list of str, `JsonNumber`, bool, None, list and dict.
    done     bytes of the file that have been read.
    """

    rows: Sequence[int]
    columns: Mapping[str, Any]
    done: int

    def take(self, indices: Sequence[int]) -> Chunk:
        """Returns some of the rows."""
        rows = [self.rows[index] for index in indices]
        return Chunk(rows, {name: _taken(column, indices) for name, column in self.columns.items()}, self.done)


class Reader(Protocol):
    """One file, open."""

    unit: str
    """What the rows are called: "line" or "row"."""

    def names(self) -> list[str]:
        """Returns the columns; those inside structs by dotted path."""

    def types(self) -> dict[str, str]:
        """Returns the types of the columns, if the file has types."""

    def size(self) -> int | None:
        """Returns the number of rows, if it costs nothing."""

    def chunks(self, wanted: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yields the file with the columns wanted. DataError: it lacks one of them, or is damaged."""


def _taken(column: Any, indices: Sequence[int]) -> Any:
    if isinstance(column, pa.Array):
        return column.take(pa.array(indices, pa.int64()))
    return [column[index] for index in indices]


def splits(name: str) -> Iterator[tuple[str, str]]:
    """Yields the ways to read a dotted name as (column, path inside it), the longest column first."""
    at = len(name)
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)
