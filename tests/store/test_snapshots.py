"""Snapshots along the history, and what remains after trimming."""

from __future__ import annotations

import random

import pytest

from bots_server.errors import VersionNotFound
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store
from tests.store import records


def test_the_newest_snapshot_up_to_a_version_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest snapshot at or below a version is found; below the first one a replica starts at the prior."""
    records.keep(monkeypatch, stride=1)
    run = records.run(store)
    for _ in range(8):
        records.append(store, run)
    for version in (3, 6):
        assert store.history.put_snapshot(run, records.snapshot(store, run, version))
    found = [store.history.snapshot(run, at_most) for at_most in (2, 3, 5, 6, 8, None)]
    assert [one.version if one else None for one in found] == [None, 3, 3, 6, 6, 6]
    assert store.history.sync(run, 0, b"").snapshot_version == 6
    assert records.append(store, run).snapshot_version == 6


def test_a_snapshot_of_another_history_is_refused(store: Store) -> None:
    """A snapshot is refused if its event has another nonce or is missing, or if there is a newer snapshot."""
    run = records.run(store)
    for _ in range(4):
        records.append(store, run)
    good = records.snapshot(store, run, 3)
    older = records.snapshot(store, run, 2)
    assert not store.history.put_snapshot(run, storage_pb2.Snapshot(version=3, nonce=b"another-"))
    assert not store.history.put_snapshot(run, storage_pb2.Snapshot(version=5, nonce=good.nonce))
    assert not store.history.put_snapshot(run, storage_pb2.Snapshot(version=0))
    assert store.history.snapshot(run) is None
    assert store.history.put_snapshot(run, good)
    assert store.history.put_snapshot(run, good)
    assert not store.history.put_snapshot(run, older)
    assert store.history.snapshot(run) == good


@pytest.mark.parametrize("seed", range(20))
def test_every_kept_version_can_be_rebuilt(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """After any snapshots at any time, each version from the oldest on has a snapshot (or the prior) at or below it and
    all events since. At least `history` events are kept, and at most one stride and one interval more.
    """
    rng = random.Random(seed)
    history, stride = rng.choice([1, 5, 20]), rng.choice([1, 4, 10, 30])
    records.keep(monkeypatch, events=history, stride=stride)
    run = records.run(store)
    largest = last = 0
    for version in range(1, 120):
        records.append(store, run)
        if rng.random() < 0.25:
            at = rng.randint(last, version)
            if at > last and store.history.put_snapshot(run, records.snapshot(store, run, at)):
                largest, last = max(largest, at - last), at
                _check(store, run, version, history)
                kept = records.redis_of(store).hkeys(records.KEYS.of_run(run).snapshots)
                assert len(kept) <= (version - store.history.oldest(run)) // stride + 3
    assert store.history.oldest(run) >= last - max(history, stride) - stride - 3 * largest


def _check(store: Store, run: storage_pb2.RunRecord, version: int, history: int) -> None:
    oldest = store.history.oldest(run)
    assert oldest <= max(0, version - history)
    kept = {event.version for event in store.history.events(run, 0, 10_000).events}
    assert kept == set(range(max(1, oldest), version + 1))
    for at_most in range(oldest, version + 1):
        found = store.history.snapshot(run, at_most)
        start = found.version if found else 0
        assert oldest <= start <= at_most
        seen = store.history.sync(run, start, found.nonce if found else b"")
        assert (seen.diverged, [event.version for event in seen.events]) == (False, list(range(start + 1, version + 1)))
    if oldest > 0:
        with pytest.raises(VersionNotFound, match=f"must be between {oldest} and {version}"):
            store.history.snapshot(run, oldest - 1)


def test_one_snapshot_of_each_stride_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the steady state the newest snapshot is kept, and one at each multiple of the stride as far back as events."""
    records.keep(monkeypatch, events=64, stride=16)
    run = records.run(store)
    for version in range(1, 201):
        records.append(store, run)
        if version % 4 == 0:
            assert store.history.put_snapshot(run, records.snapshot(store, run, version))
    kept = records.redis_of(store).hkeys(records.KEYS.of_run(run).snapshots)
    assert sorted(kept) == [b"128", b"144", b"160", b"176", b"192", b"200"]
    assert store.history.oldest(run) == 128
    assert records.redis_of(store).xlen(records.KEYS.of_run(run).events) == 73


def test_nothing_is_trimmed_without_a_snapshot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming never removes events that the newest kept snapshot does not hold."""
    records.keep(monkeypatch, events=1, stride=1)
    run = records.run(store)
    for _ in range(300):
        records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 100))
    assert store.history.oldest(run) == 100
    assert records.redis_of(store).xlen(records.KEYS.of_run(run).events) == 201


def test_restored_states_live_as_long_as_their_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a restored event is kept until the event is trimmed."""
    records.keep(monkeypatch, events=10, stride=10)
    run = records.run(store)
    state = storage_pb2.Snapshot(version=3, state=storage_pb2.State(updates=3))
    for version in range(1, 61):
        if version == 15:
            event = storage_pb2.Event(restored=storage_pb2.Restored(version=3, state_uid="a" * 32))
            one = records.request_id()
            for _ in range(2):
                store.history.append(run, event, request_id=one, digest=b"contents", state=state)
        else:
            records.append(store, run)
        if version % 5 == 0:
            assert store.history.put_snapshot(run, records.snapshot(store, run, version))
        if version >= 15:
            kept = store.history.oldest(run) <= 15
            assert store.checkpoints.state(run, "a" * 32) == (state if kept else None)
    assert store.history.oldest(run) > 15
    assert records.redis_of(store).exists(records.KEYS.of_run(run).restores, records.KEYS.of_run(run).states) == 0
