"""CSV, JSON lines and JSON arrays, with the standard library's parsers.

Both keep the text of every cell and know its line. They read about 300 MB a second, pyarrow's parsers 400 to 650; those
refuse numbers among the texts of a JSON column and rows longer than a block, and their errors name no line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from bots.files.chunks import CHUNK_ROWS, Chunk, Reader, splits
from bots.files.errors import DataError, missing_column
from bots.files.sources import Source

# A cell or a line beyond this is a quote or a line that does not end.
LONGEST_CELL = 1 << 28
HEAD_ROWS = 500
BLOCK = 1 << 20
DELIMITERS = ",;\t|"


class JsonNumber(str):
    """A number of a JSON file, as it is written there."""

    __slots__ = ()
    is_number = True


_DECODER = json.JSONDecoder(parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=JsonNumber)


@contextmanager
def open_text(source: Source) -> Iterator[Reader]:
    """Yields a reader of a CSV or JSON file."""
    if source.format == "json":
        yield JsonReader(source)
    else:
        yield CsvReader(source)


@contextmanager
def _text(source: Source) -> Iterator[tuple[io.TextIOWrapper, BinaryIO]]:
    """Yields (text, file). Bytes that are not UTF-8 become surrogates: they matter only in a column that is read."""
    with source.open() as (content, file):
        buffered = io.BufferedReader(cast(io.RawIOBase, content), BLOCK)
        wide = buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        yield io.TextIOWrapper(buffered, "utf-16" if wide else "utf-8-sig", "surrogateescape", newline=""), file


class CsvReader:
    """A CSV file with a header; separated by commas, semicolons, tabs or bars, as the header is."""

    unit = "line"

    def __init__(self, source: Source) -> None:
        self._source = source

    def names(self) -> list[str]:
        with _text(self._source) as (text, _):
            return self._header(text)[0]

    def types(self) -> dict[str, str]:
        return {}

    def size(self) -> int | None:
        return None

    def chunks(self, wanted: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        limit = csv.field_size_limit(LONGEST_CELL)
        try:
            with _text(self._source) as (text, file):
                header, rows = self._header(text)
                cells = [self._cell(header, name) for name in wanted]
                columns: list[list[Any]] = [[] for _ in wanted]
                lines: list[int] = []
                for line, row in self._rows(rows, len(header)):
                    lines.append(line)
                    for column, cell in zip(columns, cells, strict=True):
                        column.append(row[cell])
                    if len(lines) == chunk_rows:
                        yield Chunk(lines, dict(zip(wanted, columns, strict=True)), file.tell())
                        columns, lines = [[] for _ in wanted], []
                yield Chunk(lines, dict(zip(wanted, columns, strict=True)), file.tell())
        finally:
            csv.field_size_limit(limit)

    def _header(self, text: io.TextIOWrapper) -> tuple[list[str], Any]:
        first = text.readline(LONGEST_CELL)
        bare = "".join(first.split('"')[::2])
        tabs = "\t" if self._source.ending in (".tsv", ".tab") else max(DELIMITERS, key=bare.count)
        rows = csv.reader(_with_first(first, text), delimiter=tabs, strict=True)
        try:
            return [name.strip() for name in next(rows)], rows
        except csv.Error as error:
            raise DataError(self._source.path, f"must be CSV ({error})", row=1, unit=self.unit) from error

    def _cell(self, header: list[str], name: str) -> int:
        if header.count(name) != 1:
            raise missing_column(self._source.path, name, header)
        return header.index(name)

    def _rows(self, rows: Any, cells: int) -> Iterator[tuple[int, list[str]]]:
        line = rows.line_num + 1
        try:
            for row in rows:
                if len(row) == cells:
                    yield line, row
                elif row:
                    rule = f"must have {cells} cells as the header has, has {len(row)}"
                    raise DataError(self._source.path, rule, row=line, unit=self.unit)
                line = rows.line_num + 1
        except csv.Error as error:
            raise DataError(self._source.path, f"must be a row of CSV ({error})", row=line, unit=self.unit) from error


class JsonReader:
    """One object a line, or one array of objects."""

    def __init__(self, source: Source) -> None:
        self._source = source
        with _text(source) as (text, _):
            start = text.read(BLOCK).lstrip()
        self._is_array = start.startswith("[")
        self.unit = "row" if self._is_array else "line"

    def names(self) -> list[str]:
        names: dict[str, None] = {}
        with _text(self._source) as (text, _):
            for (_, row), _ in zip(self._rows(text), range(HEAD_ROWS), strict=False):
                names.update(dict.fromkeys(_leaves(row)))
        return list(names)

    def types(self) -> dict[str, str]:
        return {}

    def size(self) -> int | None:
        return None

    def chunks(self, wanted: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yields the file. A column is missing if no row has it."""
        unseen = set(wanted)
        with _text(self._source) as (text, file):
            columns: list[list[Any]] = [[] for _ in wanted]
            rows: list[int] = []
            for number, row in self._rows(text):
                rows.append(number)
                for column, name in zip(columns, wanted, strict=True):
                    try:
                        value = row[name]
                    except KeyError:
                        value = _inside(row, name)
                    column.append(None if value is _ABSENT else value)
                    if unseen and value is not _ABSENT:
                        unseen.discard(name)
                if len(rows) == chunk_rows:
                    if unseen:
                        unseen = self._require(unseen)
                    yield Chunk(rows, dict(zip(wanted, columns, strict=True)), file.tell())
                    columns, rows = [[] for _ in wanted], []
            if unseen and rows:
                self._require(unseen)
            yield Chunk(rows, dict(zip(wanted, columns, strict=True)), file.tell())

    def _require(self, names: set[str]) -> set[str]:
        """Returns the empty set. DataError: no row of the whole file has one of the columns."""
        unseen = set(names)
        with _text(self._source) as (text, _):
            for _, row in self._rows(text):
                unseen = {name for name in unseen if _inside(row, name) is _ABSENT}
                if not unseen:
                    return unseen
        raise missing_column(self._source.path, min(unseen), self.names())

    def _rows(self, text: io.TextIOWrapper) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(self._elements(text), 1) if self._is_array else self._lines(text):
            if not isinstance(row, dict):
                raise DataError(self._source.path, "must be an object", row=number, unit=self.unit, value=row)
            yield number, row

    def _lines(self, text: io.TextIOWrapper) -> Iterator[tuple[int, Any]]:
        number = 0
        while line := text.readline(LONGEST_CELL):
            number += 1
            if line.isspace():
                continue
            try:
                yield number, _DECODER.decode(line)
            except (json.JSONDecodeError, RecursionError) as error:
                cut = "" if line.endswith(("\n", "\r")) else "; the file ends here: is it complete?"
                rule = f"must be one JSON object a line, or the file one array of objects ({error}{cut})"
                raise DataError(self._source.path, rule, row=number, unit=self.unit) from error

    def _elements(self, text: io.TextIOWrapper) -> Iterator[Any]:
        """Yields the elements of an array, of which one at a time is in memory."""
        buffer, at, number = text.read(BLOCK), 0, 0
        at = buffer.index("[") + 1
        while True:
            buffer, at = _skip(text, buffer, at)
            if buffer[at : at + 1] == "]":
                return
            number += 1
            want = BLOCK
            while True:
                try:
                    value, end = _DECODER.raw_decode(buffer, at)
                    break
                except (json.JSONDecodeError, RecursionError) as error:
                    # An error at the end of the buffer, or a string without end, may be an element that is longer.
                    position = getattr(error, "pos", 0)
                    ends = position >= len(buffer) - 16 or "Unterminated" in str(error)
                    more = text.read(want) if ends and want <= LONGEST_CELL else ""
                    if not more:
                        rule = f"must be a JSON object ({getattr(error, 'msg', error)})"
                        raise DataError(self._source.path, rule, row=number, unit=self.unit) from error
                    buffer, at, want = buffer[at:] + more, 0, 2 * want
            yield value
            buffer, at = _skip(text, buffer, end)
            if buffer[at : at + 1] == ",":
                at += 1
            elif buffer[at : at + 1] != "]":
                rule = "must be followed by a comma or the end of the array"
                raise DataError(self._source.path, rule, row=number, unit=self.unit)


_ABSENT = object()


def _inside(row: dict[str, Any], name: str) -> Any:
    """Returns the value at a dotted path, or _ABSENT."""
    for top, rest in splits(name):
        if top in row:
            if not rest:
                return row[top]
            if isinstance(row[top], dict):
                value = _inside(row[top], rest)
                if value is not _ABSENT:
                    return value
    return _ABSENT


def _leaves(row: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _with_first(first: str, rest: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from rest


def _skip(text: io.TextIOWrapper, buffer: str, at: int) -> tuple[str, int]:
    """Returns (buffer, position) after white space."""
    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n":
            at += 1
        if at < len(buffer):
            return buffer, at
        more = text.read(BLOCK)
        if not more:
            return buffer, at
        buffer, at = more, 0
