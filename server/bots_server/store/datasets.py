"""Datasets: a record, a table of strata, and the columns of the tasks in chunks."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
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
from bots_server.store import reader
from bots_server.store.database import Database
from bots_server.store.keys import DATASETS, run_uid
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
        self.bytes = 0  # stored so far
        self._database, self._keys = database, database.keys
        self._staged: list[str] = []  # keys, as `Keys.content`
        self._last_size = MIN_CHUNK_TASKS
        self._refreshed = time.monotonic()
        self._committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._committed or not self._staged:
            return
        # If Redis is away or the time is over, the staged keys expire by themselves, and the first error says more.
        with suppress(Unavailable, DeadlineExceeded):
            self._database.run("discard_upload", [self._keys.dataset(self.name), *self._staged], [self.uid])

    def put(self, columns: storage_pb2.TaskColumns) -> None:
        """Stores the next chunk. Raises InvalidField if the chunk before it is too small for any but the last."""
        if self._last_size < MIN_CHUNK_TASKS:
            rule = f"must be at least {MIN_CHUNK_TASKS}, except in the last chunk"
            raise InvalidField("chunk.size", self._last_size, rule)
        self._last_size = columns.size
        chunk = len(self._staged)
        self._stage(self._keys.columns(self.name, self.uid, chunk), seal(columns.SerializeToString(), str(chunk)))

    def commit(
        self, record: storage_pb2.DatasetRecord, strata: storage_pb2.StrataTable
    ) -> tuple[storage_pb2.DatasetRecord, bool]:
        """Makes the dataset appear. Returns the record that has the name now, and whether this upload created it.

        If the name is taken, the caller compares the fingerprints (DatasetExists). `name`, `uid`, `chunks`, `bytes`,
        `create_time_ms` and `min_reader` are set here. Raises Conflict if a chunk has expired, NotDurable,
        ServerTooOld.
        """
        own = deepcopy(record)
        own.name, own.uid, own.chunks, own.min_reader = self.name, self.uid, len(self._staged), reader.WRITES
        own.create_time_ms = self._database.time_ms(self.name)
        self._stage(self._keys.strata(self.name, self.uid), seal(strata.SerializeToString(), "strata"))
        own.bytes = self.bytes
        _remember(self._database, self.name)
        status, there = self._database.run_durably(
            "commit_dataset",
            [self._keys.dataset(self.name), *self._staged],
            [self.uid, seal(own.SerializeToString(), "record")],
        )
        if status == b"expired":
            raise Conflict(f"dataset {self.name!r}: an hour passed between two chunks of the upload; repeat it")
        self._committed = status == b"created"
        if self._committed:
            _remember(self._database, self.name)  # again: the deletion of an earlier dataset may have crossed it
        return reader.dataset(self._keys.dataset(self.name), there), self._committed

    def repair(self, there: storage_pb2.DatasetRecord) -> None:
        """Puts what is staged, after `commit`, in the place of the strata and columns of an equal dataset."""
        own = deepcopy(there)
        own.chunks = len(self._staged) - 1
        dropped = [self._keys.damaged(there.name, there.uid), *self._keys.content(there)[own.chunks : -1]]
        self._database.run_durably(
            "repair_dataset",
            [self._keys.dataset(there.name), *self._staged, *self._keys.content(own), *dropped],
            [there.uid, seal(own.SerializeToString(), "record"), len(self._staged)],
        )

    def _stage(self, key: str, value: bytes) -> None:
        self._database.command("SET", key, value, "EX", _STAGING_SECONDS)
        self._staged.append(key)
        self.bytes += len(value)
        if time.monotonic() - self._refreshed > _STAGING_SECONDS / 4:
            for staged in self._staged:
                self._database.command("EXPIRE", staged, _STAGING_SECONDS)
            self._refreshed = time.monotonic()


class Datasets:
    def __init__(self, database: Database) -> None:
        self._database, self._keys = database, database.keys

    def upload(self, name: str) -> Upload:
        """Returns an upload of a dataset of this name."""
        return Upload(self._database, name)

    def get(self, name: str) -> storage_pb2.DatasetRecord:
        """Returns the dataset that has the name now. Raises DatasetNotFound, DatasetDamaged, ServerTooOld."""
        key = self._keys.dataset(name)
        uid, value = self._database.command("HMGET", key, "uid", "record")
        if uid is None and value is None:
            raise DatasetNotFound(name)
        record = reader.dataset(key, value)
        if uid != record.uid.encode():
            raise DatasetDamaged(key, "has a wrong uid")
        return record

    def is_damaged(self, record: storage_pb2.DatasetRecord) -> bool:
        """Returns whether strata or columns are missing, or a server found that they are damaged."""
        content, note = self._keys.content(record), self._keys.damaged(record.name, record.uid)
        there, noted = self._database.command("EXISTS", *content), self._database.command("EXISTS", note)
        return bool(noted or there < len(content))

    def list(
        self, after_name: str = "", limit: int = 100, visible: Callable[[str], bool] = lambda name: True
    ) -> list[storage_pb2.DatasetRecord]:
        """Returns the first `limit` datasets whose names are visible and above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. It has datasets of newer servers, too, and damaged
        ones, of which it has the name alone.
        """
        names = [name for name in self._names() if visible(name.decode())]
        return page(names, after_name, limit, self._listed)

    def every(self) -> Sequence[storage_pb2.DatasetRecord]:
        """Returns all datasets that can be read."""
        return [record for record in self.list(limit=sys.maxsize) if record.uid]

    def strata(self, record: storage_pb2.DatasetRecord) -> storage_pb2.StrataTable:
        """Returns the strata. Raises DatasetDamaged, and DatasetNotFound if the dataset was deleted."""
        value = self._read(record, self._keys.strata(record.name, record.uid), "strata")
        return storage_pb2.StrataTable.FromString(value)

    def columns(self, record: storage_pb2.DatasetRecord) -> Iterator[storage_pb2.TaskColumns]:
        """Yields the chunks, in order of task. Raises as `strata` does."""
        for chunk in range(record.chunks):
            value = self._read(record, self._keys.columns(record.name, record.uid, chunk), str(chunk))
            yield storage_pb2.TaskColumns.FromString(value)

    def delete(self, name: str, *, delete_runs: bool) -> None:
        """Deletes the dataset, with its runs if `delete_runs`, in one transition.

        A damaged one is deleted key by key. Raises DatasetNotFound, DatasetHasRuns if there are runs and `delete_runs`
        is false, Conflict if runs are created and deleted faster than they can be listed, NotDurable, ServerTooOld.
        """
        for _ in range(_ATTEMPTS):
            try:
                record = self.get(name)
                of_runs = self._keys.runs(name, record.uid)
                listed = self._database.command("HGETALL", of_runs) if delete_runs else {}
                entries = ((field.decode(errors="replace"), value) for field, value in listed.items())
                runs = [reader.run_of_any_version(of_runs, *entry) for entry in entries]
                status, count = self._database.run_durably(
                    "delete_dataset",
                    [
                        self._keys.dataset(name),
                        of_runs,
                        self._keys.damaged(name, record.uid),
                        *self._keys.content(record),
                        *(key for run in runs for key in self._keys.of_run(run)),
                    ],
                    [record.uid, *(word for run in runs for word in (run.name, run.uid))],
                )
            except Damaged:
                self._delete_damaged(name, delete_runs=delete_runs)
                return
            if status == b"deleted":
                _forget(self._database, name)
                return
            if status == b"changed" and not delete_runs:
                raise DatasetHasRuns(name, count)
        raise Conflict(f"dataset {name!r}: its runs change all the time; repeat")

    def _delete_damaged(self, name: str, *, delete_runs: bool) -> None:
        """Deletes every key of a name."""
        found = [key.decode() for key in self._database.scan(self._keys.every(name), _SCAN)]
        runs = {run for key in found if (run := run_uid(key))}
        if runs and not delete_runs:
            raise DatasetHasRuns(name, len(runs))
        found.sort(key=lambda key: key != self._keys.dataset(name))  # first the key without which it does not exist
        for begin in range(0, len(found), _SCAN):
            self._database.command_durably("UNLINK", *found[begin : begin + _SCAN])
        _forget(self._database, name)

    def _names(self) -> Sequence[bytes]:
        """Returns the names in the index. If it is damaged, lost, or deleted for this purpose, makes it by SCAN."""
        index = self._keys.datasets
        members = self._database.command("SMEMBERS", index)
        if wrong := [member for member in members if not intact(member, DATASETS)]:
            self._database.command("SREM", index, *wrong)
        if wrong or not members:
            found = self._database.scan(self._keys.dataset("*"), _SCAN)
            if found:  # in one command, so that no listing sees a part of the index
                names = (key.partition(b"{")[2].partition(b"}")[0] for key in found)
                self._database.command("SADD", index, *(seal(name, DATASETS) for name in names))
            members = self._database.command("SMEMBERS", index)
        return [member[:-SEAL_BYTES] for member in members]

    def _listed(self, names: Sequence[bytes]) -> Sequence[storage_pb2.DatasetRecord]:
        """Returns the records of those names that have one, and removes the others from the index."""
        found = []
        asked = [("HMGET", self._keys.dataset(name.decode()), "uid", "record") for name in names]
        for name, (uid, value) in zip(names, self._database.commands(asked), strict=True):
            if uid is None and value is None:  # deleted, or an upload that was never committed
                _forget(self._database, name.decode())
            elif value is not None and intact(value, "record"):
                found.append(storage_pb2.DatasetRecord.FromString(value[:-SEAL_BYTES]))
            else:
                found.append(storage_pb2.DatasetRecord(name=name.decode()))
        return found

    def _read(self, record: storage_pb2.DatasetRecord, key: str, place: str) -> bytes:
        """Returns a value of a dataset. Raises DatasetDamaged, after a note of it, or DatasetNotFound."""
        value = self._database.command("GET", key)
        try:
            return unseal(value, place, key)
        except DatasetDamaged:
            if self.get(record.name).uid != record.uid:
                raise DatasetNotFound(record.name) from None
            note = self._keys.damaged(record.name, record.uid)
            with suppress(Exhausted):
                self._database.command("SET", note, seal(key.encode(), "damaged"), "EX", _NOTE_SECONDS)
            raise


def _remember(database: Database, name: str) -> None:
    """Adds a name to the index."""
    database.command("SADD", database.keys.datasets, seal(name.encode(), DATASETS))


def _forget(database: Database, name: str) -> None:
    """Removes a name from the index, unless a dataset has it (again).

    The index lies in another slot than the dataset, so no script can have both. A creation adds the name before and
    after it, and this function looks for the dataset after it has removed the name: in every order of the two, an
    existing dataset stays listed.
    """
    database.command("SREM", database.keys.datasets, seal(name.encode(), DATASETS))
    if database.command("EXISTS", database.keys.dataset(name)):
        _remember(database, name)
