"""Datasets: a record, a table of strata, and the columns of the tasks in chunks."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from bots_server.errors import Conflict, DatasetHasRuns, DatasetNotFound, DeadlineExceeded, InvalidField, Unavailable
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys, reader
from bots_server.store.database import Database
from bots_server.store.pages import page

MIN_CHUNK_TASKS = 1_024  # of every chunk but the last, so that a dataset has a bounded number of keys

_STAGING_SECONDS = 3600  # lifetime of a staged chunk without the next chunk or the commit
_ATTEMPTS = 10  # at a deletion, while others create and delete runs
_SCAN = 1000  # keys that Redis looks at in one step of a scan


class Upload:
    """One dataset that is being stored. It appears whole at `commit`, or not at all.

    A context manager: chunks that are not committed are deleted at exit, or expire within an hour if the server dies.
    The chunks have their final keys, which contain the new uid, so that nothing has to be moved.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self.uid = uuid.uuid4().hex  # the dataset's, once committed
        self._database = database
        self.bytes = 0  # stored so far
        self._staged: dict[str, None] = {}  # keys, in order
        self._last_size = MIN_CHUNK_TASKS
        self._refreshed = time.monotonic()
        self._committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed or not self._staged:
            return
        # If Redis is away or the time is over, the staged keys expire by themselves, and the first error says more.
        with suppress(Unavailable, DeadlineExceeded):
            self._database.run("discard_upload", [keys.dataset(self.name), *self._staged], [self.uid])

    def put(self, columns: storage_pb2.TaskColumns) -> None:
        """Stores the next chunk. Raises InvalidField if the chunk before it is too small for any but the last."""
        if self._last_size < MIN_CHUNK_TASKS:
            rule = f"must be at least {MIN_CHUNK_TASKS}, except in the last chunk"
            raise InvalidField("chunk.size", self._last_size, rule)
        self._last_size = columns.size
        self._stage(keys.columns(self.name, self.uid, len(self._staged)), columns.SerializeToString())

    def commit(
        self, record: storage_pb2.DatasetRecord, strata: storage_pb2.StrataTable
    ) -> tuple[storage_pb2.DatasetRecord, bool]:
        """Makes the dataset appear. Returns the record that has the name now, and whether this upload created it.

        If the name is taken, the caller compares the fingerprints (DatasetExists). `name`, `uid`, `chunks`, `bytes`,
        `create_time_ms` and `min_reader` are set here. Raises Conflict if a chunk has expired, NotDurable,
        ServerTooOld.
        """
        own = storage_pb2.DatasetRecord()
        own.CopyFrom(record)
        own.name, own.uid, own.chunks, own.min_reader = self.name, self.uid, len(self._staged), reader.WRITES
        own.create_time_ms = self._database.time_ms(self.name)
        chunks = list(self._staged)
        strata_key = keys.strata(self.name, self.uid)
        self._stage(strata_key, strata.SerializeToString())
        own.bytes = self.bytes
        _remember(self._database, self.name)
        status, there = self._database.run_durably(
            "commit_dataset", [keys.dataset(self.name), strata_key, *chunks], [self.uid, own.SerializeToString()]
        )
        if status == b"expired":
            raise Conflict(f"dataset {self.name!r}: an hour passed between two chunks of the upload; repeat it")
        self._committed = status == b"created"
        if self._committed:
            _remember(self._database, self.name)  # again: the deletion of an earlier dataset may have crossed it
        return reader.dataset(there), self._committed

    def _stage(self, key: str, value: bytes) -> None:
        self._database.command("SET", key, value, "EX", _STAGING_SECONDS)
        self._staged[key] = None
        self.bytes += len(value)
        if time.monotonic() - self._refreshed > _STAGING_SECONDS / 4:
            for staged in self._staged:
                self._database.command("EXPIRE", staged, _STAGING_SECONDS)
            self._refreshed = time.monotonic()


class Datasets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def upload(self, name: str) -> Upload:
        """Returns an upload of a dataset of this name."""
        return Upload(self._database, name)

    def get(self, name: str) -> storage_pb2.DatasetRecord:
        """Returns the dataset that has the name now. Raises DatasetNotFound, ServerTooOld."""
        value = self._database.command("HGET", keys.dataset(name), "record")
        if value is None:
            raise DatasetNotFound(name)
        return reader.dataset(value)

    def list(
        self, after_name: str = "", limit: int = 100, visible: Callable[[str], bool] = lambda name: True
    ) -> list[storage_pb2.DatasetRecord]:
        """Returns the first `limit` datasets whose names are visible and above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. It has datasets of newer servers, too.
        """
        if not self._database.command("EXISTS", keys.DATASETS):
            self._index()

        def read(names: list[str]) -> list[storage_pb2.DatasetRecord]:
            values = self._database.commands([("HGET", keys.dataset(name), "record") for name in names])
            for name, value in zip(names, values, strict=True):
                if value is None:  # deleted, or an upload that was never committed
                    _forget(self._database, name)
            return [storage_pb2.DatasetRecord.FromString(value) for value in values if value is not None]

        names = [name for name in self._database.command("SMEMBERS", keys.DATASETS) if visible(name.decode())]
        return page(names, after_name, limit, read)

    def strata(self, record: storage_pb2.DatasetRecord) -> storage_pb2.StrataTable:
        """Returns the strata. Raises DatasetNotFound if the dataset was deleted."""
        value = self._database.command("GET", keys.strata(record.name, record.uid))
        if value is None:
            raise DatasetNotFound(record.name)
        return storage_pb2.StrataTable.FromString(value)

    def columns(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.TaskColumns]:
        """Yields the chunks, in order of task. Raises DatasetNotFound if the dataset was deleted."""
        for chunk in range(record.chunks):
            value = self._database.command("GET", keys.columns(record.name, record.uid, chunk))
            if value is None:
                raise DatasetNotFound(record.name)
            yield storage_pb2.TaskColumns.FromString(value)

    def every(self) -> Sequence[storage_pb2.DatasetRecord]:
        """Returns all datasets."""
        return self.list(limit=sys.maxsize)

    def run_count(self, record: storage_pb2.DatasetRecord) -> int:
        """Returns the number of runs."""
        return int(self._database.command("HLEN", keys.runs(record.name, record.uid)))

    def delete(self, name: str, *, delete_runs: bool) -> None:
        """Deletes the dataset, with its runs if `delete_runs`, in one transition.

        Raises DatasetNotFound, DatasetHasRuns if there are runs and `delete_runs` is false, Conflict if runs are
        created and deleted faster than they can be listed, NotDurable, ServerTooOld.
        """
        for _ in range(_ATTEMPTS):
            record = self.get(name)
            run_keys = [keys.of_run(run) for run in self._run_records(record)] if delete_runs else []
            status, runs = self._database.run_durably(
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
        raise Conflict(f"dataset {name!r}: its runs change all the time; repeat")

    def _index(self) -> None:
        """Makes the index again after it was lost, or deleted for this purpose: finds every dataset by SCAN."""
        found = self._database.scan(keys.EVERY_DATASET, _SCAN)
        if found:  # in one command, so that no listing sees a part of the index
            names = (key.decode().partition("{")[2].partition("}")[0] for key in found)
            self._database.command("SADD", keys.DATASETS, *names)

    def _run_records(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.RunRecord]:
        values = self._database.command("HVALS", keys.runs(record.name, record.uid))
        return (storage_pb2.RunRecord.FromString(value) for value in values)


def _remember(database: Database, name: str) -> None:
    """Adds a name to the index."""
    database.command("SADD", keys.DATASETS, name)


def _forget(database: Database, name: str) -> None:
    """Removes a name from the index, unless a dataset has it (again).

    The index lies in another slot than the dataset, so no script can have both. A creation adds the name before and
    after it, and this function looks for the dataset after it has removed the name: in every order of the two, an
    existing dataset stays listed.
    """
    database.command("SREM", keys.DATASETS, name)
    if database.command("EXISTS", keys.dataset(name)):
        database.command("SADD", keys.DATASETS, name)
