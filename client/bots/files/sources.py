"""A file: its format, its compression, and its content as bytes or text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from bots.files.errors import DataError

BLOCK = 1 << 20

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
        return ending_of(self.path)

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
                shutil.copyfileobj(content, plain, BLOCK)
                plain.seek(0)
                yield plain, file

    @contextmanager
    def text(self) -> Iterator[tuple[io.TextIOWrapper, BinaryIO]]:
        """Yields (text, file). Bytes that are not UTF-8 become surrogates, which only a column that is read refuses."""
        with self.open() as (content, file):
            buffered = io.BufferedReader(cast(io.RawIOBase, content), BLOCK)
            wide = buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
            yield io.TextIOWrapper(buffered, "utf-16" if wide else "utf-8-sig", "surrogateescape", newline=""), file


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the errors of opening, decompressing and decoding a file into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
        raise DataError(
            path, f"must be a whole file, is damaged or truncated ({line_of(error)})", kind="file"
        ) from error
    except UnicodeError as error:
        raise DataError(path, f"must be UTF-8 or UTF-16 ({line_of(error)})", kind="file") from error
    except FileNotFoundError as error:
        raise DataError(path, "must exist (no such file or folder)", kind="file") from error
    except PermissionError as error:
        raise DataError(path, "must be readable (permission denied)", kind="file") from error
    except OSError as error:
        # The operating system's errors have a number, those of pyarrow have none.
        rule = "must be a whole file, is damaged or truncated" if error.errno is None else "must be readable"
        raise DataError(path, f"{rule} ({error.strerror or line_of(error)})", kind="file") from error


def spooled(path: Path, stream: BinaryIO) -> Source:
    """Returns a stream, which can be read once, as a source that can be read again."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  (closed with its source)
    shutil.copyfileobj(stream, spool, BLOCK)
    source = source_of(path, spool)
    weakref.finalize(source, spool.close)
    return source


def source_of(path: Path, spool: Any = None) -> Source:
    """Returns a file with its format and compression. DataError: it cannot be opened, or is none of the formats."""
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
    named = FORMAT_OF_ENDING.get(ending_of(path), "")
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
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"), BLOCK)
    return file


def ending_of(path: Path) -> str:
    """Returns the ending of a name without that of the compression, in lower case."""
    name = path.name.lower()
    for ending in COMPRESSED_ENDINGS:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def line_of(error: BaseException) -> str:
    """Returns the message of an error as one line."""
    return " ".join(str(error).split())[:200]
