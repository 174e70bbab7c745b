"""Checkpoints outlive the history, until they are deleted or their time is over."""

from __future__ import annotations

import pytest

from bots_server.errors import CheckpointExists, CheckpointNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store, keys
from tests.store import records
from tests.valkey import wait_until


def checkpoint(name: str, version: int = 1) -> storage_pb2.Checkpoint:
    return storage_pb2.Checkpoint(name=name, version=version, state_uid=name.encode().hex().ljust(32, "0"))


def put(store: Store, run: storage_pb2.RunRecord, name: str, ttl_seconds: float | None = None) -> int:
    """Returns the time at which the checkpoint expires; 0: never."""
    return store.checkpoints.put(run, checkpoint(name), storage_pb2.Snapshot(), ttl_seconds).expire_time_ms


def now(store: Store) -> int:
    """Returns Redis' time in milliseconds."""
    seconds, microseconds = store._database.client.time()
    return seconds * 1000 + microseconds // 1000


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
    assert store._database.client.exists(keys.of_run(run).states) == 0
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.delete(run, "a")
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.get(run, "a")
    store.checkpoints.put(run, checkpoint("a", version=2), storage_pb2.Snapshot())


def test_expiry(store: Store) -> None:
    """A checkpoint whose time is over is gone with its state; the others stay."""
    run = records.run(store)
    for i in range(250):
        put(store, run, f"over-{i}", 3600)
    put(store, run, "later", 7200)
    put(store, run, "ever")
    assert len(store.checkpoints.list(run)) == 252
    expiry = keys.of_run(run).checkpoint_expiry
    over = now(store) + 30
    for i in range(250):
        store._database.client.zadd(expiry, {checkpoint(f"over-{i}").state_uid + f"over-{i}": over})
    wait_until(lambda: len(store.checkpoints.list(run)) == 2, "250 are over")
    assert [one.name for one in store.checkpoints.list(run)] == ["ever", "later"]
    assert store._database.client.hlen(keys.of_run(run).states) == 2


def test_lifetime(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lifetime counts by Redis' clock alone, and is shown the same by whatever reads the checkpoint."""
    run = records.run(store)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    before = now(store)
    expires = put(store, run, "a", 3600)
    assert before + 3_600_000 <= expires <= now(store) + 3_600_000
    assert store.checkpoints.get(run, "a")[0].expire_time_ms == expires
    assert [one.expire_time_ms for one in store.checkpoints.list(run)] == [expires]


def test_a_repeat_extends(store: Store) -> None:
    """A repeat with a lifetime lives to the later end of the two; with none it is kept until it is deleted."""
    run = records.run(store)
    hour = put(store, run, "a", 3600)
    assert put(store, run, "a", 60) == hour
    two = put(store, run, "a", 7200)
    assert two >= hour + 3_600_000
    assert store.checkpoints.list(run)[0].expire_time_ms == two
    assert put(store, run, "a") == 0
    assert put(store, run, "a", 60) == 0
    assert store.checkpoints.list(run)[0].expire_time_ms == 0
    assert store._database.client.zcard(keys.of_run(run).checkpoint_expiry) == 0


def test_deleted_run(store: Store) -> None:
    """A deleted run has no checkpoints to list, to read or to delete: it is replaced, not empty."""
    run = records.run(store)
    put(store, run, "a")
    store.runs.delete(run)
    for call in (
        lambda: store.checkpoints.put(run, checkpoint("a"), storage_pb2.Snapshot()),
        lambda: store.checkpoints.list(run),
        lambda: store.checkpoints.get(run, "a"),
        lambda: store.checkpoints.delete(run, "a"),
    ):
        with pytest.raises(RunReplaced, match=run.uid):
            call()
