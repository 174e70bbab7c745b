"""Checkpoints: versions that outlive the history; and the states that events and checkpoints name by a uid."""

from __future__ import annotations

from collections.abc import Sequence

from bots_server.errors import CheckpointExists, CheckpointNotFound, Conflict, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database

_SWEEP = 100  # checkpoints that one script deletes
_ATTEMPTS = 10  # at keeping one, while others delete and keep it


class Checkpoints:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        run: storage_pb2.RunRecord,
        checkpoint: storage_pb2.Checkpoint,
        state: storage_pb2.Snapshot,
        ttl_seconds: float | None = None,
    ) -> storage_pb2.Checkpoint:
        """Keeps `state` under the checkpoint's name, for `ttl_seconds` by Redis' clock; None: until deleted.

        Returns the checkpoint that has the name now: the first one of this version, where it is a repeat, which then
        lives to the later end of the two. Raises CheckpointExists where the name has another version, RunReplaced.
        """
        key = keys.of_run(run)
        ttl_ms = 0 if ttl_seconds is None else max(1, round(ttl_seconds * 1000))
        names = [key.run, key.checkpoints, key.checkpoint_expiry, key.states]
        what = (checkpoint.name, checkpoint.SerializeToString(), checkpoint.state_uid, state.SerializeToString())
        for _ in range(_ATTEMPTS):
            self.sweep(run)
            status, *answer = self._database.store("put_checkpoint", names, (*what, ttl_ms))
            if status == b"gone":
                raise RunReplaced(run.name, run.uid)
            there, expires = storage_pb2.Checkpoint.FromString(answer[0]), answer[1]
            if there.version != checkpoint.version:
                raise CheckpointExists(run.name, there.name, there.version)
            if status == b"exists":
                expires = self._database.run("extend_checkpoint", names[2:], [there.name, there.state_uid, ttl_ms])
                self._database.settle(run.dataset)
            if expires >= 0:
                there.expire_time_ms = expires
                return there
        raise Conflict(f"name = {checkpoint.name!r}: the checkpoint comes and goes all the time; repeat")

    def get(self, run: storage_pb2.RunRecord, name: str) -> tuple[storage_pb2.Checkpoint, storage_pb2.Snapshot]:
        """Returns the checkpoint and its state. Raises CheckpointNotFound, RunReplaced."""
        checkpoint = self._get(run, name)
        state = self.state(run, checkpoint.state_uid)
        if state is None:  # deleted between the two, and the run perhaps with it
            self._get(run, name)
            raise CheckpointNotFound(run.name, name)
        return checkpoint, state

    def list(self, run: storage_pb2.RunRecord) -> list[storage_pb2.Checkpoint]:
        """Returns the live checkpoints, by name. Raises RunReplaced."""
        return sorted(self._read(run, ""), key=lambda one: one.name)

    def delete(self, run: storage_pb2.RunRecord, name: str) -> None:
        """Raises CheckpointNotFound, RunReplaced."""
        checkpoint = self._get(run, name)
        key = keys.of_run(run)
        names = [key.run, key.checkpoints, key.checkpoint_expiry, key.states]
        deleted = self._database.store("delete_checkpoint", names, [name, checkpoint.state_uid])
        if deleted < 0:
            raise RunReplaced(run.name, run.uid)
        if deleted == 0:
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
        found = self._read(run, name)
        if not found:
            raise CheckpointNotFound(run.name, name)
        return found[0]

    def _read(self, run: storage_pb2.RunRecord, name: str) -> Sequence[storage_pb2.Checkpoint]:
        """Returns the live checkpoint of a name; of "": all."""
        self.sweep(run)
        key = keys.of_run(run)
        status, *answer = self._database.run("checkpoints", [key.run, key.checkpoints, key.checkpoint_expiry], [name])
        if status == b"gone":
            raise RunReplaced(run.name, run.uid)
        values, expiry = answer
        expires = dict(zip(expiry[::2], expiry[1::2], strict=True))
        found = [storage_pb2.Checkpoint.FromString(value) for value in values]
        for one in found:
            one.expire_time_ms = int(expires.get((one.state_uid + one.name).encode(), 0))
        return found
