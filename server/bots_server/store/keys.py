"""Every key, its type and its lifetime.

A store may have a prefix, which then stands in front of each key, so that several services can share a Redis.

All keys of a dataset and of its runs share the hash tag of the dataset's name, so that they lie in one slot of a Redis
Cluster and each transition is one script. The tag is the name and not the uid, because a name is claimed in the same
transition. Keys of content carry uids: a dataset or run that is created again under its name shares no key with the
one before.

    bots:datasets                      set     names of datasets: an index that contains every existing one. If it is
                                               missing (lost, or deleted for this purpose) or damaged, the next listing
                                               makes it by SCAN
    bots:{NAME}:dataset                hash    uid, record (DatasetRecord), runs (their number); until deleted
    bots:{NAME}:touch                  string  written by a repeat, to wait until it is durable; one second
    bots:{NAME}:DATASET:strata         string  StrataTable; one hour, after the commit until deleted
    bots:{NAME}:DATASET:columns:CHUNK  string  TaskColumns; as the strata
    bots:{NAME}:DATASET:damaged        string  written by a server that could not read strata or columns, so that the
                                               next creation of the same content stores them again; one week
    bots:{NAME}:DATASET:runs           hash    name of the run -> RunRecord; until deleted
    bots:{NAME}:DATASET:run:RUN        hash    and with a suffix the other keys of a run: RunKeys says which

Times are milliseconds since 1970, by Redis' clock. Messages and the names in the index end with a checksum (seal.py);
what scripts make has one where stated.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from bots_server.storage.v1 import storage_pb2

DATASETS = "bots:datasets"

_KINDS = {"datasets": "set", "events": "stream", "arrivals": "list"}
_KINDS |= dict.fromkeys(("strata", "columns", "damaged", "touch"), "string")
_KINDS |= dict.fromkeys(("restores", "checkpoint_expiry", "leases", "answer_times"), "zset")


class RunKeys(NamedTuple):
    """The keys of one run. They live until it is deleted, or earlier as stated."""

    # Hash: version; nonce of its event; snapshot (newest version with one); trimmed (oldest version that can be
    # rebuilt); forgotten (arrival of the newest forgotten request id); ids (number of request ids); check (checksum of
    # these); bytes, see usage.py: written (of events and the states that they name, since the run began),
    # written_at_snapshot and written_before_base (the same at the newest snapshot, and before the oldest event),
    # snapshot_bytes, checkpoint_bytes; for listings h:FIELD, the newest value of a hyperparameter as a Hyperparameters
    # message that has this field alone. The run exists while this does.
    run: str
    # Stream: <version>-0 -> n: nonce, t: time, e: Event, c: checksum of id, n and t, b: `written` with it; the newest
    # 10,000, and back to a snapshot; fewer if they take more than history_bytes.
    events: str
    # Hash: 16 bytes of a request id -> 8 bytes of its digest, 6 of its version, 6 of its arrival, integers big-endian,
    # 8 of the checksum of all; the newest 100,000.
    requests: str
    # List: request ids (16 bytes) by arrival, newest first; as the requests.
    arrivals: str
    # Hash: version -> Snapshot: the newest, and one in 1,024 versions as far back as events.
    snapshots: str
    # Hash: uid -> Snapshot, of restores, undos and checkpoints; as long as the event or checkpoint that names it.
    states: str
    # Zset: uid of the state of a restore or undo, scored by the event's version; as the event.
    restores: str
    # Hash: name -> uid of the state (32 characters), then Checkpoint; until deleted or expired.
    checkpoints: str
    # Zset: name, scored by the time it expires; as the checkpoint.
    checkpoint_expiry: str
    # Zset: task, scored by the time its lease ends; until released, or purged by a later claim.
    leases: str
    # Hash: task -> time its lease ends, a blank, selection id; as the lease.
    owners: str
    # Hash: selection id -> a byte with the length of the holder, the holder, "i" if an incarnation was named or else
    # "-", and the leased tasks as decimals between blanks; as the last lease.
    selections: str
    # Hash: holder -> its newest 16 incarnations, newest first, 8 bytes of digest each, and a checksum.
    jobs: str
    # Hash: request id of a selection, or its selection id if a lease was asked for without one -> in MessagePack digest
    # of the request, end of the lease, taken positions, Offer, checksum of its id and the first three; and bytes: of
    # all answers.
    answers: str
    # Zset: the same ids, scored by the time until which the answer is kept: one hour by its request id, one minute by
    # its selection id, less if all answers take more than history_bytes.
    answer_times: str


class Keys:
    """Builds the keys of a store. `*` as a name gives the pattern for SCAN."""

    def __init__(self, prefix: str = "") -> None:
        self._bots = f"{prefix}bots:"
        self.datasets = f"{prefix}{DATASETS}"

    def dataset(self, name: str) -> str:
        return f"{self._bots}{{{name}}}:dataset"

    def strata(self, name: str, uid: str) -> str:
        return f"{self._bots}{{{name}}}:{uid}:strata"

    def columns(self, name: str, uid: str, chunk: int) -> str:
        return f"{self._bots}{{{name}}}:{uid}:columns:{chunk}"

    def damaged(self, name: str, uid: str) -> str:
        return f"{self._bots}{{{name}}}:{uid}:damaged"

    def runs(self, name: str, uid: str) -> str:
        return f"{self._bots}{{{name}}}:{uid}:runs"

    def content(self, record: storage_pb2.DatasetRecord) -> list[str]:
        """Returns the keys of a dataset's columns and, as the last, of its strata."""
        columns = [self.columns(record.name, record.uid, chunk) for chunk in range(record.chunks)]
        return [*columns, self.strata(record.name, record.uid)]

    def of_run(self, record: storage_pb2.RunRecord) -> RunKeys:
        return _of_run(f"{self._bots}{{{record.dataset}}}:{record.dataset_uid}:run:{record.uid}")

    def every(self, name: str) -> str:
        """Returns the pattern for SCAN of all keys of a dataset and its runs."""
        return f"{self._bots}{{{name}}}:*"


@lru_cache(maxsize=1024)  # each call asks for them several times
def _of_run(run: str) -> RunKeys:
    return RunKeys(run, *(f"{run}:{field}" for field in RunKeys._fields[1:]))


def touch(key: str) -> str:
    """Returns the key to touch in the slot of another key."""
    return f"{key[: key.index('}') + 1]}:touch"


def kind(key: str) -> str:
    """Returns the type that a key has."""
    words = key.rpartition("}:")[2].split(":")
    return next((_KINDS[word] for word in reversed(words) if word in _KINDS), "hash")


def run_uid(key: str) -> str:
    """Returns the uid of the run that a key is of; empty: of none."""
    return key.rpartition("}:")[2].partition(":run:")[2].partition(":")[0]


def incarnation(text: str) -> bytes:
    """Returns 8 bytes of the digest of a job's incarnation; empty if it is not given."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest() if text else b""
