"""Datasets: a record, a table of strata, and the columns of the tasks in chunks."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from bots_server.errors import (
    Conflict,
    Damaged,
    DatasetDamaged,
    DatasetHasRuns,
    DatasetNotFound,
    DeadlineExceeded,
    Exhausted,
    InvalidField,
    Unavailable,
)
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys, reader
from bots_server.store.database import Database
from bots_server.store.pages import page
from bots_server.store.seal import SEAL_BYTES, intact, seal, unseal

MIN_CHUNK_TASKS = 1_024  # of every chunk but the last, so that a dataset has a bounded number of keys

_STAGING_SECONDS = 3600  # lifetime of a staged chunk without the next chunk or the commit
_NOTE_SECONDS = 604_800  # lifetime of the note that a dataset is damaged; the next server to load it renews it
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
        chunk = len(self._staged)
        self._stage(keys.columns(self.name, self.uid, chunk), seal(columns.SerializeToString(), str(chunk)))

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
        self._stage(strata_key, seal(strata.SerializeToString(), "strata"))
        own.bytes = self.bytes
        _remember(self._database, self.name)
        status, there = self._database.run_durably(
            "commit_dataset",
            [keys.dataset(self.name), strata_key, *chunks],
            [self.uid, seal(own.SerializeToString(), "record")],
        )
        if status == b"expired":
            raise Conflict(f"dataset {self.name!r}: an hour passed between two chunks of the upload; repeat it")
        self._committed = status == b"created"
        if self._committed:
            _remember(self._database, self.name)  # again: the deletion of an earlier dataset may have crossed it
        return reader.dataset(self.name, there), self._committed

    def repair(self, there: storage_pb2.DatasetRecord) -> None:
        """Puts what is staged, after `commit`, in the place of the strata and columns of an equal dataset."""
        columns = [keys.columns(there.name, there.uid, chunk) for chunk in range(len(self._staged) - 1)]
        surplus = [keys.columns(there.name, there.uid, chunk) for chunk in range(len(columns), there.chunks)]
        own = storage_pb2.DatasetRecord()
        own.CopyFrom(there)
        own.chunks = len(columns)
        *staged_columns, staged_strata = self._staged
        strata, note = keys.strata(there.name, there.uid), keys.damaged(there.name, there.uid)
        self._database.run_durably(
            "repair_dataset",
            [keys.dataset(there.name), staged_strata, *staged_columns, strata, *columns, note, *surplus],
            [there.uid, seal(own.SerializeToString(), "record"), len(self._staged)],
        )

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
        """Returns the dataset that has the name now. Raises DatasetNotFound, DatasetDamaged, ServerTooOld."""
        key = keys.dataset(name)
        uid, value = self._database.command("HMGET", key, "uid", "record")
        if uid is None and value is None:
            raise DatasetNotFound(name)
        record = reader.dataset(name, value)
        if uid != record.uid.encode():
            raise DatasetDamaged(key, "has a wrong uid")
        return record

    def is_damaged(self, record: storage_pb2.DatasetRecord) -> bool:
        """Returns whether strata or columns are missing, or a server found that they are damaged."""
        note, *expected = self._content(record)
        return self._database.command("EXISTS", *expected) < len(expected) or bool(
            self._database.command("EXISTS", note)
        )

    def list(
        self, after_name: str = "", limit: int = 100, visible: Callable[[str], bool] = lambda name: True
    ) -> list[storage_pb2.DatasetRecord]:
        """Returns the first `limit` datasets whose names are visible and above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. It has datasets of newer servers, too, and damaged
        ones, of which it has the name alone.
        """
        members = self._database.command("SMEMBERS", keys.DATASETS)
        if wrong := [member for member in members if not intact(member, keys.DATASETS)]:
            self._database.command("SREM", keys.DATASETS, *wrong)
        if wrong or not members:
            self._index()
            members = self._database.command("SMEMBERS", keys.DATASETS)

        def read(members: list[bytes]) -> list[storage_pb2.DatasetRecord]:
            names = [member.decode() for member in members]
            values = self._database.commands([("HMGET", keys.dataset(name), "uid", "record") for name in names])
            found = []
            for name, (uid, value) in zip(names, values, strict=True):
                if uid is None and value is None:  # deleted, or an upload that was never committed
                    _forget(self._database, name)
                elif value is not None and intact(value, "record"):
                    found.append(storage_pb2.DatasetRecord.FromString(value[:-SEAL_BYTES]))
                else:
                    found.append(storage_pb2.DatasetRecord(name=name))
            return found

        names = [member[:-SEAL_BYTES] for member in members]
        return page([name for name in names if visible(name.decode())], after_name, limit, read)

    def strata(self, record: storage_pb2.DatasetRecord) -> storage_pb2.StrataTable:
        """Returns the strata. Raises DatasetDamaged, and DatasetNotFound if the dataset was deleted."""
        value = self._read(record, keys.strata(record.name, record.uid), "strata")
        return storage_pb2.StrataTable.FromString(value)

    def columns(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.TaskColumns]:
        """Yields the chunks, in order of task. Raises as `strata` does."""
        for chunk in range(record.chunks):
            value = self._read(record, keys.columns(record.name, record.uid, chunk), str(chunk))
            yield storage_pb2.TaskColumns.FromString(value)

    def every(self) -> Sequence[storage_pb2.DatasetRecord]:
        """Returns all datasets that can be read."""
        return [record for record in self.list(limit=sys.maxsize) if record.uid]

    def run_count(self, record: storage_pb2.DatasetRecord) -> int:
        """Returns the number of runs. Raises DatasetDamaged if it is not the number of those created."""
        names = [keys.dataset(record.name), keys.runs(record.name, record.uid)]
        return int(self._database.run("count_runs", names, []))

    def delete(self, name: str, *, delete_runs: bool) -> None:
        """Deletes the dataset, with its runs if `delete_runs`, in one transition.

        A damaged one is deleted key by key. Raises DatasetNotFound, DatasetHasRuns if there are runs and `delete_runs`
        is false, Conflict if runs are created and deleted faster than they can be listed, NotDurable, ServerTooOld.
        """
        for _ in range(_ATTEMPTS):
            try:
                record = self.get(name)
                runs = self._run_records(record) if delete_runs else []
            except Damaged:
                self._delete_damaged(name, delete_runs=delete_runs)
                return
            status, count = self._database.run_durably(
                "delete_dataset",
                [
                    keys.dataset(name),
                    keys.runs(name, record.uid),
                    *self._content(record),
                    *(key for run in runs for key in keys.of_run(run).all()),
                ],
                [record.uid, *(word for run in runs for word in (run.name, run.uid))],
            )
            if status == b"deleted":
                _forget(self._database, name)
                return
            if status == b"damaged":
                self._delete_damaged(name, delete_runs=delete_runs)
                return
            if status == b"changed" and not delete_runs:
                raise DatasetHasRuns(name, count)
        raise Conflict(f"dataset {name!r}: its runs change all the time; repeat")

    def _delete_damaged(self, name: str, *, delete_runs: bool) -> None:
        """Deletes every key of a name."""
        found = [key.decode() for key in self._database.scan(keys.every_key(name), _SCAN)]
        runs = {run for key in found if (run := keys.run_uid(key))}
        if runs and not delete_runs:
            raise DatasetHasRuns(name, len(runs))
        found.sort(key=lambda key: key != keys.dataset(name))  # first the key without which it does not exist
        for begin in range(0, len(found), _SCAN):
            self._database.command_durably("UNLINK", *found[begin : begin + _SCAN])
        _forget(self._database, name)

    def _content(self, record: storage_pb2.DatasetRecord) -> Sequence[str]:
        """Returns the keys of a dataset's content, after that of the note that it is damaged."""
        columns = (keys.columns(record.name, record.uid, chunk) for chunk in range(record.chunks))
        return [keys.damaged(record.name, record.uid), keys.strata(record.name, record.uid), *columns]

    def _read(self, record: storage_pb2.DatasetRecord, key: str, place: str) -> bytes:
        """Returns a value of a dataset. Raises DatasetDamaged, after a note of it, or DatasetNotFound."""
        value = self._database.command("GET", key)
        try:
            return unseal(value, place, key)
        except DatasetDamaged:
            if self.get(record.name).uid != record.uid:
                raise DatasetNotFound(record.name) from None
            note = keys.damaged(record.name, record.uid)
            with suppress(Exhausted):
                self._database.command("SET", note, seal(key.encode(), "damaged"), "EX", _NOTE_SECONDS)
            raise

    def _index(self) -> None:
        """Makes the index again after it was lost, or deleted for this purpose: finds every dataset by SCAN."""
        found = self._database.scan(keys.EVERY_DATASET, _SCAN)
        if found:  # in one command, so that no listing sees a part of the index
            names = (key.partition(b"{")[2].partition(b"}")[0] for key in found)
            self._database.command("SADD", keys.DATASETS, *(seal(name, keys.DATASETS) for name in names))

    def _run_records(self, record: storage_pb2.DatasetRecord) -> Sequence[storage_pb2.RunRecord]:
        """Returns the records of all runs. Raises RunDamaged."""
        key = keys.runs(record.name, record.uid)
        values = self._database.command("HGETALL", key)
        return [reader.run_of_any_version(key, name.decode(errors="replace"), value) for name, value in values.items()]


def _remember(database: Database, name: str) -> None:
    """Adds a name to the index."""
    database.command("SADD", keys.DATASETS, seal(name.encode(), keys.DATASETS))


def _forget(database: Database, name: str) -> None:
    """Removes a name from the index, unless a dataset has it (again).

    The index lies in another slot than the dataset, so no script can have both. A creation adds the name before and
    after it, and this function looks for the dataset after it has removed the name: in every order of the two, an
    existing dataset stays listed.
    """
    database.command("SREM", keys.DATASETS, seal(name.encode(), keys.DATASETS))
    if database.command("EXISTS", keys.dataset(name)):
        _remember(database, name)
