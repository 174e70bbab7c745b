"""Datasets: a record, a table of strata, and the columns of the tasks in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from bots_server.storage.v1 import storage_pb2
from bots_server.store.scripts import Scripts


class Upload:
    """One dataset on its way in. It appears whole at `commit`, or not at all.

    A context manager: what was put and not committed is deleted at exit, and expires within an hour where the server
    died.
    """

    def __init__(self, scripts: Scripts, name: str) -> None:
        self.name = name
        self.uid = ""  # 32 hexadecimal digits, random: the dataset's, once committed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def put(self, chunk: int, columns: storage_pb2.TaskColumns) -> None:
        """Stores the columns of chunk number `chunk` (0, 1, 2, ...)."""
        raise NotImplementedError

    def commit(
        self, record: storage_pb2.DatasetRecord, strata: storage_pb2.StrataTable
    ) -> tuple[storage_pb2.DatasetRecord, bool]:
        """Makes the dataset appear. Returns its record and whether it was created; `uid`, `name` and `chunks` are set
        here.

        A dataset of equal fingerprint under the name is returned, with False. Raises DatasetExists where the name has
        another, Conflict where a chunk has expired meanwhile.
        """
        raise NotImplementedError


class Datasets:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def upload(self, name: str) -> Upload:
        """Returns an upload of a dataset to be called `name`."""
        return Upload(self._scripts, name)

    def get(self, name: str) -> storage_pb2.DatasetRecord:
        """Raises DatasetNotFound."""
        raise NotImplementedError

    def list(self) -> list[storage_pb2.DatasetRecord]:
        """Returns all datasets, by name."""
        raise NotImplementedError

    def strata(self, record: storage_pb2.DatasetRecord) -> storage_pb2.StrataTable:
        """Raises DatasetNotFound where the dataset is deleted meanwhile."""
        raise NotImplementedError

    def columns(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.TaskColumns]:
        """Yields the chunks, in order of task. Raises DatasetNotFound where the dataset is deleted meanwhile."""
        raise NotImplementedError

    def run_count(self, record: storage_pb2.DatasetRecord) -> int:
        """Returns the number of runs."""
        raise NotImplementedError

    def delete(self, name: str, *, delete_runs: bool) -> None:
        """Deletes the dataset, with its runs where told to: all in one transition.

        Raises DatasetNotFound, and DatasetHasRuns where there are runs and `delete_runs` is false.
        """
        raise NotImplementedError

    def rebuild_index(self) -> None:
        """Finds every dataset by SCAN and lists it again; for an index that was lost."""
        raise NotImplementedError
