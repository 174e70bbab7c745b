"""Datasets appear whole or not at all, under one name."""

from __future__ import annotations

import threading

import pytest

from bots_server.errors import Conflict, DatasetExists, DatasetHasRuns, DatasetNotFound, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store, keys
from tests.store import records


def everything(store: Store) -> set[bytes]:
    """Returns all keys, the index of names left out."""
    return {key for key in store._database.client.scan_iter(count=1000) if key != b"bots:datasets"}


def test_what_is_created_is_read_back(store: Store) -> None:
    """A dataset's record, strata and columns come back as they were put."""
    record = records.dataset(store)
    assert (record.name, record.chunks, record.size) == ("guru-math", 2, 20)
    assert len(record.uid) == 32
    assert store.datasets.get("guru-math") == record
    assert store.datasets.strata(record) == storage_pb2.StrataTable(weak=b"w" * 8)
    assert list(store.datasets.columns(record)) == [records.columns(0, 10), records.columns(1, 10)]
    assert all(store._database.client.ttl(key) == -1 for key in everything(store))


def test_creating_it_again(store: Store) -> None:
    """Equal content returns the dataset that is there; other content is refused; neither leaves anything behind."""
    first = records.dataset(store, fingerprint=b"equal")
    before = everything(store)
    with store.datasets.upload("guru-math") as upload:
        upload.put(0, records.columns(0, 10))
        assert upload.commit(storage_pb2.DatasetRecord(fingerprint=b"equal"), storage_pb2.StrataTable()) == (
            first,
            False,
        )
    with pytest.raises(DatasetExists):
        records.dataset(store, fingerprint=b"other")
    assert everything(store) == before


def test_a_broken_upload_leaves_nothing(store: Store) -> None:
    """Bad input is refused whole, with the field, the value and the rule in the message; nothing of it is stored."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(0, records.columns(0, 10))
        assert len(everything(store)) == 1
    assert everything(store) == set()
    assert store.datasets.list() == []
    with pytest.raises(DatasetNotFound, match="guru-math"):
        store.datasets.get("guru-math")


def test_staged_chunks_expire(store: Store) -> None:
    """What a server uploaded before it died expires within an hour, and a commit that finds it gone is refused."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(0, records.columns(0, 10))
        (staged,) = everything(store)
        assert 3500 < store._database.client.ttl(staged) <= 3600
        store._database.client.delete(staged)
        with pytest.raises(Conflict):
            upload.commit(storage_pb2.DatasetRecord(), storage_pb2.StrataTable())
    assert everything(store) == set()


def test_a_commit_whose_answer_was_lost(store: Store) -> None:
    """An upload that left without the answer to its commit does not take back what it committed."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(0, records.columns(0, 10))
        record, new = upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable())
        upload._committed = False
        assert new
    assert list(store.datasets.columns(record)) == [records.columns(0, 10)]


def test_concurrent_creation(store: Store) -> None:
    """Of many ranks that create one dataset one does, and all get the same."""
    answers: list[tuple[storage_pb2.DatasetRecord, bool]] = []

    def rank() -> None:
        with store.datasets.upload("guru-math") as upload:
            upload.put(0, records.columns(0, 10))
            answers.append(upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable()))

    threads = [threading.Thread(target=rank) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created for _, created in answers) == [False] * 7 + [True]
    assert {record.uid for record, _ in answers} == {store.datasets.get("guru-math").uid}
    assert len(everything(store)) == 3


def test_list(store: Store) -> None:
    """Datasets are listed by name; the index heals from stale names, and from its loss."""
    for name in ("c", "a", "b"):
        records.dataset(store, name)
    store._database.client.sadd(keys.DATASETS, "never-committed")
    assert [record.name for record in store.datasets.list()] == ["a", "b", "c"]
    assert store._database.client.smembers(keys.DATASETS) == {b"a", b"b", b"c"}
    store._database.client.delete(keys.DATASETS)
    assert [record.name for record in store.datasets.list()] == ["a", "b", "c"]


def test_delete(store: Store) -> None:
    """Deleting a dataset leaves nothing of it; one that has runs stays unless they go with it, in one transition."""
    run = records.run(store)
    other = records.run(store, "other")
    records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 1))
    record = store.datasets.get("guru-math")
    assert store.datasets.run_count(record) == 2
    with pytest.raises(DatasetHasRuns, match="2 runs"):
        store.datasets.delete("guru-math", delete_runs=False)
    assert store.runs.list(record) == [other, run]
    store.datasets.delete("guru-math", delete_runs=True)
    assert everything(store) == set()
    assert store.datasets.list() == []
    with pytest.raises(DatasetNotFound):
        store.datasets.delete("guru-math", delete_runs=True)
    with pytest.raises(DatasetNotFound):
        store.datasets.strata(record)
    with pytest.raises(DatasetNotFound):
        list(store.datasets.columns(record))
    with pytest.raises(RunReplaced):
        records.append(store, run)


def test_one_slot(store: Store) -> None:
    """All keys of a dataset and of its runs have the hash tag of its name."""
    run = records.run(store)
    records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 1))
    assert {key.partition(b"{")[2].partition(b"}")[0] for key in everything(store)} == {b"guru-math"}
    assert all("{guru-math}" in key for key in [*keys.of_run(run).all(), keys.of_run(run).answer("x")])


def test_size_of_ten_million_tasks(store: Store) -> None:
    """A million tasks in one chunk take less than 12 bytes each, tags included, and without them a value of 4 MB."""
    size = 1 << 20
    with store.datasets.upload("large") as upload:
        upload.put(0, storage_pb2.TaskColumns(size=size, stratum=bytes(4 * size)))
        upload.put(1, storage_pb2.TaskColumns(size=size, stratum=bytes(4 * size), tag=bytes(4 * size)))
        record, _ = upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable())
        plain, tagged = (
            store._database.client.memory_usage(keys.columns("large", record.uid, chunk)) for chunk in range(2)
        )
    assert plain is not None
    assert tagged is not None
    assert plain < 6 * size
    assert tagged < 12 * size
