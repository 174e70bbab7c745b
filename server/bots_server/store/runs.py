"""Runs: what was said at their creation. What they became since is their history."""

from __future__ import annotations

from bots_server.errors import DatasetNotFound, RunNotFound
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database


class Runs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, record: storage_pb2.RunRecord, base: storage_pb2.Snapshot | None = None
    ) -> tuple[storage_pb2.RunRecord, bool]:
        """Returns the run of this name and whether it was created now, in one transition.

        Where the name is taken the run that has it is returned, with False: whether it is equal is the caller's to
        judge (RunExists). `base` is the state to start from at version 0 (its version and nonce are reset); None: the
        prior. Raises DatasetNotFound where `record.dataset_uid` is not the uid of the dataset of that name (any more).
        Safe to repeat: a run of the same uid counts as created.
        """
        start = b""
        if base is not None:
            at_zero = storage_pb2.Snapshot()
            at_zero.CopyFrom(base)
            at_zero.version, at_zero.nonce = 0, b""
            start = at_zero.SerializeToString()
        run = keys.of_run(record)
        status, there = self._database.store(
            "create_run",
            [
                keys.dataset(record.dataset),
                keys.runs(record.dataset, record.dataset_uid),
                run.run,
                run.snapshots,
                run.snapshot_versions,
            ],
            [record.dataset_uid, record.name, record.SerializeToString(), start],
        )
        if status == b"gone":
            raise DatasetNotFound(record.dataset)
        if status == b"exists":
            self._database.settle(record.dataset)
        existing = storage_pb2.RunRecord.FromString(there)
        return existing, existing.uid == record.uid

    def get(self, dataset: storage_pb2.DatasetRecord, name: str) -> storage_pb2.RunRecord:
        """Raises RunNotFound."""
        value = self._database.command("HGET", keys.runs(dataset.name, dataset.uid), name)
        if value is None:
            raise RunNotFound(dataset.name, name)
        return storage_pb2.RunRecord.FromString(value)

    def list(self, dataset: storage_pb2.DatasetRecord) -> list[storage_pb2.RunRecord]:
        """Returns the runs of the dataset, by name."""
        values = self._database.command("HVALS", keys.runs(dataset.name, dataset.uid))
        return sorted((storage_pb2.RunRecord.FromString(value) for value in values), key=lambda run: run.name)

    def delete(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the run with its history, snapshots, checkpoints and leases. Raises RunNotFound."""
        names = [keys.runs(run.dataset, run.dataset_uid), *keys.of_run(run).all()]
        if self._database.store("delete_run", names, [run.name]) == 0:
            raise RunNotFound(run.dataset, run.name)
