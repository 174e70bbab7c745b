"""Which stored messages this build understands: storage.proto says what `min_reader` means."""

from __future__ import annotations

from bots_server.errors import ServerTooOld
from bots_server.storage.v1 import storage_pb2

READER = 1  # the reader version of this build
WRITES = 1  # the least reader version that understands what this build writes


def require(what: str, min_reader: int) -> None:
    """Raises ServerTooOld if a message needs a newer reader than this build."""
    if min_reader > READER:
        raise ServerTooOld(what, min_reader, READER)


def dataset(value: bytes) -> storage_pb2.DatasetRecord:
    """Returns the record of a dataset. Raises ServerTooOld."""
    record = storage_pb2.DatasetRecord.FromString(value)
    require(f"dataset {record.name!r}", record.min_reader)
    return record


def run(value: bytes) -> storage_pb2.RunRecord:
    """Returns the record of a run. Raises ServerTooOld."""
    record = storage_pb2.RunRecord.FromString(value)
    require(f"run {record.name!r}", record.min_reader)
    return record


def snapshot(of: storage_pb2.RunRecord, value: bytes) -> storage_pb2.Snapshot:
    """Returns a snapshot of a run. Raises ServerTooOld."""
    state = storage_pb2.Snapshot.FromString(value)
    require(f"run {of.name!r}, version {state.version}", state.min_reader)
    return state
