"""Small records for the tests of the store."""

from __future__ import annotations

import os
import time
import uuid

from bots.v1 import task_selection_pb2
from bots_server.storage.v1 import storage_pb2
from bots_server.store import Appended, Store


def request_id(milliseconds: int | None = None) -> str:
    """Returns a UUIDv7 (RFC 9562) of that time, or of now."""
    at = time.time_ns() // 1_000_000 if milliseconds is None else milliseconds
    number = at << 80 | 7 << 76 | int.from_bytes(os.urandom(10), "big") & ~(0xF << 76)
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


def columns(first: int, size: int) -> storage_pb2.TaskColumns:
    """Returns columns of `size` tasks, all of one stratum numbered `first`."""
    return storage_pb2.TaskColumns(size=size, stratum=first.to_bytes(4, "little") * size)


def dataset(
    store: Store, name: str = "guru-math", chunks: int = 2, fingerprint: bytes = b"f"
) -> storage_pb2.DatasetRecord:
    """Returns a dataset that is created here, with ten tasks a chunk."""
    with store.datasets.upload(name) as upload:
        for chunk in range(chunks):
            upload.put(chunk, columns(chunk, 10))
        record = storage_pb2.DatasetRecord(size=10 * chunks, fingerprint=fingerprint, strata=chunks)
        created, new = upload.commit(record, storage_pb2.StrataTable(weak=b"w" * 4 * chunks))
    assert new
    return created


def run_record(
    of: storage_pb2.DatasetRecord,
    name: str = "qwen-7b",
    *,
    history: int = 10_000,
    history_stride: int = 1024,
    request_memory: int = 100_000,
) -> storage_pb2.RunRecord:
    """Returns the record of a new run."""
    return storage_pb2.RunRecord(
        name=name,
        uid=uuid.uuid4().hex,
        dataset=of.name,
        dataset_uid=of.uid,
        retention=task_selection_pb2.Retention(
            snapshot_interval=256, history=history, history_stride=history_stride, request_memory=request_memory
        ),
    )


def run(
    store: Store,
    name: str = "qwen-7b",
    *,
    history: int = 10_000,
    history_stride: int = 1024,
    request_memory: int = 100_000,
) -> storage_pb2.RunRecord:
    """Returns a run that is created here, of the dataset `guru-math`, which is created where it is not there."""
    listed = [one for one in store.datasets.list() if one.name == "guru-math"]
    record = run_record(
        listed[0] if listed else dataset(store),
        name,
        history=history,
        history_stride=history_stride,
        request_memory=request_memory,
    )
    created, new = store.runs.create(record)
    assert new
    return created


def report(task: int = 0, job: str = "") -> storage_pb2.Event:
    """Returns a report of one outcome."""
    return storage_pb2.Event(job=job, report=storage_pb2.Report(tasks=[task], successes=[1], rollouts=[2]))


def append(store: Store, to: storage_pb2.RunRecord, event: storage_pb2.Event | None = None) -> Appended:
    """Returns the answer to a new report."""
    return store.history.append(to, event or report(), request_id=request_id(), digest=b"12345678")


def snapshot(store: Store, of: storage_pb2.RunRecord, version: int) -> storage_pb2.Snapshot:
    """Returns a snapshot of a version that is in the history, with the nonce of its event."""
    page = store.history.events(of, version - 1, 1)
    assert page.events[0].version == version
    return storage_pb2.Snapshot(version=version, nonce=page.events[0].nonce, updates=version)
