"""Checkpoints outlive the history, until they are deleted or expire."""

from __future__ import annotations

import pytest

from bots_server.errors import CheckpointExists, CheckpointNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store
from bots_server.store.seal import checksum
from tests.store import records
from tests.valkey import wait_until


def checkpoint(name: str, version: int = 1) -> storage_pb2.Checkpoint:
    return storage_pb2.Checkpoint(name=name, version=version, state_uid=name.encode().hex().ljust(32, "0"))


def put(
    store: Store, run: storage_pb2.RunRecord, name: str, ttl_seconds: float | None = None
) -> storage_pb2.Checkpoint:
    """Returns a checkpoint of version 1 that is kept here."""
    return store.checkpoints.put(run, checkpoint(name), storage_pb2.Snapshot(), ttl_seconds)


def now(store: Store) -> int:
    """Returns Redis' time in milliseconds."""
    seconds, microseconds = records.redis_of(store).time()
    return int(seconds * 1000 + microseconds // 1000)


def test_a_checkpoint_is_read_back_with_its_state(store: Store) -> None:
    """A checkpoint is read back with its state; its name with the same version again returns the first one."""
    run = records.run(store)
    state = storage_pb2.Snapshot(version=1, state=storage_pb2.State(updates=1))
    before = now(store)
    b, a = (store.checkpoints.put(run, checkpoint(name), state) for name in ("b", "a"))
    assert before <= b.create_time_ms <= a.create_time_ms <= now(store)
    assert (b.name, b.version, b.state_uid, b.expire_time_ms) == ("b", 1, checkpoint("b").state_uid, 0)
    assert store.checkpoints.get(run, "b") == (b, state)
    assert store.checkpoints.list(run) == [a, b]
    other = checkpoint("other")
    again = storage_pb2.Checkpoint(name="a", version=1, state_uid=other.state_uid)
    assert store.checkpoints.put(run, again, storage_pb2.Snapshot()) == a
    assert store.checkpoints.state(run, other.state_uid) is None
    with pytest.raises(CheckpointExists, match="version 1"):
        store.checkpoints.put(run, checkpoint("a", version=2), state)


def test_a_deleted_checkpoint_leaves_nothing(store: Store) -> None:
    """A deleted checkpoint is gone with its state, and its name is free."""
    run = records.run(store)
    put(store, run, "a", 3600)
    store.checkpoints.delete(run, "a")
    assert store.checkpoints.list(run) == []
    key = records.KEYS.of_run(run)
    assert records.redis_of(store).exists(key.states, key.checkpoint_expiry) == 0
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.delete(run, "a")
    with pytest.raises(CheckpointNotFound):
        store.checkpoints.get(run, "a")
    store.checkpoints.put(run, checkpoint("a", version=2), storage_pb2.Snapshot())


def test_a_late_delete_spares_a_later_checkpoint_of_the_name(store: Store) -> None:
    """A repeat of a delete does not delete the checkpoint that was created under the name since."""
    run = records.run(store)
    put(store, run, "a")
    store.checkpoints.delete(run, "a")
    later = store.checkpoints.put(run, checkpoint("a", version=2), storage_pb2.Snapshot())
    key = records.KEYS.of_run(run)
    names = [key.run, key.checkpoints, key.checkpoint_expiry, key.states]
    assert store._database.run("delete_checkpoint", names, ["a", "f" * 32]) == 0  # the uid of the first one
    assert store.checkpoints.list(run) == [later]


def test_expired_checkpoints_are_deleted(store: Store) -> None:
    """A checkpoint that has expired is gone with its state; the others stay."""
    run = records.run(store)
    for i in range(250):
        put(store, run, f"over-{i}", 3600)
    put(store, run, "later", 7200)
    put(store, run, "ever")
    assert len(store.checkpoints.list(run, limit=1000)) == 252
    over = now(store) + 30
    redis, key = records.redis_of(store), records.KEYS.of_run(run)
    for name in [f"over-{i}" for i in range(250)]:
        content = redis.hget(key.checkpoints, name)[:-14]
        redis.hset(key.checkpoints, name, content + over.to_bytes(6, "big") + checksum(name, over))
        redis.zadd(key.checkpoint_expiry, {name: over})
    wait_until(lambda: len(store.checkpoints.list(run)) == 2, "250 are over")
    assert [one.name for one in store.checkpoints.list(run)] == ["ever", "later"]
    assert records.redis_of(store).hlen(records.KEYS.of_run(run).states) == 2


def test_checkpoints_are_listed_in_pages(store: Store) -> None:
    """A page has the next names in order, and is shorter than asked only at the end."""
    run = records.run(store)
    for i in (3, 1, 4, 0, 2):
        put(store, run, f"c{i}", 60 if i % 2 else None)

    def names(after: str, limit: int) -> list[str]:
        return [one.name for one in store.checkpoints.list(run, after, limit)]

    assert names("", 2) == ["c0", "c1"]
    assert names("c1", 2) == ["c2", "c3"]
    assert names("c3", 2) == ["c4"]
    assert names("c4", 2) == []
    assert names("b", 9) == ["c0", "c1", "c2", "c3", "c4"]


def test_a_lifetime_counts_by_the_clock_of_redis(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lifetime counts by Redis' clock alone, and every read shows the same end."""
    run = records.run(store)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    before = now(store)
    expires = put(store, run, "a", 3600).expire_time_ms
    assert before + 3_600_000 <= expires <= now(store) + 3_600_000
    assert store.checkpoints.get(run, "a")[0].expire_time_ms == expires
    assert [one.expire_time_ms for one in store.checkpoints.list(run)] == [expires]


def test_a_repeat_extends_a_lifetime(store: Store) -> None:
    """A repeat with a lifetime extends it to the later of the two ends; without one it is kept until deleted."""
    run = records.run(store)
    hour = put(store, run, "a", 3600).expire_time_ms
    assert put(store, run, "a", 60).expire_time_ms == hour
    two = put(store, run, "a", 7200).expire_time_ms
    assert two >= hour + 3_600_000
    assert store.checkpoints.list(run)[0].expire_time_ms == two
    assert put(store, run, "a").expire_time_ms == 0
    assert put(store, run, "a", 60).expire_time_ms == 0
    assert store.checkpoints.list(run)[0].expire_time_ms == 0


def test_reading_one_checkpoint_reads_no_other(store: Store) -> None:
    """The answer to a read of one checkpoint does not grow with the number of checkpoints."""
    run = records.run(store)
    for i in range(300):
        put(store, run, f"c{i}", 3600)
    first, second = sent(store), sent(store)
    store.checkpoints.get(run, "c7")
    assert sent(store) - second < second - first + 500


def sent(store: Store) -> int:
    """Returns the bytes that Redis has sent before this question."""
    return int(records.redis_of(store).info("stats")["total_net_output_bytes"])


def test_deleted_run(store: Store) -> None:
    """Every call about checkpoints of a deleted run raises RunReplaced, instead of finding none."""
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
