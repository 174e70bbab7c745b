"""Runs: the records of their creation. What they became since is in their history."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from bots_server.errors import DatasetNotFound, RunDamaged, RunNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import reader
from bots_server.store.database import Database
from bots_server.store.history import gone
from bots_server.store.pages import page
from bots_server.store.seal import SEAL_BYTES, checksum, intact, seal, unseal

_COUNTERS = b"written", b"written_at_snapshot", b"written_before_base", b"snapshot_bytes", b"checkpoint_bytes"
_HEAD = b"version", b"nonce", b"snapshot", b"trimmed", b"forgotten", b"ids"  # as in lua/include/head.lua


@dataclass(frozen=True, slots=True)
class ListedRun:
    record: storage_pb2.RunRecord
    version: int  # the newest
    hyperparameters: storage_pb2.Hyperparameters  # at that version, all of the run's model
    damage: str = ""  # why the other fields are not as stated; empty: they are


class Runs:
    def __init__(self, database: Database) -> None:
        self._database, self._keys = database, database.keys

    def create(
        self, record: storage_pb2.RunRecord, base: storage_pb2.Snapshot | None = None
    ) -> tuple[storage_pb2.RunRecord, bool]:
        """Returns the run that has the name now, and whether this call created it, in one transition.

        If the name is taken, the caller compares the record with what was asked for (RunExists). `base` is the state to
        start from at version 0 (its version and nonce are reset); None: the prior. `create_time_ms` and `min_reader`
        are set here. Safe to repeat: a run of the same uid counts as created. Raises DatasetNotFound if
        `record.dataset_uid` is not the uid of the dataset of that name, NotDurable, ServerTooOld.
        """
        own = deepcopy(record)
        own.create_time_ms, own.min_reader = self._database.time_ms(record.dataset), reader.WRITES
        start = b""
        if base is not None:
            at_zero = deepcopy(base)
            at_zero.version, at_zero.nonce = 0, b""
            start = seal(at_zero.SerializeToString(), "0")
        dataset, runs = self._of_dataset(own.dataset, own.dataset_uid)
        run = self._keys.of_run(own)
        status, there = self._database.run_durably(
            "create_run",
            [dataset, runs, run.run, run.snapshots],
            [own.dataset_uid, own.name, seal(own.SerializeToString(), own.name), start],
        )
        if status == b"gone":
            raise DatasetNotFound(own.dataset)
        existing = reader.run(runs, own.name, there)
        return existing, existing.uid == own.uid

    def get(self, dataset: storage_pb2.DatasetRecord, name: str) -> storage_pb2.RunRecord:
        """Returns the run that has the name now. Raises RunNotFound, RunDamaged, DatasetDamaged, ServerTooOld."""
        key = self._keys.runs(dataset.name, dataset.uid)
        value = self._database.command("HGET", key, name)
        if value is not None:
            return reader.run(key, name, value)
        self.count(dataset)  # raises DatasetDamaged
        records = self._database.command("HGETALL", key)
        if (value := records.get(name.encode())) is not None:  # it was created meanwhile
            return reader.run(key, name, value)
        if any(intact(other, name) for other in records.values()):
            raise RunDamaged(key, f"has {name} under another name")
        raise RunNotFound(dataset.name, name)

    def count(self, dataset: storage_pb2.DatasetRecord) -> int:
        """Returns the number of runs. Raises DatasetDamaged if it is not the number of those created."""
        return int(self._database.run("count_runs", self._of_dataset(dataset.name, dataset.uid), []))

    def list(self, dataset: storage_pb2.DatasetRecord, after_name: str = "", limit: int = 100) -> list[ListedRun]:
        """Returns the first `limit` runs of the dataset whose names are above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. It has runs of newer servers, too, without the
        hyperparameters that this one does not know, and damaged ones, with what is known of them. Raises DatasetDamaged
        if runs are missing.
        """
        self.count(dataset)
        key = self._keys.runs(dataset.name, dataset.uid)

        def read(names: list[bytes]) -> list[ListedRun]:
            records, listed = [], []
            for field, value in zip(names, self._database.command("HMGET", key, *names), strict=True):
                name = field.decode(errors="replace")
                try:
                    if value is not None:
                        records.append(reader.run_of_any_version(key, name, value))
                except RunDamaged as damage:
                    record = storage_pb2.RunRecord(name=name, dataset=dataset.name, dataset_uid=dataset.uid)
                    listed.append(ListedRun(record, 0, storage_pb2.Hyperparameters(), str(damage)))
            heads = self._database.commands([("HGETALL", self._keys.of_run(record).run) for record in records])
            for record, head in zip(records, heads, strict=True):
                try:
                    listed.append(self._listed(record, head))
                except RunReplaced:  # deleted meanwhile
                    continue
                except RunDamaged as damage:
                    listed.append(ListedRun(record, 0, record.hyperparameters, str(damage)))
            return sorted(listed, key=lambda run: run.record.name)

        return page(self._database.command("HKEYS", key), after_name, limit, read)

    def every(self, datasets: Sequence[storage_pb2.DatasetRecord]) -> Sequence[storage_pb2.RunRecord]:
        """Returns all runs of some datasets that can be read."""
        asked = [("HGETALL", self._keys.runs(dataset.name, dataset.uid)) for dataset in datasets]
        stored = [entry for entries in self._database.commands(asked) for entry in entries.items()]
        return [storage_pb2.RunRecord.FromString(value[:-SEAL_BYTES]) for name, value in stored if intact(value, name)]

    def current(self, record: storage_pb2.RunRecord) -> ListedRun:
        """Returns the newest version and hyperparameters of a run. Raises RunReplaced, RunDamaged."""
        return self._listed(record, self._database.command("HGETALL", self._keys.of_run(record).run))

    def delete(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the run with its history, snapshots, checkpoints and leases. Raises RunNotFound, NotDurable."""
        names = [*self._of_dataset(run.dataset, run.dataset_uid), *self._keys.of_run(run)]
        if self._database.run_durably("delete_run", names, [run.name, run.uid]) == 0:
            raise RunNotFound(run.dataset, run.name)

    def delete_damaged(self, dataset: storage_pb2.DatasetRecord, name: str) -> None:
        """Deletes a run whose record is damaged; of its keys those that the record names. Raises RunNotFound."""
        names = self._of_dataset(dataset.name, dataset.uid)
        for field, value in self._database.command("HGETALL", self._keys.runs(dataset.name, dataset.uid)).items():
            if field == name.encode() or intact(value, name):
                try:
                    uid = storage_pb2.RunRecord.FromString(value[:-SEAL_BYTES]).uid
                except DecodeError:
                    uid = ""
                run = storage_pb2.RunRecord(dataset=dataset.name, dataset_uid=dataset.uid, uid=uid)
                self._database.run_durably("delete_run", [*names, *self._keys.of_run(run)], [field, value])
                return
        raise RunNotFound(dataset.name, name)

    def _of_dataset(self, name: str, uid: str) -> tuple[str, str]:
        """Returns the keys of a dataset's record and of the records of its runs."""
        return self._keys.dataset(name), self._keys.runs(name, uid)

    def _listed(self, record: storage_pb2.RunRecord, head: dict[bytes, bytes]) -> ListedRun:
        """Returns a run with what its head says. Raises RunReplaced, RunDamaged."""
        if not head:
            raise gone(self._database, record)
        key = self._keys.of_run(record).run
        words = [head.pop(field, b"") for field in _HEAD]
        if head.pop(b"check", None) != checksum(*words):
            raise RunDamaged(key, "has a wrong checksum at check")
        hyperparameters = deepcopy(record.hyperparameters)
        for field, value in sorted(head.items()):
            if field.startswith(b"h:"):
                hyperparameters.MergeFromString(unseal(value, field, key))
            elif field not in _COUNTERS:
                raise RunDamaged(key, f"has an unknown field {field!r}")
        return ListedRun(record, int(words[0]), hyperparameters)
