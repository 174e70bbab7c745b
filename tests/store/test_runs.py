"""Runs: created once under a name, listed in pages, deleted whole."""

from __future__ import annotations

import threading

import pytest

from bots_server.errors import DatasetNotFound, RunNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store
from tests.store import records
from tests.store.test_datasets import everything


def test_a_name_that_is_taken_returns_its_run(store: Store) -> None:
    """A name that is taken returns the run that has it; a repeat of the same call counts as the creation."""
    of = records.dataset(store)
    asked = records.run_record(of)
    first, created = store.runs.create(asked)
    assert (created, first.uid, first.min_reader) == (True, asked.uid, 1)
    assert first.create_time_ms > 0
    assert store.runs.create(asked) == (first, True)
    assert store.runs.create(records.run_record(of)) == (first, False)
    assert store.runs.get(of, "qwen-7b") == first
    with pytest.raises(RunNotFound, match="llama"):
        store.runs.get(of, "llama")


def test_concurrent_creations_create_one_run(store: Store) -> None:
    """If many ranks create one run, one of them does, and all get the same."""
    of = records.dataset(store)
    answers: list[tuple[storage_pb2.RunRecord, bool]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(store.runs.create(records.run_record(of)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created for _, created in answers) == [False] * 7 + [True]
    assert {record.uid for record, _ in answers} == {store.runs.get(of, "qwen-7b").uid}


def test_no_run_is_created_for_a_replaced_dataset(store: Store) -> None:
    """A run is not created for a dataset that was deleted, nor for another one under its name."""
    of = records.dataset(store)
    store.datasets.delete("guru-math", delete_runs=False)
    for _ in range(2):
        with pytest.raises(DatasetNotFound):
            store.runs.create(records.run_record(of))
        records.dataset(store) if not store.datasets.list() else None


def test_a_fork_starts_at_its_state(store: Store) -> None:
    """A run that starts from a state has it as its snapshot of version 0."""
    of = records.dataset(store)
    base = storage_pb2.Snapshot(version=77, nonce=b"elsewhere", state=storage_pb2.State(updates=70))
    run, _ = store.runs.create(records.run_record(of), base)
    start = storage_pb2.Snapshot(version=0, state=storage_pb2.State(updates=70))
    assert store.history.snapshot(run) == start
    for _ in range(3):
        records.append(store, run)
    assert store.history.snapshot(run, 2) == start
    assert base.version == 77


def test_a_listing_has_the_newest_version_and_hyperparameters(store: Store) -> None:
    """A listing shows what changes and restores made of a run, without reading an event or a snapshot."""
    run = records.run(store)
    of = store.datasets.get("guru-math")

    def listed() -> tuple[int, storage_pb2.Hyperparameters]:
        (one,) = store.runs.list(of)
        assert one == store.runs.current(run)
        return one.version, one.hyperparameters

    assert listed() == (0, records.HYPERPARAMETERS)
    changed = storage_pb2.HyperparametersChanged(hyperparameters=storage_pb2.Hyperparameters(target=0.25, greedy=False))
    records.append(store, run, storage_pb2.Event(hyperparameters_changed=changed))
    records.append(store, run)
    expected = storage_pb2.Hyperparameters(target=0.25, rest=0.5, forgetting=0.1, greedy=False)
    assert listed() == (2, expected)
    changed = storage_pb2.HyperparametersChanged(hyperparameters=storage_pb2.Hyperparameters(rest=0))
    records.append(store, run, storage_pb2.Event(hyperparameters_changed=changed))
    expected.rest = 0
    assert listed() == (3, expected)
    restored = storage_pb2.Event(restored=storage_pb2.Restored(version=0, state_uid="a" * 32))
    state = storage_pb2.Snapshot(hyperparameters=storage_pb2.Hyperparameters(target=0.5, rest=0.5, greedy=True))
    store.history.append(run, restored, request_id=records.request_id(), digest=b"contents", state=state)
    expected = storage_pb2.Hyperparameters(target=0.5, rest=0.5, forgetting=0.1, greedy=True)
    assert listed() == (4, expected)


def test_runs_are_listed_in_pages(store: Store) -> None:
    """A page has the next names in order, and is shorter than asked only at the end."""
    of = records.dataset(store)
    for name in ("r3", "r1", "r4", "r0", "r2"):
        store.runs.create(records.run_record(of, name))

    def names(after: str, limit: int) -> list[str]:
        return [one.record.name for one in store.runs.list(of, after, limit)]

    assert names("", 2) == ["r0", "r1"]
    assert names("r1", 2) == ["r2", "r3"]
    assert names("r3", 2) == ["r4"]
    assert names("r4", 2) == []
    assert names("q", 9) == ["r0", "r1", "r2", "r3", "r4"]
    records.redis_of(store).unlink(records.KEYS.of_run(store.runs.get(of, "r1")).run)
    assert [bool(one.damage) for one in store.runs.list(of, "", 2)] == [False, True]


def test_a_deleted_run_leaves_nothing(store: Store) -> None:
    """Deleting a run leaves nothing of it."""
    of = records.dataset(store)
    before = everything(store)
    run, _ = store.runs.create(records.run_record(of), storage_pb2.Snapshot())
    store.history.append(
        run,
        storage_pb2.Event(job="j", restored=storage_pb2.Restored(state_uid="b" * 32)),
        request_id=records.request_id(),
        digest=b"contents",
        state=storage_pb2.Snapshot(hyperparameters=records.HYPERPARAMETERS),
    )
    records.append(store, run)
    store.checkpoints.put(run, storage_pb2.Checkpoint(name="a", version=1, state_uid="1" * 32), storage_pb2.Snapshot())
    store.runs.delete(run)
    assert everything(store) == before
    assert store.runs.list(of) == []
    with pytest.raises(RunNotFound):
        store.runs.delete(run)
    with pytest.raises(RunReplaced):
        store.runs.current(run)
