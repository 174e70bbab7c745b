"""Every key, its type and its lifetime.

All keys of a dataset and of its runs share the hash tag of the dataset's name, so that they lie in one slot of a Redis
Cluster and each transition is one script. Of the name and not of the uid, because a name is claimed in the same
transition. Keys of content carry uids, so that a dataset or run created again under its name shares no key with the one
before.

    bots:datasets                      set     names of datasets: an index that lacks no living one. Where it is missing
                                               (lost, or deleted to this end) the next listing makes it, by SCAN
    bots:{NAME}:dataset                hash    uid, fingerprint, record (DatasetRecord); until deleted
    bots:{NAME}:touch                  string  a write to wait for where a repeat writes nothing; a second
    bots:{NAME}:DATASET:strata         string  StrataTable; an hour, and once committed until deleted
    bots:{NAME}:DATASET:columns:CHUNK  string  TaskColumns; as the strata
    bots:{NAME}:DATASET:runs           hash    name of the run -> RunRecord; until deleted

and for each run, with P = bots:{NAME}:DATASET:run:RUN, until the run is deleted or earlier as said:

    P                    hash    version, nonce of its event, snapshot (newest version kept), trimmed (oldest version
                                 that can be rebuilt), forgotten (request ids); it is what makes the run exist
    P:events             stream  <version>-0 -> n: nonce, e: Event; the newest `history`, and back to a snapshot
    P:requests           zset    16 bytes of a report's request id + 8 of its digest + 8 of its version, all scored
                                 0: in order of the id's time (UUIDv7); the newest `request_memory`
    P:snapshots          hash    version -> Snapshot: the newest, and one every `history_stride` as far back as events
    P:snapshot_versions  zset    version, scored by itself: the snapshots in order
    P:states             hash    uid -> Snapshot, of restored events and of checkpoints; as long as what names it
    P:restores           zset    uid of a restored event's state, scored by the event's version; as the event
    P:checkpoints        hash    name -> Checkpoint; until deleted or expired
    P:checkpoint_expiry  zset    uid of the state + name, scored by the time it expires; as the checkpoint
    P:leases             zset    task, scored by the time its lease ends; until released, or purged by a later claim
    P:owners             hash    task -> selection id; as the lease
    P:selections         hash    selection id -> its tasks, as decimals between blanks; as the lease
    P:answer:REQUEST     hash    answer of a selection: digest, taken, expires, offer (Offer); ten minutes by its
                                 request id; one by its selection id, where a lease was asked for without request id

Times are milliseconds since 1970, by Redis' clock.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from bots_server.storage.v1 import storage_pb2

DATASETS = "bots:datasets"
EVERY_DATASET = "bots:{*}:dataset"  # pattern for SCAN


def dataset(name: str) -> str:
    return f"bots:{{{name}}}:dataset"


def touch(name: str) -> str:
    return f"bots:{{{name}}}:touch"


def strata(name: str, uid: str) -> str:
    return f"bots:{{{name}}}:{uid}:strata"


def columns(name: str, uid: str, chunk: int) -> str:
    return f"bots:{{{name}}}:{uid}:columns:{chunk}"


def runs(name: str, uid: str) -> str:
    return f"bots:{{{name}}}:{uid}:runs"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run."""

    run: str
    events: str
    requests: str
    snapshots: str
    snapshot_versions: str
    states: str
    restores: str
    checkpoints: str
    checkpoint_expiry: str
    leases: str
    owners: str
    selections: str

    def answer(self, request_id: str) -> str:
        return f"{self.run}:answer:{request_id}"

    def all(self) -> list[str]:
        """Returns every key that lives until the run is deleted, `run` first."""
        return [getattr(self, field.name) for field in fields(self)]


def of_run(record: storage_pb2.RunRecord) -> RunKeys:
    """Returns the keys of a run."""
    return _of_run(record.dataset, record.dataset_uid, record.uid)


@lru_cache(maxsize=1024)  # each call asks for them several times
def _of_run(dataset: str, dataset_uid: str, uid: str) -> RunKeys:
    prefix = f"bots:{{{dataset}}}:{dataset_uid}:run:{uid}"
    return RunKeys(prefix, *(f"{prefix}:{field.name}" for field in fields(RunKeys)[1:]))
