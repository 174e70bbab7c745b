"""The outbox in a file (SQLite), so that it survives the process; the tasks of the datasets are kept beside it.

Two processes never share a file: a process whose file is taken uses the next free of PATH.1, PATH.2, ... and a process
that starts takes in what ended processes left in any of them.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from bots.outbox import Entry, Storage

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  row INTEGER PRIMARY KEY, dataset TEXT, run TEXT, kind TEXT, payload BLOB, first_sent REAL);
CREATE TABLE IF NOT EXISTS datasets (name TEXT PRIMARY KEY, content BLOB);
"""
MOST_FILES = 1_024


class OutboxFile(Storage):
    """An open file, locked against other processes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._connection = _own(Path(path))
        self._path = Path(path)

    def load(self) -> list[Entry]:
        """Returns the entries of this file and of those that ended processes left beside it, oldest first."""
        for other in _siblings(self._path):
            self._take_in(other)
        rows = self._connection.execute("SELECT row, dataset, run, kind, payload, first_sent FROM entries ORDER BY row")
        now, monotonic = time.time(), time.monotonic()
        # The wall clock is all that two processes share; an age below 0 would be a clock set back.
        return [
            Entry((dataset, run), kind, payload, monotonic - max(0.0, now - first_sent), row)
            for row, dataset, run, kind, payload, first_sent in rows
        ]

    def add(self, entry: Entry) -> None:
        """Keeps an entry; it survives the end of the process when this returns."""
        first_sent = time.time() - (time.monotonic() - entry.first_sent)
        entry.row = self._connection.execute(
            "INSERT INTO entries (dataset, run, kind, payload, first_sent) VALUES (?, ?, ?, ?, ?)",
            (*entry.lane, entry.kind, entry.payload, first_sent),
        ).lastrowid

    def remove(self, entry: Entry) -> None:
        """Forgets an entry."""
        self._connection.execute("DELETE FROM entries WHERE row = ?", (entry.row,))

    def keep_dataset(self, name: str, content: bytes) -> None:
        """Keeps the tasks of a dataset."""
        self._connection.execute("INSERT OR REPLACE INTO datasets VALUES (?, ?)", (name, content))

    def dataset(self, name: str) -> bytes | None:
        """Returns the tasks of a dataset that were kept, by this process or an earlier one."""
        found = self._connection.execute("SELECT content FROM datasets WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def close(self) -> None:
        """Releases the file."""
        self._connection.close()

    def _take_in(self, path: Path) -> None:
        try:
            other = _open(path)
        except sqlite3.OperationalError:  # its process lives
            return
        rows = other.execute("SELECT dataset, run, kind, payload, first_sent FROM entries ORDER BY row").fetchall()
        self._connection.executemany(
            "INSERT INTO entries (dataset, run, kind, payload, first_sent) VALUES (?, ?, ?, ?, ?)", rows
        )
        # Lost between these two, the entries are delivered twice, and count once by their request ids.
        other.execute("DELETE FROM entries")
        other.close()


def _open(path: Path) -> sqlite3.Connection:
    """Opens and locks a file. sqlite3.OperationalError: another process has it."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(SCHEMA)
    except sqlite3.OperationalError:
        connection.close()
        raise
    return connection


def _own(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(MOST_FILES):
        try:
            return _open(path if not number else path.with_name(f"{path.name}.{number}"))
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise OSError(f"outbox: {path}: {error}") from None
    raise OSError(f"outbox: {path}: {MOST_FILES} processes use it")


def _siblings(path: Path) -> Iterator[Path]:
    names = itertools.chain([path], (path.with_name(f"{path.name}.{number}") for number in range(1, MOST_FILES)))
    return itertools.takewhile(Path.exists, names)
