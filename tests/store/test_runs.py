"""Runs: created once under a name, deleted whole."""

from __future__ import annotations

import threading

import pytest

from bots_server.errors import DatasetNotFound, RunNotFound
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store
from tests.store import records
from tests.store.test_datasets import everything


def test_creating_it_again(store: Store) -> None:
    """A name that is taken returns the run that has it; the same call again counts as the creation that it is."""
    of = records.dataset(store)
    first = records.run_record(of)
    assert store.runs.create(first) == (first, True)
    assert store.runs.create(first) == (first, True)
    assert store.runs.create(records.run_record(of)) == (first, False)
    assert store.runs.get(of, "qwen-7b") == first
    with pytest.raises(RunNotFound, match="llama"):
        store.runs.get(of, "llama")


def test_concurrent_creation(store: Store) -> None:
    """Of many ranks that create one run one does, and all get the same."""
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


def test_a_dataset_that_was_replaced(store: Store) -> None:
    """A run is not created for a dataset that was deleted, nor for another one under its name."""
    of = records.dataset(store)
    store.datasets.delete("guru-math", delete_runs=False)
    for _ in range(2):
        with pytest.raises(DatasetNotFound):
            store.runs.create(records.run_record(of))
        records.dataset(store) if not store.datasets.list() else None


def test_fork(store: Store) -> None:
    """A run that starts from a state has it as its snapshot of version 0."""
    of = records.dataset(store)
    base = storage_pb2.Snapshot(version=77, nonce=b"elsewhere", updates=70)
    run, _ = store.runs.create(records.run_record(of), base)
    start = storage_pb2.Snapshot(version=0, updates=70)
    assert store.history.snapshot(run) == start
    for _ in range(3):
        records.append(store, run)
    assert store.history.snapshot(run, 2) == start
    assert base.version == 77


def test_delete(store: Store) -> None:
    """Deleting a run leaves nothing of it."""
    of = records.dataset(store)
    before = everything(store)
    run, _ = store.runs.create(records.run_record(of), storage_pb2.Snapshot())
    records.append(store, run)
    store.checkpoints.put(run, storage_pb2.Checkpoint(name="a", version=1, state_uid="1" * 32), storage_pb2.Snapshot())
    store.runs.delete(run)
    assert everything(store) == before
    assert store.runs.list(of) == []
    with pytest.raises(RunNotFound):
        store.runs.delete(run)
