"""Checkpoints: versions that outlive the history; and the states that events and checkpoints name by a uid."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from bots_server.errors import CheckpointExists, CheckpointNotFound, Conflict, RunDamaged
from bots_server.storage.v1 import storage_pb2
from bots_server.store import reader
from bots_server.store.database import Database
from bots_server.store.history import gone
from bots_server.store.pages import page
from bots_server.store.seal import intact, seal, unseal

_SWEEP = 100  # checkpoints that one script deletes
_ATTEMPTS = 10  # to keep a checkpoint, while others delete and create it
_UID = 32  # characters before the stored message: uid of the state
_EXPIRES, _ENDING = 6, 14  # bytes after it: when it expires, and this with its checksum


class Checkpoints:
    def __init__(self, database: Database) -> None:
        self._database, self._keys = database, database.keys

    def put(
        self,
        run: storage_pb2.RunRecord,
        checkpoint: storage_pb2.Checkpoint,
        state: storage_pb2.Snapshot,
        ttl_seconds: float | None = None,
    ) -> storage_pb2.Checkpoint:
        """Keeps `state` under the checkpoint's name, for `ttl_seconds` by Redis' clock; None: until deleted.

        Returns the checkpoint that has the name now. If it exists with the same version, its life is extended to the
        later of the two ends. Raises CheckpointExists if the name has another version, RunReplaced, Conflict.
        """
        key = self._keys.of_run(run)
        ttl_ms = 0 if ttl_seconds is None else max(1, round(ttl_seconds * 1000))
        own = deepcopy(checkpoint)
        own.create_time_ms = self._database.time_ms(run.dataset)
        content = (
            own.name,
            own.state_uid,
            seal(own.state_uid.encode() + own.SerializeToString(), own.name),
            seal(state.SerializeToString(), own.state_uid),
            ttl_ms,
        )
        for _ in range(_ATTEMPTS):
            self.sweep(run)
            status, *answer = self._database.run_durably("put_checkpoint", self._names(run), content)
            if status == b"gone":
                raise gone(self._database, run)
            there = _checkpoint(key.checkpoints, own.name, *answer)
            if there.version != own.version:
                raise CheckpointExists(run.name, there.name, there.version)
            if status == b"created":
                return there
            names, which = [key.checkpoints, key.checkpoint_expiry], [there.name, there.state_uid]
            there.expire_time_ms = self._database.run_durably("extend_checkpoint", names, [*which, ttl_ms])
            if there.expire_time_ms >= 0:
                return there
        raise Conflict(f"name: got {checkpoint.name!r}, which others create and delete at the same time; repeat")

    def get(self, run: storage_pb2.RunRecord, name: str) -> tuple[storage_pb2.Checkpoint, storage_pb2.Snapshot]:
        """Returns the checkpoint and its state. Raises CheckpointNotFound, RunReplaced, ServerTooOld."""
        checkpoint = self._get(run, name)
        state = self.state(run, checkpoint.state_uid)
        if state is None:  # deleted between the two reads, perhaps with the run, or damaged
            self._get(run, name)
            raise RunDamaged(self._keys.of_run(run).states, f"lacks the state of checkpoint {name}")
        return checkpoint, state

    def list(self, run: storage_pb2.RunRecord, after_name: str = "", limit: int = 100) -> list[storage_pb2.Checkpoint]:
        """Returns the first `limit` live checkpoints whose names are above `after_name`, by name.

        The list is shorter than `limit` only if there are no more. Raises RunReplaced.
        """
        self.sweep(run)
        self._read(run, [])  # raises RunReplaced also if there are no checkpoints
        names = self._database.command("HKEYS", self._keys.of_run(run).checkpoints)
        return page(names, after_name, limit, lambda some: self._read(run, some))

    def delete(self, run: storage_pb2.RunRecord, name: str) -> None:
        """Deletes a checkpoint and its state. Raises CheckpointNotFound, RunReplaced."""
        self.sweep(run)
        stored = self._database.command("HGET", self._keys.of_run(run).checkpoints, name) or b""
        deleted = self._database.run_durably("delete_checkpoint", self._names(run), [name, stored[:_UID]])
        if deleted < 0:
            raise gone(self._database, run)
        if deleted == 0:
            raise CheckpointNotFound(run.name, name)

    def state(
        self, run: storage_pb2.RunRecord, state_uid: str, version: int | None = None
    ) -> storage_pb2.Snapshot | None:
        """Returns the state that the event of `version` names; None if it was trimmed, because a newer snapshot holds
        the event. Raises RunDamaged, ServerTooOld.
        """
        key = self._keys.of_run(run)
        value = self._database.command("HGET", key.states, state_uid)
        if value is None and version is not None:
            trimmed = self._database.command("HGET", key.run, "trimmed")
            if trimmed is not None and int(trimmed) <= version:
                raise RunDamaged(key.states, f"lacks the state of version {version}")
        return None if value is None else reader.snapshot(run, key.states, state_uid, value)

    def sweep(self, run: storage_pb2.RunRecord) -> None:
        """Deletes the checkpoints that have expired by Redis' clock."""
        while self._database.run("sweep_checkpoints", self._names(run), []) >= _SWEEP:
            pass

    def find(self, run: storage_pb2.RunRecord, name: str) -> storage_pb2.Checkpoint | None:
        """Returns the checkpoint that has the name; None: none has it. Raises RunReplaced."""
        self.sweep(run)
        found = next(iter(self._read(run, [name.encode()])), None)
        if found is None:
            key = self._keys.of_run(run).checkpoints
            if any(intact(other[:-_ENDING], name) for other in self._database.command("HVALS", key)):
                raise RunDamaged(key, f"has {name} under another name")
        return found

    def _get(self, run: storage_pb2.RunRecord, name: str) -> storage_pb2.Checkpoint:
        found = self.find(run, name)
        if found is None:
            raise CheckpointNotFound(run.name, name)
        return found

    def _read(self, run: storage_pb2.RunRecord, names: Sequence[bytes]) -> Sequence[storage_pb2.Checkpoint]:
        """Returns the checkpoints of these names that exist. Raises RunReplaced, RunDamaged."""
        key = self._keys.of_run(run)
        status, *answer = self._database.run("checkpoints", [*self._names(run), key.restores], names)
        if status == b"gone":
            raise gone(self._database, run)
        (values,) = answer
        return [_checkpoint(key.checkpoints, name, value) for name, value in zip(names, values, strict=True) if value]

    def _names(self, run: storage_pb2.RunRecord) -> tuple[str, ...]:
        """Returns the keys that hold a run's checkpoints."""
        key = self._keys.of_run(run)
        return key.run, key.checkpoints, key.checkpoint_expiry, key.states


def _checkpoint(key: str, name: str | bytes, value: bytes) -> storage_pb2.Checkpoint:
    """Returns a checkpoint as `lua/include/checkpoint.lua` stores it under a name. Raises RunDamaged."""
    content, expires = value[:-_ENDING], value[-_ENDING:][:_EXPIRES]
    checkpoint = storage_pb2.Checkpoint.FromString(unseal(content, name, key)[_UID:])
    checkpoint.expire_time_ms = int.from_bytes(expires, "big")
    return checkpoint
