"""Parquet, Arrow files and Arrow streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from bots.files.chunks import CHUNK_ROWS, Chunk, Reader, splits
from bots.files.errors import missing_column
from bots.files.sources import Source


@contextmanager
def open_table(source: Source) -> Iterator[Reader]:
    """Yields a reader of a Parquet or Arrow file."""
    if source.format == "stream":
        with source.open() as (content, file):
            yield ArrowReader(source, pa.ipc.open_stream(content), file)
        return
    with source.seekable() as (content, file):
        if source.format == "parquet":
            yield ParquetReader(source, pa.parquet.ParquetFile(content))
        else:
            yield ArrowReader(source, pa.ipc.open_file(content), file)


class ParquetReader:
    """A Parquet file: only the pages of the columns wanted are read."""

    unit = "row"

    def __init__(self, source: Source, file: Any) -> None:
        self._source, self._file = source, file
        self._schema = file.schema_arrow

    def names(self) -> list[str]:
        return list(self.types())

    def types(self) -> dict[str, str]:
        return dict(_leaves(self._schema))

    def size(self) -> int | None:
        return int(self._file.metadata.num_rows)

    def chunks(self, wanted: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        paths = [_path(self._source, self._schema, name) for name in wanted]
        columns = [".".join(path) for path in paths]
        # One row group after the other: read ahead, a file of large row groups would be in memory as a whole.
        batches = self._file.iter_batches(batch_size=chunk_rows, columns=columns, use_threads=False)
        return _chunks(batches, wanted, paths, lambda rows: self._source.size * rows // max(self.size() or 0, 1))


class ArrowReader:
    """An Arrow file or stream, batch by batch."""

    unit = "row"

    def __init__(self, source: Source, reader: Any, file: BinaryIO) -> None:
        self._source, self._reader, self._file = source, reader, file
        self._schema = reader.schema

    def names(self) -> list[str]:
        return list(self.types())

    def types(self) -> dict[str, str]:
        return dict(_leaves(self._schema))

    def size(self) -> int | None:
        return None

    def chunks(self, wanted: Sequence[str], chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        paths = [_path(self._source, self._schema, name) for name in wanted]
        return _chunks(self._batches(chunk_rows), wanted, paths, lambda _: self._file.tell())

    def _batches(self, chunk_rows: int) -> Iterator[Any]:
        if isinstance(self._reader, pa.RecordBatchFileReader):
            whole = (self._reader.get_batch(number) for number in range(self._reader.num_record_batches))
        else:
            whole = iter(self._reader)
        for batch in whole:
            for start in range(0, batch.num_rows, chunk_rows):
                yield batch.slice(start, chunk_rows)


def _chunks(batches: Iterator[Any], wanted: Sequence[str], paths: Sequence[list[str]], done: Any) -> Iterator[Chunk]:
    rows = 0
    for batch in batches:
        columns = {name: _column(batch, path) for name, path in zip(wanted, paths, strict=True)}
        first, rows = rows + 1, rows + batch.num_rows
        yield Chunk(range(first, rows + 1), columns, done(rows))


def _column(batch: Any, path: list[str]) -> Any:
    column = batch.column(batch.schema.names.index(path[0]))
    for field in path[1:]:
        column = pc.struct_field(column, field)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _path(source: Source, schema: Any, name: str) -> list[str]:
    """Returns the names that lead to a column. DataError: there is none, or there are two."""
    for top, rest in splits(name):
        indices = schema.get_all_field_indices(top)
        if len(indices) > 1:
            raise missing_column(source.path, name, [name])
        if indices:
            inside = _inside(schema.field(indices[0]).type, rest)
            if inside is not None:
                return [top, *inside]
    raise missing_column(source.path, name, [leaf for leaf, _ in _leaves(schema)])


def _inside(kind: Any, name: str) -> list[str] | None:
    if not name:
        return []
    if pa.types.is_struct(kind):
        for top, rest in splits(name):
            if kind.get_field_index(top) >= 0:
                inside = _inside(kind.field(kind.get_field_index(top)).type, rest)
                if inside is not None:
                    return [top, *inside]
    return None


def _leaves(fields: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in fields:
        if pa.types.is_struct(field.type) and field.type.num_fields:
            inner = [field.type.field(number) for number in range(field.type.num_fields)]
            yield from _leaves(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, str(field.type)
