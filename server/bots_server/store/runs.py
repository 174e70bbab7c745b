"""Runs: what was said at their creation. What they became since is their history."""

from __future__ import annotations

from bots_server.storage.v1 import storage_pb2
from bots_server.store.scripts import Scripts


class Runs:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def create(
        self, record: storage_pb2.RunRecord, base: storage_pb2.Snapshot | None = None
    ) -> tuple[storage_pb2.RunRecord, bool]:
        """Returns the run of this name and whether it was created now, in one transition.

        Where the name is taken the run that has it is returned, with False: whether it is equal is the caller's to
        judge (RunExists). `base` is the state to start from at version 0 (its version and nonce are reset); None: the
        prior. Raises DatasetNotFound where `record.dataset_uid` is not the uid of the dataset of that name (any more).
        Safe to repeat: a run of the same uid counts as created.
        """
        raise NotImplementedError

    def get(self, dataset: storage_pb2.DatasetRecord, name: str) -> storage_pb2.RunRecord:
        """Raises RunNotFound."""
        raise NotImplementedError

    def list(self, dataset: storage_pb2.DatasetRecord) -> list[storage_pb2.RunRecord]:
        """Returns the runs of the dataset, by name."""
        raise NotImplementedError

    def delete(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the run with its history, snapshots, checkpoints and leases. Raises RunNotFound."""
        raise NotImplementedError
