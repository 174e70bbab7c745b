"""Finds and opens the files that a path names: a file, a folder, a glob, or a folder of a Hugging Face dataset."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from bots.files.errors import DataError

Progress = Callable[[int, int], object]

FORMAT_OF_ENDING = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
}
COMPRESSION_OF_START = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
COMPRESSED_ENDINGS = (".gz", ".zst", ".zstd", ".bz2", ".xz")
PARTS = re.compile(r"(?P<split>.+)-(?P<part>\d{5,})-of-(?P<parts>\d{5,})(-[0-9a-f]+)?$")
FORMATS = "Parquet, Arrow, CSV, TSV, JSON lines or a JSON array"


@dataclass(frozen=True)
class Source:
    """One file.

    format       "parquet", "arrow" (an IPC file), "stream" (an IPC stream), "csv" or "json".
    compression  "gzip", "zstd", "bz2", "xz" or "".
    version      (size, modification time) when the file was found.
    folder       the folder that was named, if it was one.
    spool        the content if it came from a pipe, else None.
    """

    path: Path
    format: str
    compression: str
    version: tuple[int, int]
    folder: Path | None = None
    spool: Any = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.version[0]

    @property
    def ending(self) -> str:
        """The ending of the name without that of the compression, in lower case."""
        return _ending(self.path)

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Yields (content, file): the content decompressed, and the file whose position tells the progress.

        DataError: the file is gone, may not be read, is damaged, or was changed since it was found.
        """
        with explained(self.path), _raw(self.path, self.spool) as file:
            yield _decompressed(file, self.compression), file
        if self.spool is None and _version(self.path) != self.version:
            rule = f"must not change while it is read (it had {self.size} bytes and has {_version(self.path)[0]})"
            raise DataError(self.path, rule, kind="file")

    @contextmanager
    def seekable(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Yields the same, with a content that can be read in any order: if compressed, from a temporary file."""
        with self.open() as (content, file):
            if not self.compression:
                yield content, file
                return
            with tempfile.TemporaryFile() as plain:
                shutil.copyfileobj(content, plain, 1 << 20)
                plain.seek(0)
                yield plain, file


def find(paths: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Returns the files that are named: in the order given, those of a folder or a glob by name.

    A path is a file, a folder, a glob, or "-" for the standard input. DataError: a path names no data.
    """
    found: list[Source] = []
    for path in paths:
        found += _spooled(Path("-"), sys.stdin.buffer) if os.fspath(path) == "-" else _named(Path(path))
    seen: set[Path] = set()
    for source in found:
        real = source.path.resolve()
        if real in seen and source.spool is None:
            raise DataError(source.path, "must be named only once", kind="file")
        seen.add(real)
    if not found:
        raise ValueError("files: got none, must be at least one")
    return found


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the errors of opening, decompressing and decoding a file into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
        raise DataError(path, f"must be a whole file, is damaged or truncated ({_line(error)})", kind="file") from error
    except UnicodeError as error:
        raise DataError(path, f"must be UTF-8 or UTF-16 ({_line(error)})", kind="file") from error
    except FileNotFoundError as error:
        raise DataError(path, "must exist (no such file or folder)", kind="file") from error
    except PermissionError as error:
        raise DataError(path, "must be readable (permission denied)", kind="file") from error
    except OSError as error:
        # The operating system's errors have a number, those of pyarrow have none.
        rule = "must be a whole file, is damaged or truncated" if error.errno is None else "must be readable"
        raise DataError(path, f"{rule} ({error.strerror or _line(error)})", kind="file") from error


def _named(path: Path) -> list[Source]:
    with explained(path):
        if path.is_dir():
            return _folder(path)
        if not path.exists() and glob.has_magic(str(path)):
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            if not matches:
                raise DataError(path, "must match at least one file", kind="file")
            return [source for match in matches for source in _named(match)]
        if path.is_fifo():
            with path.open("rb") as stream:
                return _spooled(path, stream)
        return [_source(path)]


def _folder(folder: Path) -> list[Source]:
    if (folder / "dataset_dict.json").exists():
        splits = _description(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            rule = f"must be one split of the dataset: {', '.join(str(folder / split) for split in splits)}"
            raise DataError(folder, rule, kind="file")
        folder = folder / splits[0]
    if (folder / "state.json").exists():
        if _description(folder / "state.json", "_indices_data_files"):
            rule = "must be saved without an index: call flatten_indices() before save_to_disk"
            raise DataError(folder, rule, kind="file")
        return [_source(folder / file["filename"]) for file in _description(folder / "state.json", "_data_files")]
    files = [path for path in sorted(folder.rglob("*")) if _is_data(path.relative_to(folder)) and path.is_file()]
    if not files:
        raise DataError(folder, f"must hold files whose names end in {', '.join(FORMAT_OF_ENDING)}", kind="file")
    sources = [replace(_source(path), folder=folder) for path in files]
    _check_alike(folder, sources)
    return sources


def _description(file: Path, name: str) -> list[Any]:
    """Returns a list that a description of a dataset holds; empty if it has none."""
    try:
        held = json.loads(file.read_text(encoding="utf-8")).get(name)
    except (json.JSONDecodeError, AttributeError) as error:
        raise DataError(file, f"must be one JSON object ({_line(error)})", kind="file") from error
    return held or []


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    about = path.name in ("dataset_info.json", "dataset_infos.json")
    return not hidden and not about and _ending(path) in FORMAT_OF_ENDING


def _check_alike(folder: Path, sources: Sequence[Source]) -> None:
    """Raises DataError if the files are in several formats or splits, or if parts are missing."""
    formats = {source.ending for source in sources}
    if len({FORMAT_OF_ENDING[ending] for ending in formats}) > 1:
        rule = (
            f"must hold one format, has {', '.join(sorted(formats))}: name the files, such as {folder}/*{min(formats)}"
        )
        raise DataError(folder, rule, kind="file")
    parts = [match for source in sources if (match := PARTS.match(source.path.name.split(".")[0]))]
    splits = sorted({match["split"] for match in parts})
    if len(splits) > 1:
        rule = f"must hold one split, has {', '.join(splits)}: name the files, such as '{folder}/**/{splits[-1]}-*'"
        raise DataError(folder, rule, kind="file")
    if parts and len(parts) != int(parts[0]["parts"]):
        rule = (
            f"must hold all {int(parts[0]['parts'])} parts of {splits[0]!r}, has {len(parts)}: name the files instead"
        )
        raise DataError(folder, rule, kind="file")


def _spooled(path: Path, stream: BinaryIO) -> list[Source]:
    """Returns a stream, which can be read once, as a source that can be read again."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  (closed with its source)
    shutil.copyfileobj(stream, spool, 1 << 20)
    source = _source(path, spool)
    weakref.finalize(source, spool.close)
    return [source]


def _source(path: Path, spool: Any = None) -> Source:
    with explained(path), _raw(path, spool) as file:
        start = file.read(8)
        compression = next((name for mark, name in COMPRESSION_OF_START.items() if start.startswith(mark)), "")
        file.seek(0)
        head = _decompressed(file, compression).read(4096)
        version = _version(path) if spool is None else (file.seek(0, io.SEEK_END), 0)
    if not head:
        raise DataError(path, "must not be empty", kind="file")
    return Source(path, _format(path, head), compression, version, spool=spool)


def _format(path: Path, head: bytes) -> str:
    """Returns the format by content; the name decides only if text is CSV or not data."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    if head.startswith(b"\xff\xff\xff\xff"):
        return "stream"
    named = FORMAT_OF_ENDING.get(_ending(path), "")
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace").lstrip()
    if text.startswith(("{", "[")) and named in ("json", ""):
        return "json"
    if text.startswith("version https://git-lfs"):
        raise DataError(path, "must be the data, is a pointer of Git LFS: run git lfs pull", kind="file")
    if "\x00" in text:
        raise DataError(path, f"must be {FORMATS}", kind="file")
    if named in ("", "csv"):
        return "csv"
    if text.startswith(("{", "[")):
        return "json"
    raise DataError(path, f"must be {FORMATS}; its name says {named}, its content is other text", kind="file")


def _raw(path: Path, spool: Any) -> Any:
    if spool is None:
        return path.open("rb")
    spool.seek(0)
    return os.fdopen(os.dup(spool.fileno()), "rb")


def _decompressed(file: BinaryIO, compression: str) -> Any:
    if compression == "gzip":
        return gzip.open(file)
    if compression == "bz2":
        return bz2.open(file)
    if compression == "xz":
        return lzma.open(file)
    if compression == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"), 1 << 20)
    return file


def _ending(path: Path) -> str:
    name = path.name.lower()
    for ending in COMPRESSED_ENDINGS:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
