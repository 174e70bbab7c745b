"""The columns of a dataset, read from files."""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bots.files import pass_rates, values
from bots.files.chunks import Chunk, Reader
from bots.files.errors import BadValue, DataError
from bots.files.sources import Progress, Source, find
from bots.files.tables import open_table
from bots.files.texts import open_text

MOST_ID_BYTES = 256
MOST_TAG_BYTES = 64
MOST_TAGS = 1024
MOST_REFERENCES = 8
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Columns:
    """Columns of the tasks of a dataset, in the order of the files.

    size           number of tasks N.
    rows           number of rows read; above `size` if rows of equal ids were left out.
    ids            `[N]` distinct texts, or None.
    tags           `[N]` texts, or None.
    references     name -> `[N]` float64 pass rates between 0 and 1; NaN if not measured.
    features       `[N, F]` float32, NaN if missing; or None.
    feature_names  `[F]`.
    texts          `[N]` texts, or None.
    warnings       sentences on what is likely not meant, each with what to do.
    """

    size: int
    rows: int
    ids: list[str] | None
    tags: list[str] | None
    references: dict[str, npt.NDArray[np.float64]]
    features: npt.NDArray[np.float32] | None
    feature_names: tuple[str, ...]
    texts: list[str] | None
    warnings: tuple[str, ...]


def opened(source: Source) -> AbstractContextManager[Reader]:
    """Returns a reader of a file, as a context manager."""
    return open_text(source) if source.format in ("csv", "json") else open_table(source)


def read(
    paths: Iterable[str | os.PathLike[str]],
    *,
    id: str | None = None,  # noqa: A002  (the word of the glossary)
    tag: str | None = None,
    references: Mapping[str, str] | None = None,
    features: Sequence[str] = (),
    text: str | None = None,
    scale: float = 1.0,
    reverse: bool = False,
    distinct: Literal["first"] | None = None,
    progress: Progress | None = None,
) -> Columns:
    """Returns the columns of a dataset; of the files, no other column is kept.

    paths       files, folders, globs, folders of `save_to_disk`, or "-" for the standard input.
    id, tag     columns of text, of 1 to 256 and 1 to 64 bytes; what text is of other types, see `bots.files.values`.
    references  name -> column of pass rates; at most 8. Names "weak" and "strong" have a meaning.
    features    columns of finite numbers.
    text        column of prompts: texts, or conversations (lists of messages).
    scale       what counts as a pass rate of 1: 100 for percentages.
    reverse     the references are difficulties: a pass rate is 1 minus the value.
    distinct    "first" keeps the first of rows with equal ids; None refuses equal ids.
    progress    is called with (bytes read, bytes in all).

    A column inside a struct has a dotted name. DataError: a file cannot be read, lacks a column, or breaks a rule.
    ValueError: an argument breaks a rule.
    """
    named = dict(references or {})
    _check_arguments(named, scale, distinct, id)
    sources = find(paths)
    tasks = _Tasks(id, tag, named, tuple(features), text, scale, reverse, distinct)
    total, before = sum(source.size for source in sources), 0
    for source in sources:
        with opened(source) as reader:
            _check_alike(sources[0], source, reader)
            tasks.start(source, reader.unit)
            for chunk in reader.chunks(tasks.wanted):
                tasks.add(chunk)
                if progress is not None:
                    progress(before + min(chunk.done, source.size), total)
        before += source.size
    if progress is not None:
        progress(total, total)
    return tasks.columns(sources[0])


@dataclass
class _Tasks:
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
    numbers: list[Any] = field(default_factory=list)
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
        """Takes the rows of a chunk. DataError: a cell breaks a rule."""
        _, source, unit = self.starts[-1]

        def cells(column: str, convert: Callable[[Any], Any]) -> Any:
            try:
                return convert(chunk.columns[column])
            except BadValue as bad:
                row = chunk.rows[bad.index]
                raise DataError(source.path, bad.rule, row=row, unit=unit, column=column, value=bad.value) from None

        self.rows += len(chunk.rows)
        kept: Sequence[int] | slice = slice(None)
        if self.id is not None:
            kept = self._add_ids(chunk, cells(self.id, _ids))
        else:
            self.row_of.extend(chunk.rows)
        if self.tag is not None:
            self.tags += _take(cells(self.tag, self._tags), kept)
        for name, column in self.references.items():
            rates = cells(column, lambda given: pass_rates.pass_rates(given, self.scale, self.reverse))
            self.rates.setdefault(name, []).append(rates[kept])
        if self.features:
            features = [cells(column, _finite)[kept].astype(np.float32) for column in self.features]
            self.numbers.append(np.column_stack(features))
        if self.text is not None:
            self.texts += _take(cells(self.text, values.prose), kept)

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
            features=np.concatenate(self.numbers) if self.features else None,
            feature_names=self.features,
            texts=None if self.text is None else self.texts,
            warnings=tuple(pass_rates.warnings(rates, self.references, self.scale, self.reverse)),
        )

    def _add_ids(self, chunk: Chunk, ids: list[str]) -> Sequence[int] | slice:
        """Returns the indices in the chunk of ids that are new."""
        positions = self.positions
        kept = []
        for index, value in enumerate(ids):
            if positions.setdefault(value, len(positions)) == len(self.row_of):
                self.row_of.append(chunk.rows[index])
                kept.append(index)
                continue
            self.repeats += 1
            if self.distinct is None and self.first_repeat is None:
                _, source, unit = self.starts[-1]
                rule = f"must be distinct, {self._place(positions[value])} has the same"
                self.first_repeat = DataError(
                    source.path, rule, row=chunk.rows[index], unit=unit, column=self.id, value=value
                )
        return kept if len(kept) < len(ids) else slice(None)

    def _repeated(self, error: DataError) -> DataError:
        count = f"{self.repeats} rows repeat" if self.repeats > 1 else "1 row repeats"
        rule = f"{error.rule}; {count} one of {len(self.positions)} ids: --distinct first keeps the first row of each"
        return DataError(error.path, rule, row=error.row, unit=error.unit, column=error.column, value=error.value)

    def _place(self, position: int) -> str:
        _, source, unit = max((start for start in self.starts if start[0] <= position), key=lambda start: start[0])
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
    """Returns an id or a tag. BadValue: it is not 1 to `most` bytes of UTF-8 without control characters."""
    if not value:
        raise BadValue(index, value or "", f"must be text of 1 to {most} bytes")
    try:
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise BadValue(index, value, "must be UTF-8: convert the file") from None
    if length > most:
        raise BadValue(index, value, f"must be text of 1 to {most} bytes, has {length}")
    if CONTROL.search(value):
        raise BadValue(index, value, "must be without control characters such as line breaks and tabs")
    return value


def _finite(column: Any) -> npt.NDArray[np.float64]:
    numbers = values.numbers(column)
    bad = np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max)
    if bad.size:
        raise BadValue(int(bad[0]), float(numbers[bad[0]]), "must be a finite 32-bit number")
    return numbers


def _take(column: list[str], kept: Sequence[int] | slice) -> list[str]:
    return column[kept] if isinstance(kept, slice) else [column[index] for index in kept]


def _check_alike(first: Source, source: Source, reader: Reader) -> None:
    """Raises DataError if two files of one folder have different columns; objects of JSON may lack some."""
    if source is first or source.folder is None or source.folder != first.folder:
        return
    with opened(first) as other:
        expected = set(other.names())
    names = set(reader.names())
    if expected.isdisjoint(names) if source.format == "json" else expected != names:
        odd = sorted(expected ^ names)
        rule = f"must have the columns of {first.path}, differs in {', '.join(odd)}: name the files instead"
        raise DataError(source.path, rule)


def _check_arguments(references: Mapping[str, str], scale: Any, distinct: str | None, id_: str | None) -> None:
    for name in references:
        if not NAME.fullmatch(name):
            raise ValueError(f"references: got {name!r}, must be 1 to 63 of a-z, 0-9, '.', '_', '-'")
    if len(references) > MOST_REFERENCES:
        raise ValueError(f"references: got {len(references)}, must be at most {MOST_REFERENCES}")
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: got {scale!r}, must be a number above 0, such as 100 for percentages")
    if distinct not in (None, "first"):
        raise ValueError(f"distinct: got {distinct!r}, must be 'first'")
    if distinct is not None and id_ is None:
        raise ValueError("distinct: got 'first' without ids, must come with the column of ids")
