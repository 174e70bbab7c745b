"""Reads the columns of a dataset from files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from bots.files.chunks import Reader
from bots.files.csv_reader import CsvReader
from bots.files.errors import DataError
from bots.files.finding import find
from bots.files.json_reader import JsonReader
from bots.files.sources import Source
from bots.files.tables import open_table
from bots.files.tasks import Columns, Tasks

MOST_REFERENCES = 8
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def opened(source: Source) -> AbstractContextManager[Reader]:
    """Returns a reader of a file, as a context manager."""
    match source.format:
        case "csv":
            return nullcontext(CsvReader(source))
        case "json":
            return nullcontext(JsonReader(source))
        case _:
            return open_table(source)


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
    progress: Callable[[int, int], object] | None = None,
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
    tasks = Tasks(id, tag, named, tuple(features), text, scale, reverse, distinct)
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
