"""Small records for the tests of the store."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from bots_server.storage.v1 import storage_pb2
from bots_server.store import Appended, Store, history
from bots_server.store.datasets import MIN_CHUNK_TASKS
from bots_server.store.keys import Keys
from bots_server.store.seal import checksum

KEYS = Keys()
HYPERPARAMETERS = storage_pb2.Hyperparameters(target=0.5, rest=0.5, forgetting=0.1)


def redis_of(store: Store) -> Any:
    """Returns redis-py's client of the server that a store uses."""
    (client,) = store.client.primaries()
    return client


def request_id() -> str:
    """Returns a new request id."""
    return str(uuid.uuid4())


def columns(first: int, size: int = MIN_CHUNK_TASKS) -> storage_pb2.TaskColumns:
    """Returns columns of `size` tasks, all of the stratum `first`."""
    return storage_pb2.TaskColumns(size=size, stratum=first.to_bytes(4, "little") * size)


def dataset(
    store: Store, name: str = "guru-math", chunks: int = 2, fingerprint: bytes = b"f"
) -> storage_pb2.DatasetRecord:
    """Returns a dataset that is created here."""
    with store.datasets.upload(name) as upload:
        for chunk in range(chunks):
            upload.put(columns(chunk))
        record = storage_pb2.DatasetRecord(size=MIN_CHUNK_TASKS * chunks, fingerprint=fingerprint, strata=chunks)
        created, new = upload.commit(record, storage_pb2.StrataTable(references=b"w" * 4 * chunks))
    assert new
    return created


def run_record(of: storage_pb2.DatasetRecord, name: str = "qwen-7b") -> storage_pb2.RunRecord:
    """Returns the record of a new run."""
    return storage_pb2.RunRecord(
        name=name,
        uid=uuid.uuid4().hex,
        dataset=of.name,
        dataset_uid=of.uid,
        model="interpolation",
        hyperparameters=HYPERPARAMETERS,
    )


def run(store: Store, name: str = "qwen-7b") -> storage_pb2.RunRecord:
    """Returns a run that is created here, of the dataset `guru-math`, which is created if it does not exist."""
    listed = [one for one in store.datasets.list() if one.name == "guru-math"]
    created, new = store.runs.create(run_record(listed[0] if listed else dataset(store), name))
    assert new
    return created


def report(*tasks: int, job: str = "", selection_id: str = "") -> storage_pb2.Event:
    """Returns a report of one outcome for each task; of task 0 if there is none."""
    tasks = tasks or (0,)
    outcomes = storage_pb2.Report(
        tasks=tasks, successes=[1] * len(tasks), rollouts=[2] * len(tasks), selection_id=selection_id
    )
    return storage_pb2.Event(job=job, report=outcomes, min_reader=1)


def append(store: Store, to: storage_pb2.RunRecord, event: storage_pb2.Event | None = None) -> Appended:
    """Returns the answer to a new report."""
    return store.history.append(to, event or report(), request_id=request_id(), digest=b"12345678")


def snapshot(store: Store, of: storage_pb2.RunRecord, version: int) -> storage_pb2.Snapshot:
    """Returns a snapshot of a version that is in the history, with the nonce of its event."""
    page = store.history.events(of, version - 1, 1)
    assert page.events[0].version == version
    return storage_pb2.Snapshot(
        version=version, nonce=page.events[0].nonce, state=storage_pb2.State(updates=version), min_reader=1
    )


def set_head(store: Store, of: storage_pb2.RunRecord, **fields: str | int | bytes) -> None:
    """Changes fields of a run's head, and its checksum to fit."""
    redis, key = redis_of(store), KEYS.of_run(of).run
    redis.hset(key, mapping=fields)
    words = redis.hmget(key, "version", "nonce", "snapshot", "trimmed", "forgotten", "ids")
    redis.hset(key, "check", checksum(*words))


def keep(
    monkeypatch: pytest.MonkeyPatch, *, events: int = 10_000, stride: int = 1_024, request_ids: int = 100_000
) -> None:
    """Changes what runs keep, for the duration of a test."""
    monkeypatch.setattr(history, "HISTORY_EVENTS", events)
    monkeypatch.setattr(history, "HISTORY_STRIDE", stride)
    monkeypatch.setattr(history, "REQUEST_IDS", request_ids)
