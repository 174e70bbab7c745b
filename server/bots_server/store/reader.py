"""Which stored messages this build understands: storage.proto says what `min_reader` means."""

from __future__ import annotations

from bots_server.errors import RunDamaged, ServerTooOld
from bots_server.storage.v1 import storage_pb2
from bots_server.store.seal import SEAL_BYTES, intact, unseal

READER = 1  # the reader version of this build
WRITES = 1  # the least reader version that understands what this build writes


def require(what: str, min_reader: int) -> None:
    """Raises ServerTooOld if a message needs a newer reader than this build."""
    if min_reader > READER:
        raise ServerTooOld(what, min_reader, READER)


def dataset(key: str, value: bytes | None) -> storage_pb2.DatasetRecord:
    """Returns the record that a key has. Raises DatasetDamaged, ServerTooOld."""
    record = storage_pb2.DatasetRecord.FromString(unseal(value, "record", key))
    require(f"dataset {record.name!r}", record.min_reader)
    return record


def run(key: str, name: str, value: bytes) -> storage_pb2.RunRecord:
    """Returns the record that the key `runs` of a dataset has under a name. Raises RunDamaged, ServerTooOld."""
    record = run_of_any_version(key, name, value)
    require(f"run {record.name!r}", record.min_reader)
    return record


def run_of_any_version(key: str, name: str, value: bytes) -> storage_pb2.RunRecord:
    """Returns the record of a run, for listings and deletion. Raises RunDamaged."""
    if not intact(value, name):
        raise RunDamaged(key, f"has a wrong checksum at {name}")
    return storage_pb2.RunRecord.FromString(value[:-SEAL_BYTES])


def snapshot(of: storage_pb2.RunRecord, key: str, place: str, value: bytes | None) -> storage_pb2.Snapshot:
    """Returns a snapshot of a run that is stored at a place of a key. Raises RunDamaged, ServerTooOld."""
    state = storage_pb2.Snapshot.FromString(unseal(value, place, key))
    require(f"run {of.name!r}, version {state.version}", state.min_reader)
    return state
