"""Datasets appear whole or not at all, under one name."""

from __future__ import annotations

import threading

import pytest

from bots_server.errors import Conflict, DatasetHasRuns, DatasetNotFound, InvalidField, RunReplaced
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Store
from bots_server.store.keys import DATASETS
from bots_server.store.seal import seal
from tests.store import records


def everything(store: Store) -> set[bytes]:
    """Returns all keys, the index of names left out."""
    return {key for key in records.redis_of(store).scan_iter(count=1000) if key != b"bots:datasets"}


def test_what_is_created_is_read_back(store: Store) -> None:
    """A dataset's record, strata and columns come back as they were put."""
    record = records.dataset(store)
    assert (record.name, record.chunks, record.size, record.min_reader) == ("guru-math", 2, 2048, 1)
    assert record.create_time_ms > 0
    assert len(record.uid) == 32
    assert store.datasets.get("guru-math") == record
    assert store.datasets.strata(record) == storage_pb2.StrataTable(references=b"w" * 8)
    assert list(store.datasets.columns(record)) == [records.columns(0), records.columns(1)]
    assert all(records.redis_of(store).ttl(key) == -1 for key in everything(store))


@pytest.mark.parametrize("fingerprint", [b"equal", b"other"])
def test_a_name_that_is_taken_returns_its_dataset(store: Store, fingerprint: bytes) -> None:
    """An upload under a name that is taken returns the dataset that has it, to be compared, and leaves nothing."""
    first = records.dataset(store, fingerprint=b"equal")
    before = everything(store)
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0))
        record = storage_pb2.DatasetRecord(fingerprint=fingerprint)
        assert upload.commit(record, storage_pb2.StrataTable()) == (first, False)
    assert everything(store) == before


def test_small_chunks_are_refused(store: Store) -> None:
    """Only the last chunk may have fewer than 1,024 tasks, so that a dataset has a bounded number of keys."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0, 1024))
        upload.put(records.columns(1, 1023))
        with pytest.raises(
            InvalidField, match=r"^chunk\.size: got 1023, must be at least 1024, except in the last chunk$"
        ):
            upload.put(records.columns(2, 2000))
    assert everything(store) == set()
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0, 1024))
        upload.put(records.columns(1, 1))
        assert upload.commit(storage_pb2.DatasetRecord(), storage_pb2.StrataTable())[1]


def test_a_broken_upload_leaves_nothing(store: Store) -> None:
    """An upload that ends without a commit is deleted (guarantee 7)."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0))
        assert len(everything(store)) == 1
    assert everything(store) == set()
    assert store.datasets.list() == []
    with pytest.raises(DatasetNotFound, match="guru-math"):
        store.datasets.get("guru-math")


def test_staged_chunks_expire(store: Store) -> None:
    """The chunks of a server that died expire within an hour, and a commit that finds one gone is refused."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0))
        (staged,) = everything(store)
        assert 3500 < records.redis_of(store).ttl(staged) <= 3600
        records.redis_of(store).delete(staged)
        with pytest.raises(Conflict):
            upload.commit(storage_pb2.DatasetRecord(), storage_pb2.StrataTable())
    assert everything(store) == set()


def test_a_commit_whose_answer_was_lost(store: Store) -> None:
    """An upload that ends without the answer to its commit does not delete the dataset that it committed."""
    with store.datasets.upload("guru-math") as upload:
        upload.put(records.columns(0))
        record, new = upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable())
        upload._committed = False
        assert new
    assert list(store.datasets.columns(record)) == [records.columns(0)]


def test_concurrent_creations_create_one_dataset(store: Store) -> None:
    """If many ranks create one dataset, one of them does, and all get the same."""
    answers: list[tuple[storage_pb2.DatasetRecord, bool]] = []

    def rank() -> None:
        with store.datasets.upload("guru-math") as upload:
            upload.put(records.columns(0))
            answers.append(upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable()))

    threads = [threading.Thread(target=rank) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created for _, created in answers) == [False] * 7 + [True]
    assert {record.uid for record, _ in answers} == {store.datasets.get("guru-math").uid}
    assert len(everything(store)) == 3


def test_the_index_of_datasets_heals(store: Store) -> None:
    """Datasets are listed by name; the index heals from stale names, and from its loss."""
    for name in ("c", "a", "b"):
        records.dataset(store, name)
    records.redis_of(store).sadd(DATASETS, seal(b"never-committed", DATASETS))
    assert [record.name for record in store.datasets.list()] == ["a", "b", "c"]
    members = {seal(name, DATASETS) for name in (b"a", b"b", b"c")}
    assert records.redis_of(store).smembers(DATASETS) == members
    records.redis_of(store).delete(DATASETS)
    assert [record.name for record in store.datasets.list()] == ["a", "b", "c"]


def test_datasets_are_listed_in_pages(store: Store) -> None:
    """A page has the next names in order, and is shorter than asked only at the end."""
    for name in ("d3", "d1", "d4", "d0", "d2"):
        records.dataset(store, name)
    records.redis_of(store).sadd(DATASETS, *(seal(name, DATASETS) for name in (b"d00", b"d11")))  # never committed

    def names(after: str, limit: int) -> list[str]:
        return [one.name for one in store.datasets.list(after, limit)]

    assert names("", 2) == ["d0", "d1"]
    assert names("d1", 2) == ["d2", "d3"]
    assert names("d3", 2) == ["d4"]
    assert names("d4", 2) == []


def test_a_deleted_dataset_leaves_nothing(store: Store) -> None:
    """Deleting a dataset leaves nothing of it. With runs it is deleted only together with them, in one transition."""
    run = records.run(store)
    other = records.run(store, "other")
    records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 1))
    record = store.datasets.get("guru-math")
    assert store.runs.count(record) == 2
    with pytest.raises(DatasetHasRuns, match="2 runs"):
        store.datasets.delete("guru-math", delete_runs=False)
    assert [one.record for one in store.runs.list(record)] == [other, run]
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


def test_all_keys_of_a_dataset_are_in_one_slot(store: Store) -> None:
    """All keys of a dataset and of its runs have the hash tag of its name."""
    run = records.run(store)
    records.append(store, run)
    store.history.put_snapshot(run, records.snapshot(store, run, 1))
    assert {key.partition(b"{")[2].partition(b"}")[0] for key in everything(store)} == {b"guru-math"}
    assert all("{guru-math}" in key for key in records.KEYS.of_run(run))


def test_size_of_ten_million_tasks(store: Store) -> None:
    """A million tasks in one chunk take less than 12 bytes each, tags included, and without them a value of 4 MB."""
    size = 1 << 20
    with store.datasets.upload("large") as upload:
        upload.put(storage_pb2.TaskColumns(size=size, stratum=bytes(4 * size)))
        upload.put(storage_pb2.TaskColumns(size=size, stratum=bytes(4 * size), tag=bytes(4 * size)))
        record, _ = upload.commit(storage_pb2.DatasetRecord(fingerprint=b"f"), storage_pb2.StrataTable())
        plain, tagged = (
            records.redis_of(store).memory_usage(records.KEYS.columns("large", record.uid, chunk)) for chunk in range(2)
        )
    assert plain is not None
    assert tagged is not None
    assert plain < 6 * size
    assert tagged < 12 * size
