"""Datasets: a record, a table of strata, and the columns of the tasks in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from bots_server.errors import Conflict, DatasetExists, DatasetHasRuns, DatasetNotFound, Unavailable
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database
from bots_server.store.failures import failures

_STAGING_SECONDS = 3600  # how long what is uploaded lives without the next chunk or the commit
_ATTEMPTS = 10  # at a deletion, while others create and delete runs


class Upload:
    """One dataset on its way in. It appears whole at `commit`, or not at all.

    A context manager: what was put and not committed is deleted at exit, and expires within an hour where the server
    died. The chunks lie under their final keys, which carry the new uid, so that nothing has to be moved.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self.uid = uuid.uuid4().hex  # the dataset's, once committed
        self._database = database
        self._staged: dict[str, None] = {}  # keys, in order
        self._refreshed = time.monotonic()
        self._committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed or not self._staged:
            return
        # Redis away: what is staged expires by itself, and the error that led here says more.
        with suppress(Unavailable):
            self._database.run("discard_upload", [keys.dataset(self.name), *self._staged], [self.uid])

    def put(self, chunk: int, columns: storage_pb2.TaskColumns) -> None:
        """Stores the columns of chunk number `chunk` (0, 1, 2, ...)."""
        self._stage(keys.columns(self.name, self.uid, chunk), columns.SerializeToString())

    def commit(
        self, record: storage_pb2.DatasetRecord, strata: storage_pb2.StrataTable
    ) -> tuple[storage_pb2.DatasetRecord, bool]:
        """Makes the dataset appear. Returns its record and whether it was created; `uid`, `name`, `chunks` are set
        here.

        A dataset of equal fingerprint under the name is returned, with False. Raises DatasetExists where the name has
        another, Conflict where something that was put has expired meanwhile.
        """
        own = storage_pb2.DatasetRecord()
        own.CopyFrom(record)
        own.name, own.uid, own.chunks = self.name, self.uid, len(self._staged)
        chunks = list(self._staged)
        strata_key = keys.strata(self.name, self.uid)
        self._stage(strata_key, strata.SerializeToString())
        _remember(self._database, self.name)
        status, there = self._database.store(
            "commit_dataset",
            [keys.dataset(self.name), strata_key, *chunks],
            [self.uid, own.fingerprint, own.SerializeToString()],
        )
        if status == b"expired":
            raise Conflict(f"dataset = {self.name!r}: the upload took more than an hour between two chunks; repeat it")
        if status == b"taken":
            raise DatasetExists(self.name)
        self._committed = status == b"created"
        if self._committed:
            _remember(self._database, self.name)  # again: a deletion of the one before may have crossed
        else:
            self._database.settle(self.name)
        return storage_pb2.DatasetRecord.FromString(there), self._committed

    def _stage(self, key: str, value: bytes) -> None:
        self._database.command("SET", key, value, "EX", _STAGING_SECONDS)
        self._staged[key] = None
        if time.monotonic() - self._refreshed > _STAGING_SECONDS / 4:
            for staged in self._staged:
                self._database.command("EXPIRE", staged, _STAGING_SECONDS)
            self._refreshed = time.monotonic()


class Datasets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def upload(self, name: str) -> Upload:
        """Returns an upload of a dataset to be called `name`."""
        return Upload(self._database, name)

    def get(self, name: str) -> storage_pb2.DatasetRecord:
        """Raises DatasetNotFound."""
        value = self._database.command("HGET", keys.dataset(name), "record")
        if value is None:
            raise DatasetNotFound(name)
        return storage_pb2.DatasetRecord.FromString(value)

    def list(self) -> list[storage_pb2.DatasetRecord]:
        """Returns all datasets, by name."""
        if not self._database.command("EXISTS", keys.DATASETS):
            self._index()
        names = sorted(name.decode() for name in self._database.command("SMEMBERS", keys.DATASETS))
        records = []
        for name in names:
            try:
                records.append(self.get(name))
            except DatasetNotFound:  # deleted, or an upload that was never committed
                _forget(self._database, name)
        return records

    def strata(self, record: storage_pb2.DatasetRecord) -> storage_pb2.StrataTable:
        """Raises DatasetNotFound where the dataset is deleted meanwhile."""
        value = self._database.command("GET", keys.strata(record.name, record.uid))
        if value is None:
            raise DatasetNotFound(record.name)
        return storage_pb2.StrataTable.FromString(value)

    def columns(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.TaskColumns]:
        """Yields the chunks, in order of task. Raises DatasetNotFound where the dataset is deleted meanwhile."""
        for chunk in range(record.chunks):
            value = self._database.command("GET", keys.columns(record.name, record.uid, chunk))
            if value is None:
                raise DatasetNotFound(record.name)
            yield storage_pb2.TaskColumns.FromString(value)

    def run_count(self, record: storage_pb2.DatasetRecord) -> int:
        """Returns the number of runs."""
        return int(self._database.command("HLEN", keys.runs(record.name, record.uid)))

    def delete(self, name: str, *, delete_runs: bool) -> None:
        """Deletes the dataset, with its runs where told to: all in one transition.

        Raises DatasetNotFound, DatasetHasRuns where there are runs and `delete_runs` is false, and Conflict where runs
        come and go faster than they can be listed.
        """
        for _ in range(_ATTEMPTS):
            record = self.get(name)
            run_keys = [keys.of_run(run) for run in self._run_records(record)] if delete_runs else []
            status, runs = self._database.store(
                "delete_dataset",
                [
                    keys.dataset(name),
                    keys.runs(name, record.uid),
                    *(run.run for run in run_keys),
                    keys.strata(name, record.uid),
                    *(keys.columns(name, record.uid, chunk) for chunk in range(record.chunks)),
                    *(key for run in run_keys for key in run.all()[1:]),
                ],
                [record.uid, len(run_keys)],
            )
            if status == b"deleted":
                _forget(self._database, name)
                return
            if status == b"changed" and not delete_runs:
                raise DatasetHasRuns(name, runs)
        raise Conflict(f"name = {name!r}: its runs change all the time; repeat")

    def _index(self) -> None:
        """Makes an index that was lost, or deleted to this end: finds every dataset by SCAN."""
        with failures():
            found = list(self._database.client.scan_iter(match=keys.EVERY_DATASET, count=1000))
        if found:  # all at once, so that nobody meets half an index
            names = (key.decode().partition("{")[2].partition("}")[0] for key in found)
            self._database.command("SADD", keys.DATASETS, *names)

    def _run_records(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.RunRecord]:
        values = self._database.command("HVALS", keys.runs(record.name, record.uid))
        return (storage_pb2.RunRecord.FromString(value) for value in values)


def _remember(database: Database, name: str) -> None:
    """Adds a name to the index."""
    database.command("SADD", keys.DATASETS, name)


def _forget(database: Database, name: str) -> None:
    """Takes a name out of the index, unless a dataset has it (again).

    The index lies in another slot than the dataset, so that no script has both. A creation adds the name before and
    after it, and this looks after it has taken the name out: whatever the order, a living dataset stays listed.
    """
    database.command("SREM", keys.DATASETS, name)
    if database.command("EXISTS", keys.dataset(name)):
        database.command("SADD", keys.DATASETS, name)
