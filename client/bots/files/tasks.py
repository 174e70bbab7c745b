"""The tasks of a dataset, gathered chunk by chunk, and the rules that their columns obey."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unicodedata import category

import numpy as np
import numpy.typing as npt

from bots.files import pass_rates, values
from bots.files.chunks import Chunk
from bots.files.errors import BadValue, DataError
from bots.files.sources import Source

MOST_ID_BYTES = 256
MOST_TAG_BYTES = 64
MOST_TAGS = 1024
INVISIBLE = ("Cc", "Cf", "Zl", "Zp")  # Unicode's categories of controls, formats such as direction, line separators
JOINERS = "\u200c\u200d"  # formats that some scripts and emoji need

Cells = TypeVar("Cells")


@dataclass(frozen=True)
class Columns:
    """Columns of the tasks of a dataset, in the order of the files.

    size        number of tasks N.
    rows        number of rows read; above `size` if rows of equal ids were left out.
    ids         `[N]` distinct texts, or None.
    tags        `[N]` texts, or None.
    references  name -> `[N]` float64 pass rates between 0 and 1; NaN if not measured.
    features    column -> `[N]` float32; NaN if missing.
    texts       `[N]` texts, or None.
    warnings    sentences on what is likely not meant, each with what to do.
    """

    size: int
    rows: int
    ids: list[str] | None
    tags: list[str] | None
    references: dict[str, npt.NDArray[np.float64]]
    features: dict[str, npt.NDArray[np.float32]]
    texts: list[str] | None
    warnings: tuple[str, ...]


@dataclass
class Tasks:
    """The tasks read so far."""

    id: str | None
    tag: str | None
    references: dict[str, str]
    features: tuple[str, ...]
    text: str | None
    scale: float
    reverse: bool
    distinct: str | None
    rows: int = 0
    repeats: int = 0
    first_repeat: DataError | None = None
    # id -> position; the row of the file of each position; where each file starts.
    positions: dict[str, int] = field(default_factory=dict)
    row_of: array[int] = field(default_factory=lambda: array("q"))
    starts: list[tuple[int, Source, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    known_tags: dict[str, str] = field(default_factory=dict)
    rates: dict[str, list[Any]] = field(default_factory=dict)
    numbers: dict[str, list[Any]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        single = [name for name in (self.id, self.tag, self.text) if name is not None]
        return list(dict.fromkeys([*single, *self.references.values(), *self.features]))

    def start(self, source: Source, unit: str) -> None:
        """Goes on with a file."""
        self.starts.append((len(self.row_of), source, unit))

    def add(self, chunk: Chunk) -> None:
        """Takes the rows of a chunk whose ids are new. DataError: a cell breaks a rule."""
        self.rows += len(chunk.rows)
        if self.id is None:
            self.row_of.extend(chunk.rows)
        else:
            chunk = self._add_ids(chunk, self._cells(chunk, self.id, _ids))
        if self.tag is not None:
            self.tags += self._cells(chunk, self.tag, self._tags)
        for name, column in self.references.items():
            rates = self._cells(chunk, column, lambda given: pass_rates.pass_rates(given, self.scale, self.reverse))
            self.rates.setdefault(name, []).append(rates)
        for column in self.features:
            self.numbers.setdefault(column, []).append(self._cells(chunk, column, _features))
        if self.text is not None:
            self.texts += self._cells(chunk, self.text, values.prose)

    def _cells(self, chunk: Chunk, column: str, convert: Callable[[Any], Cells]) -> Cells:
        try:
            return convert(chunk.columns[column])
        except BadValue as bad:
            raise self._error(bad.rule, chunk.rows[bad.index], column, bad.value) from None

    def _error(self, rule: str, row: int, column: str | None, value: Any) -> DataError:
        _, source, unit = self.starts[-1]
        return DataError(source.path, rule, row=row, unit=unit, column=column, value=value)

    def columns(self, first: Source) -> Columns:
        """Returns what was read. DataError: it has no rows, or ids are repeated."""
        if self.first_repeat is not None:
            raise self._repeated(self.first_repeat)
        if not self.rows:
            raise DataError(first.path, "must have at least one row")
        rates = {name: np.concatenate(parts) for name, parts in self.rates.items()}
        self.rates.clear()
        return Columns(
            size=len(self.row_of),
            rows=self.rows,
            ids=None if self.id is None else list(self.positions),
            tags=None if self.tag is None else self.tags,
            references=rates,
            features={column: np.concatenate(parts) for column, parts in self.numbers.items()},
            texts=None if self.text is None else self.texts,
            warnings=tuple(pass_rates.warnings(rates, self.references, self.scale, self.reverse)),
        )

    def _add_ids(self, chunk: Chunk, ids: list[str]) -> Chunk:
        """Returns the rows of the chunk whose ids are new."""
        kept = []
        for index, value in enumerate(ids):
            new = len(self.positions)
            position = self.positions.setdefault(value, new)
            if position == new:
                self.row_of.append(chunk.rows[index])
                kept.append(index)
                continue
            self.repeats += 1
            if self.distinct is None and self.first_repeat is None:
                rule = f"must be distinct, {self._place(position)} has the same"
                self.first_repeat = self._error(rule, chunk.rows[index], self.id, value)
        return chunk if len(kept) == len(ids) else chunk.take(kept)

    def _repeated(self, error: DataError) -> DataError:
        count = f"{self.repeats} rows repeat" if self.repeats > 1 else "1 row repeats"
        rule = f"{error.rule}; {count} one of {len(self.positions)} ids: --distinct first keeps the first row of each"
        return DataError(error.path, rule, row=error.row, unit=error.unit, column=error.column, value=error.value)

    def _place(self, position: int) -> str:
        _, source, unit = [start for start in self.starts if start[0] <= position][-1]
        return f"{source.path}, {unit} {self.row_of[position]}"

    def _tags(self, column: Any) -> list[str]:
        found = []
        for index, value in enumerate(values.texts(column)):
            # Equal tags are one string, of which millions cost nothing.
            known = self.known_tags.get(value or "")
            if known is None:
                known = _name(index, value, MOST_TAG_BYTES)
                if len(self.known_tags) == MOST_TAGS:
                    rule = f"must be one of at most {MOST_TAGS} distinct tags, of which the rows before have all"
                    raise BadValue(index, value, rule)
                self.known_tags[known] = known
            found.append(known)
        return found


def _ids(column: Any) -> list[str]:
    return [_name(index, value, MOST_ID_BYTES) for index, value in enumerate(values.texts(column))]


def _name(index: int, value: str | None, most: int) -> str:
    """Returns an id or a tag. BadValue: it is not 1 to `most` bytes of UTF-8 without invisible characters."""
    if value is None:
        raise BadValue(index, None, f"is missing, must be text of 1 to {most} bytes")
    try:
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise BadValue(index, value, "must be UTF-8: convert the file") from None
    if not 1 <= length <= most:
        raise BadValue(index, value, f"must be text of 1 to {most} bytes, has {length}")
    if not value.isprintable() and any(category(one) in INVISIBLE and one not in JOINERS for one in value):
        rule = "must be without control characters such as line breaks and tabs, and invisible ones"
        raise BadValue(index, value, rule)
    return value


def _features(column: Any) -> npt.NDArray[np.float32]:
    numbers = values.numbers(column)
    bad = np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max)
    if bad.size:
        raise BadValue(int(bad[0]), values.listed(column)[bad[0]], "must be a finite 32-bit number")
    return numbers.astype(np.float32)
