"""Checkpoints: versions that outlive the history; and the states that events and checkpoints name by a uid."""

from __future__ import annotations

from bots_server.errors import CheckpointExists, CheckpointNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database

_SWEEP = 100  # checkpoints that one script deletes


class Checkpoints:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self, run: storage_pb2.RunRecord, checkpoint: storage_pb2.Checkpoint, state: storage_pb2.Snapshot
    ) -> storage_pb2.Checkpoint:
        """Keeps `state` under the checkpoint's name. Returns the checkpoint that has the name now: the first one of
        this version, where it is a repeat. Raises CheckpointExists where the name has another version, RunReplaced."""
        self.sweep(run)
        key = keys.of_run(run)
        answer = self._database.store(
            "put_checkpoint",
            [key.run, key.checkpoints, key.checkpoint_expiry, key.states],
            [
                checkpoint.name,
                checkpoint.SerializeToString(),
                checkpoint.state_uid,
                state.SerializeToString(),
                checkpoint.expire_time_ms,
            ],
        )
        if answer[0] == b"gone":
            raise RunReplaced(run.name, run.uid)
        there = storage_pb2.Checkpoint.FromString(answer[1])
        if there.version != checkpoint.version:
            raise CheckpointExists(run.name, there.name, there.version)
        if answer[0] == b"exists":
            self._database.settle(run.dataset)
        return there

    def get(self, run: storage_pb2.RunRecord, name: str) -> tuple[storage_pb2.Checkpoint, storage_pb2.Snapshot]:
        """Returns the checkpoint and its state. Raises CheckpointNotFound."""
        checkpoint = self._get(run, name)
        state = self.state(run, checkpoint.state_uid)
        if state is None:  # deleted between the two
            raise CheckpointNotFound(run.name, name)
        return checkpoint, state

    def list(self, run: storage_pb2.RunRecord) -> list[storage_pb2.Checkpoint]:
        """Returns the live checkpoints, by name."""
        self.sweep(run)
        values = self._database.command("HVALS", keys.of_run(run).checkpoints)
        return sorted((storage_pb2.Checkpoint.FromString(value) for value in values), key=lambda one: one.name)

    def delete(self, run: storage_pb2.RunRecord, name: str) -> None:
        """Raises CheckpointNotFound."""
        checkpoint = self._get(run, name)
        key = keys.of_run(run)
        names = [key.checkpoints, key.checkpoint_expiry, key.states]
        if self._database.store("delete_checkpoint", names, [name, checkpoint.state_uid]) == 0:
            raise CheckpointNotFound(run.name, name)

    def state(self, run: storage_pb2.RunRecord, state_uid: str) -> storage_pb2.Snapshot | None:
        """Returns the state that a `restored` event names; None: trimmed meanwhile (a newer snapshot holds the
        event).
        """
        value = self._database.command("HGET", keys.of_run(run).states, state_uid)
        return None if value is None else storage_pb2.Snapshot.FromString(value)

    def sweep(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the checkpoints whose time is over, by Redis' clock."""
        key = keys.of_run(run)
        names = [key.checkpoints, key.checkpoint_expiry, key.states]
        while self._database.run("sweep_checkpoints", names, []) >= _SWEEP:
            pass

    def _get(self, run: storage_pb2.RunRecord, name: str) -> storage_pb2.Checkpoint:
        self.sweep(run)
        value = self._database.command("HGET", keys.of_run(run).checkpoints, name)
        if value is None:
            raise CheckpointNotFound(run.name, name)
        return storage_pb2.Checkpoint.FromString(value)
