"""One table, written in every format."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

Row = dict[str, Any]

ROWS: list[Row] = [
    {
        "id": "007",
        "tag": "2024-05-01",
        "weak": 0.25,
        "strong": 0.5,
        "size": 3,
        "prompt": 'one,\n"two"',
        "x": {"index": 5},
    },
    {"id": "1e3", "tag": "math", "weak": None, "strong": None, "size": 4, "prompt": "é🙂", "x": {"index": 6}},
    {"id": "c", "tag": "2024-05-01", "weak": 0.5, "strong": 1.0, "size": 5, "prompt": " three ", "x": {"index": 7}},
]


def parquet(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), file, row_group_size=2)
    return file.getvalue()


def arrow_file(rows: Sequence[Row]) -> bytes:
    table = pa.Table.from_pylist(list(rows))
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file.getvalue()


def arrow_stream(rows: Sequence[Row]) -> bytes:
    table = pa.Table.from_pylist(list(rows))
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file.getvalue()


def feather(rows: Sequence[Row]) -> bytes:
    file = io.BytesIO()
    pa.feather.write_feather(pa.Table.from_pylist(list(rows)), file, compression="zstd")
    return file.getvalue()


def json_lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_array(rows: Sequence[Row]) -> bytes:
    return json.dumps(list(rows), indent=1).encode()


def separated(rows: Sequence[Row], delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    flat = [{("x.index" if name == "x" else name): _cell(value) for name, value in row.items()} for row in rows]
    writer = csv.DictWriter(file, list(flat[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue().encode()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)  # type: ignore[no-any-return]


FORMATS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "rows.parquet": parquet,
    "rows.arrow": arrow_file,
    "stream.arrow": arrow_stream,
    "rows.feather": feather,
    "rows.jsonl": json_lines,
    "rows.json": json_array,
    "rows.csv": lambda rows: separated(rows, ","),
    "semicolons.csv": lambda rows: separated(rows, ";"),
    "rows.tsv": lambda rows: separated(rows, "\t"),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def write(folder: Path, name: str, rows: Sequence[Row], compression: str = "") -> Path:
    """Writes rows in the format of a name."""
    file = folder / (name + compression)
    file.write_bytes(COMPRESSIONS[compression](FORMATS[name](rows)))
    return file


def _cell(value: Any) -> Any:
    return value["index"] if isinstance(value, dict) else value
