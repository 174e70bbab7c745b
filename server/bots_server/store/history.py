"""The history of a run: a stream of events, and snapshots of the state along it."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

from bots_server.errors import (
    InvalidField,
    RequestIdReused,
    RequestTooOld,
    RunReplaced,
    VersionMismatch,
    VersionNotFound,
)
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys
from bots_server.store.database import Database

_PAGE_EVENTS = 1024
_PAGE_BYTES = 1 << 20
_LIST_BYTES = 4 << 20
_AHEAD_SECONDS = 300  # that the clock of who makes request ids may be ahead of Redis'


@dataclass(frozen=True, slots=True)
class StoredEvent:
    version: int  # that this event made, 1, 2, 3, ...
    nonce: bytes  # random, 8 bytes: tells this event from another one that once had the version
    event: storage_pb2.Event


@dataclass(frozen=True, slots=True)
class Sync:
    """What a server has to know before it answers from its replica."""

    exists: bool  # False: the run is deleted; the rest is empty
    diverged: bool  # what the server has folded is not Redis' history (any more): drop the replica, load a snapshot
    version: int  # the newest
    events: list[StoredEvent]  # after the known version, oldest first; a page: ask again until `version` is reached
    snapshot_version: int  # of the newest snapshot; 0: none but the start
    leases: int  # tasks under a live lease


@dataclass(frozen=True, slots=True)
class Appended:
    version: int  # that the event made (a repeat: that it made the first time)
    repeated: bool  # the request_id was seen before; nothing was changed
    snapshot_version: int  # of the newest snapshot
    released: int  # leases that ended with it


@dataclass(frozen=True, slots=True)
class Page:
    events: list[StoredEvent]  # oldest first
    version: int  # of the run; there is more where the last event is below it


class History:
    def __init__(self, database: Database) -> None:
        self._database = database

    def sync(self, run: storage_pb2.RunRecord, version: int, nonce: bytes) -> Sync:
        """Returns what came after the event `version` with its `nonce` (0 and b"": the start), in one round trip.

        A selection sees every report acknowledged before it was asked (on the same Redis primary): it syncs first. A
        page ends with its 1,024th event, or with the one that makes it 1 MiB, or some few after that; where the server
        is up to date, no event travels. A replica, which may be behind, is StoreUnavailable.
        """
        key = keys.of_run(run)
        answer = self._database.run(
            "sync", [key.run, key.events, key.leases], [version, nonce, _PAGE_EVENTS, _PAGE_BYTES]
        )
        if not answer:
            return Sync(exists=False, diverged=False, version=0, events=[], snapshot_version=0, leases=0)
        diverged, newest, snapshot_version, leases, flat = answer
        events = [
            StoredEvent(version + 1 + i, flat[2 * i], storage_pb2.Event.FromString(flat[2 * i + 1]))
            for i in range(len(flat) // 2)
        ]
        return Sync(True, bool(diverged), newest, events, snapshot_version, leases)

    def append(
        self,
        run: storage_pb2.RunRecord,
        event: storage_pb2.Event,
        *,
        request_id: str,
        digest: bytes,
        selection_id: str = "",
        complete: bool = True,
        expected_version: int | None = None,
        state: storage_pb2.Snapshot | None = None,
    ) -> Appended:
        """Adds an event, and releases what it completes, in one transition.

        An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers
        agree on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to
        know.

        `request_id`: a UUIDv7 in text form, never empty (the service makes one where the message has none). `digest`:
        of the content, at least 8 bytes, so that an id used for something else is seen. `state`: with a `restored`
        event alone, what it goes back to; it is kept under `event.restored.state_uid` as long as the event.

        Raises RunReplaced, RequestIdReused, RequestTooOld, InvalidField where the id's time is more than 300 s ahead,
        VersionMismatch, NotDurable.
        """
        key = keys.of_run(run)
        status, *versions = self._database.store(
            "append",
            [
                key.run,
                key.events,
                key.requests,
                key.leases,
                key.owners,
                key.selections,
                key.states,
                key.restores,
            ],
            [
                uuid.UUID(request_id).bytes,
                digest[:8],
                secrets.token_bytes(8),
                event.SerializeToString(),
                selection_id if complete else "",
                "" if expected_version is None else expected_version,
                run.retention.request_memory,
                "" if state is None else event.restored.state_uid,
                b"" if state is None else state.SerializeToString(),
                _AHEAD_SECONDS * 1000,
            ],
        )
        if status == b"gone":
            raise RunReplaced(run.name, run.uid)
        version, snapshot_version, *released = versions
        if status == b"reused":
            raise RequestIdReused(request_id)
        if status == b"old":
            raise RequestTooOld(request_id)
        if status == b"ahead":
            raise InvalidField(
                "request_id", request_id, f"must not be more than {_AHEAD_SECONDS} s ahead of Redis' clock"
            )
        if status == b"mismatch":
            raise VersionMismatch(expected_version or 0, version)
        if status == b"repeated":
            self._database.settle(run.dataset)
        return Appended(version, status == b"repeated", snapshot_version, sum(released))

    def snapshot(self, run: storage_pb2.RunRecord, at_most: int | None = None) -> storage_pb2.Snapshot | None:
        """Returns the newest snapshot, of version `at_most` or below; None: start at the prior.

        Raises VersionNotFound where that is trimmed away, RunReplaced.
        """
        status, value, oldest, newest = self._snapshot(run, at_most)
        if status == b"trimmed":
            raise VersionNotFound(run.name, at_most or 0, oldest, newest)
        return storage_pb2.Snapshot.FromString(value) if status == b"found" else None

    def put_snapshot(self, run: storage_pb2.RunRecord, snapshot: storage_pb2.Snapshot) -> bool:
        """Keeps a snapshot and trims what is not needed any more, in one transition. Returns whether it is kept: only
        where the event of its version has its nonce, and only a newer one than the newest (or that one again)."""
        key = keys.of_run(run)
        kept = self._database.run(
            "put_snapshot",
            [key.run, key.events, key.snapshots, key.snapshot_versions, key.states, key.restores],
            [
                snapshot.version,
                snapshot.nonce,
                snapshot.SerializeToString(),
                run.retention.history,
                run.retention.history_stride,
            ],
        )
        return bool(kept)

    def events(self, run: storage_pb2.RunRecord, after: int, limit: int) -> Page:
        """Returns at most `limit` events above version `after`, oldest first; fewer where they are more than 4 MiB,
        but one at least. Raises RunReplaced."""
        key = keys.of_run(run)
        events: list[StoredEvent] = []
        size = 0
        while True:  # the history only grows at its end
            count = min(_PAGE_EVENTS, limit - len(events))
            answer = self._database.run("events", [key.run, key.events], [after, count, size, _LIST_BYTES])
            if not answer:
                raise RunReplaced(run.name, run.uid)
            version, flat = answer
            for entry_id, nonce, event in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
                after = int(entry_id.partition(b"-")[0])
                size += len(event)
                events.append(StoredEvent(after, nonce, storage_pb2.Event.FromString(event)))
            if len(flat) < 3 * count or len(events) == limit:
                return Page(events, max(version, after))

    def oldest(self, run: storage_pb2.RunRecord) -> int:
        """Returns the oldest version whose state can be rebuilt. Raises RunReplaced."""
        oldest: int = self._snapshot(run, 0)[2]
        return oldest

    def _snapshot(self, run: storage_pb2.RunRecord, at_most: int | None) -> tuple[bytes, bytes, int, int]:
        key = keys.of_run(run)
        answer = self._database.run(
            "snapshot",
            [key.run, key.snapshots, key.snapshot_versions],
            ["+inf" if at_most is None else at_most],
        )
        if answer[0] == b"gone":
            raise RunReplaced(run.name, run.uid)
        status, value, oldest, newest = answer
        return status, value, oldest, newest
