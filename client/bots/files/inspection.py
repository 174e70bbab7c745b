"""Describes the columns of files, and which of them a dataset may use."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bots.files import values
from bots.files.chunks import Reader
from bots.files.errors import BadValue
from bots.files.finding import find
from bots.files.reading import opened
from bots.files.sources import COMPRESSED_ENDINGS
from bots.files.tasks import MOST_ID_BYTES, MOST_TAG_BYTES

SAMPLE_ROWS = 500
EXAMPLES = 3
TEXT_CHARACTERS = 40

Role = Literal["id", "tag", "pass rate", "text", ""]

IDS = re.compile(
    r"(^|[._])(id|uid|uuid|task|index|idx|key|hash)$|(^|[._])(task|problem|question|prompt|instance)_?(id|uid)$", re.I
)
TAGS = re.compile(r"tag|source|domain|category|subject|topic|platform|ability|dataset|type|level", re.I)
RATES = re.compile(r"rate|acc|solve|pass|correct|success|difficult|score|avg|mean", re.I)
TEXTS = re.compile(r"prompt|problem|question|instruction|text|query", re.I)


@dataclass(frozen=True)
class Column:
    """A column of the first file, from its first 500 rows.

    name      dotted, if it is inside a struct.
    type      the type in the file; of CSV and JSON, the sort of the values.
    examples  the first three values.
    role      what it looks like: "id", "tag", "pass rate", "text" or "".
    scale     of a pass rate: 1 or 100.
    mean      of a pass rate, as a fraction; else NaN.
    reverse   the name says difficulty.
    """

    name: str
    type: str
    examples: tuple[Any, ...]
    role: Role
    scale: int = 1
    mean: float = float("nan")
    reverse: bool = False


@dataclass(frozen=True)
class Inspection:
    """What files hold.

    files    number of files.
    rows     number of rows, or None if only reading would tell.
    columns  in the order of the file.
    command  the command to type next, as arguments.
    """

    files: int
    rows: int | None
    columns: tuple[Column, ...]
    command: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command to type next, as it is typed in a shell."""
        return shlex.join(self.command)


def inspect(paths: Iterable[str | os.PathLike[str]]) -> Inspection:
    """Returns the columns of files, with what they look like. Reads the first rows of the first file.

    DataError: a file cannot be read.
    """
    named = [os.fspath(path) for path in paths]
    sources = find(named)
    rows: int | None = 0
    columns: tuple[Column, ...] = ()
    for source in sources:
        with opened(source) as reader:
            size = reader.size()
            if source is sources[0]:
                types = reader.types()
                cells, sampled = _sample(reader)
                columns = tuple(_column(name, types.get(name, ""), sample) for name, sample in cells.items())
                size = sampled if size is None else size
            rows = None if rows is None or size is None else rows + size
    return Inspection(len(sources), rows, columns, tuple(_command(named, columns)))


def _sample(reader: Reader) -> tuple[dict[str, list[Any]], int | None]:
    """Returns (the first cells of each column, the number of rows if these are all)."""
    cells: dict[str, list[Any]] = {name: [] for name in reader.names()}
    rows = 0
    for chunk in reader.chunks(list(cells), SAMPLE_ROWS):
        if rows >= SAMPLE_ROWS:
            return cells, None
        rows += len(chunk.rows)
        for name, column in chunk.columns.items():
            cells[name] += values.listed(column)
    return cells, rows


def _column(name: str, kind: str, cells: list[Any]) -> Column:
    known = [value for value in cells if value not in (None, "")]
    examples = tuple(str(value) if getattr(value, "is_number", False) else value for value in cells[:EXAMPLES])
    rates = _rates(cells)
    kind = kind or ("number" if rates is not None else _sort(known))
    if not known:
        return Column(name, kind, examples, "")
    if rates is not None and _looks_like_rates(name, rates):
        scale = 100 if rates.max() > 1 else 1
        return Column(
            name, kind, examples, "pass rate", scale, float(rates.mean()) / scale, "difficult" in name.lower()
        )
    return Column(name, kind, examples, _role(name, cells, rates))


def _role(name: str, cells: Any, rates: Any) -> Role:
    try:
        prose = values.prose(cells)
    except BadValue:
        prose = []
    if (
        prose
        and (np.mean([len(text) for text in prose]) > TEXT_CHARACTERS or TEXTS.search(name))
        and not IDS.search(name)
    ):
        return "text"
    try:
        texts = values.texts(cells)
    except BadValue:
        return ""
    known = [text for text in texts if text is not None]
    distinct, longest = len(set(known)), max((len(text.encode(errors="replace")) for text in known), default=0)
    if len(known) < len(texts) or not known:
        return ""
    if longest <= MOST_ID_BYTES and (IDS.search(name) or (rates is None and distinct == len(known))) and distinct > 1:
        return "id" if distinct == len(known) else ""
    is_short = longest <= MOST_TAG_BYTES and (rates is None or TAGS.search(name) is not None)
    return "tag" if is_short and (TAGS.search(name) or 2 * distinct <= len(known)) else ""


def _rates(cells: Any) -> Any:
    """Returns the numbers of a column, or None if it has something else or none."""
    try:
        numbers = values.numbers(cells)
    except BadValue:
        return None
    known = numbers[~np.isnan(numbers)]
    return known if known.size else None


def _looks_like_rates(name: str, rates: Any) -> bool:
    if rates.min() < 0 or rates.max() > 100 or IDS.search(name):
        return False
    fractions = bool(rates.max() <= 1 and (rates % 1).any())
    return fractions or RATES.search(name) is not None


def _sort(known: Sequence[Any]) -> str:
    sorts = {
        "number"
        if getattr(value, "is_number", False)
        else {str: "text", bool: "true/false", list: "list"}.get(type(value), "object")
        for value in known
    }
    return ", ".join(sorted(sorts))


def _command(paths: Sequence[str], columns: Sequence[Column]) -> Iterable[str]:
    yield from ("bots", "dataset", "create", _dataset_name(paths[0]), *paths)
    named = {role: [column for column in columns if column.role == role] for role in ("id", "tag", "text")}
    patterns = {"id": IDS, "tag": TAGS, "text": TEXTS}
    for role, found in named.items():
        if found:
            best = next((column for column in found if patterns[role].search(column.name)), found[0])
            yield from (f"--{role}", best.name)
    rates = [column for column in columns if column.role == "pass rate"]
    if rates:
        like = [column for column in rates if (column.scale, column.reverse) == (rates[0].scale, rates[0].reverse)]
        ordered = sorted(like, key=lambda column: -column.mean if column.reverse else column.mean)
        if len(ordered) > 1:
            yield from ("--weak", ordered[0].name)
        yield from ("--strong", ordered[-1].name)
        if rates[0].scale == 100:
            yield from ("--scale", "100")
        if rates[0].reverse:
            yield "--reverse"


def _dataset_name(path: str) -> str:
    stem = Path(path).name
    for ending in COMPRESSED_ENDINGS:
        stem = stem.removesuffix(ending)
    name = re.sub(r"[^a-z0-9._-]+", "-", Path(stem).stem.lower()).strip("-._")
    return name[:63] or "tasks"
