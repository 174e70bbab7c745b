"""Runs: the records of their creation. What they became since is in their history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from bots_server.errors import DatasetNotFound, RunNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys, reader
from bots_server.store.database import Database
from bots_server.store.pages import page

_HYPERPARAMETERS = [f"h:{field.name}" for field in storage_pb2.Hyperparameters.DESCRIPTOR.fields]


@dataclass(frozen=True, slots=True)
class ListedRun:
    record: storage_pb2.RunRecord
    version: int  # the newest
    hyperparameters: storage_pb2.Hyperparameters  # at that version, all of the run's model


class Runs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, record: storage_pb2.RunRecord, base: storage_pb2.Snapshot | None = None
    ) -> tuple[storage_pb2.RunRecord, bool]:
        """Returns the run that has the name now, and whether this call created it, in one transition.

        If the name is taken, the caller compares the record with what was asked for (RunExists). `base` is the state to
        start from at version 0 (its version and nonce are reset); None: the prior. `create_time_ms` and `min_reader`
        are set here. Safe to repeat: a run of the same uid counts as created. Raises DatasetNotFound if
        `record.dataset_uid` is not the uid of the dataset of that name, NotDurable, ServerTooOld.
        """
        own = storage_pb2.RunRecord()
        own.CopyFrom(record)
        own.create_time_ms = self._database.time_ms(record.dataset)
        own.min_reader = reader.WRITES
        start = b""
        if base is not None:
            at_zero = storage_pb2.Snapshot()
            at_zero.CopyFrom(base)
            at_zero.version, at_zero.nonce = 0, b""
            start = at_zero.SerializeToString()
        run = keys.of_run(own)
        status, there = self._database.run_durably(
            "create_run",
            [
                keys.dataset(own.dataset),
                keys.runs(own.dataset, own.dataset_uid),
                run.run,
                run.snapshots,
                run.snapshot_versions,
            ],
            [own.dataset_uid, own.name, own.SerializeToString(), start],
        )
        if status == b"gone":
            raise DatasetNotFound(own.dataset)
        existing = reader.run(there)
        return existing, existing.uid == own.uid

    def get(self, dataset: storage_pb2.DatasetRecord, name: str) -> storage_pb2.RunRecord:
        """Returns the run that has the name now. Raises RunNotFound, ServerTooOld."""
        value = self._database.command("HGET", keys.runs(dataset.name, dataset.uid), name)
        if value is None:
            raise RunNotFound(dataset.name, name)
        return reader.run(value)

    def list(self, dataset: storage_pb2.DatasetRecord, after_name: str = "", limit: int = 100) -> list[ListedRun]:
        """Returns the first `limit` runs of the dataset whose names are above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. It has runs of newer servers, too, without the
        hyperparameters that this one does not know.
        """
        key = keys.runs(dataset.name, dataset.uid)

        def read(names: list[str]) -> list[ListedRun]:
            values = self._database.command("HMGET", key, *names)
            return _current(
                self._database, [storage_pb2.RunRecord.FromString(value) for value in values if value is not None]
            )

        return page(self._database.command("HKEYS", key), after_name, limit, read)

    def every(self, datasets: Sequence[storage_pb2.DatasetRecord]) -> Sequence[storage_pb2.RunRecord]:
        """Returns all runs of some datasets that can be read."""
        asked = [("HVALS", keys.runs(dataset.name, dataset.uid)) for dataset in datasets]
        records = []
        for value in itertools.chain.from_iterable(self._database.commands(asked)):
            with suppress(DecodeError):
                records.append(storage_pb2.RunRecord.FromString(value))
        return records

    def current(self, record: storage_pb2.RunRecord) -> ListedRun:
        """Returns the newest version and hyperparameters of a run. Raises RunReplaced."""
        for listed in _current(self._database, [record]):
            return listed
        raise RunReplaced(record.name, record.uid)

    def delete(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the run with its history, snapshots, checkpoints and leases. Raises RunNotFound, NotDurable."""
        names = [keys.runs(run.dataset, run.dataset_uid), *keys.of_run(run).all()]
        if self._database.run_durably("delete_run", names, [run.name]) == 0:
            raise RunNotFound(run.dataset, run.name)


def _current(database: Database, records: list[storage_pb2.RunRecord]) -> list[ListedRun]:
    """Returns the runs that exist, read in one round trip."""
    asked = [("HMGET", keys.of_run(record).run, "version", *_HYPERPARAMETERS) for record in records]
    listed = []
    for record, (version, *changed) in zip(records, database.commands(asked), strict=True):
        if version is not None:
            hyperparameters = storage_pb2.Hyperparameters()
            hyperparameters.CopyFrom(record.hyperparameters)
            hyperparameters.MergeFromString(b"".join(value for value in changed if value is not None))
            listed.append(ListedRun(record, int(version), hyperparameters))
    return listed
