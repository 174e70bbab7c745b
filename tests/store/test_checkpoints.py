"""Checkpoints outlive the history, until they are deleted or their time is over."""

from __future__ import annotations

import time

import pytest

from bots_server.errors import CheckpointExists, CheckpointNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store, keys
from tests.store import records
from tests.valkey import wait_until


def checkpoint(name: str, version: int = 1, expire_time_ms: int = 0) -> storage_pb2.Checkpoint:
    uid = name.encode().hex().ljust(32, "0")
    return storage_pb2.Checkpoint(name=name, version=version, state_uid=uid, expire_time_ms=expire_time_ms)


def test_put_and_get(store: Store) -> None:
    """A checkpoint is read back with its state; its name with the same version again returns the first one."""
    run = records.run(store)
    state = storage_pb2.Snapshot(version=1, updates=1)
    for name in ("b", "a"):
        assert store.checkpoints.put(run, checkpoint(name), state) == checkpoint(name)
    assert store.checkpoints.get(run, "b") == (checkpoint("b"), state)
    assert store.checkpoints.list(run) == [checkpoint("a"), checkpoint("b")]
    other = checkpoint("other")
    again = storage_pb2.Checkpoint(name="a", version=1, state_uid=other.state_uid)
    assert store.checkpoints.put(run, again, storage_pb2.Snapshot()) == checkpoint("a")
    assert store.checkpoints.state(run, other.state_uid) is None
    with pytest.raises(CheckpointExists, match="version 1"):
        store.checkpoints.put(run, checkpoint("a", version=2), state)


def test_delete(store: Store) -> None:
    """A deleted checkpoint is gone with its state, and its name is free."""
    run = records.run(store)
    store.checkpoints.put(run, checkpoint("a"), storage_pb2.Snapshot())
    store.checkpoints.delete(run, "a")
    assert store.checkpoints.list(run) == []
    assert store._client.exists(keys.of_run(run).states) == 0
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.delete(run, "a")
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.get(run, "a")
    store.checkpoints.put(run, checkpoint("a", version=2), storage_pb2.Snapshot())


def test_expiry(store: Store) -> None:
    """A checkpoint whose time is over is gone with its state; the others stay."""
    run = records.run(store)
    over = time.time_ns() // 1_000_000 + 30
    for i in range(250):
        store.checkpoints.put(run, checkpoint(f"over-{i}", expire_time_ms=over + 3_600_000), storage_pb2.Snapshot())
    store.checkpoints.put(run, checkpoint("later", expire_time_ms=over + 7_200_000), storage_pb2.Snapshot())
    store.checkpoints.put(run, checkpoint("ever"), storage_pb2.Snapshot())
    assert len(store.checkpoints.list(run)) == 252
    expiry = keys.of_run(run).checkpoint_expiry
    for i in range(250):
        store._client.zadd(expiry, {checkpoint(f"over-{i}").state_uid + f"over-{i}": over})
    wait_until(lambda: len(store.checkpoints.list(run)) == 2, "250 are over")
    assert [one.name for one in store.checkpoints.list(run)] == ["ever", "later"]
    assert store._client.hlen(keys.of_run(run).states) == 2


def test_deleted_run(store: Store) -> None:
    """A deleted run takes no checkpoints."""
    run = records.run(store)
    store.runs.delete(run)
    with pytest.raises(RunReplaced):
        store.checkpoints.put(run, checkpoint("a"), storage_pb2.Snapshot())
