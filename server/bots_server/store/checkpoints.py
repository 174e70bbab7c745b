"""Checkpoints: versions that outlive the history; and the states that events and checkpoints name by a uid."""

from __future__ import annotations

from bots_server.storage.v1 import storage_pb2
from bots_server.store.scripts import Scripts


class Checkpoints:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def put(
        self, run: storage_pb2.RunRecord, checkpoint: storage_pb2.Checkpoint, state: storage_pb2.Snapshot
    ) -> storage_pb2.Checkpoint:
        """Keeps `state` under the checkpoint's name. Returns the checkpoint that has the name now: the first one of
        this version, where it is a repeat. Raises CheckpointExists where the name has another version, RunReplaced."""
        raise NotImplementedError

    def get(self, run: storage_pb2.RunRecord, name: str) -> tuple[storage_pb2.Checkpoint, storage_pb2.Snapshot]:
        """Returns the checkpoint and its state. Raises CheckpointNotFound."""
        raise NotImplementedError

    def list(self, run: storage_pb2.RunRecord) -> list[storage_pb2.Checkpoint]:
        """Returns the live checkpoints, by name."""
        raise NotImplementedError

    def delete(self, run: storage_pb2.RunRecord, name: str) -> None:
        """Raises CheckpointNotFound."""
        raise NotImplementedError

    def state(self, run: storage_pb2.RunRecord, state_uid: str) -> storage_pb2.Snapshot | None:
        """Returns the state that a `restored` event names; None: trimmed meanwhile (a newer snapshot holds the
        event)."""
        raise NotImplementedError
