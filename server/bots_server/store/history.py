"""The history of a run: a stream of events, and snapshots of the state along it."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

from bots_server.errors import RequestIdReused, RequestTooOld, RunReplaced, VersionMismatch, VersionNotFound
from bots_server.storage.v1 import storage_pb2
from bots_server.store import keys, reader
from bots_server.store.database import Database

SNAPSHOT_EVENTS = 256  # events after the newest snapshot at which the next one is due
HISTORY_EVENTS = 10_000  # newest events that are kept
HISTORY_STRIDE = 1_024  # versions between the snapshots that are kept along the history
REQUEST_IDS = 100_000  # newest request ids that are remembered
HISTORY_BYTES = 64 << 20  # default of the bytes that are kept behind the newest snapshot, and of a run's answers
UNSAVED_SHARE = 0.25  # of history_bytes, written since the newest snapshot, at which the next one is due

_PAGE_EVENTS = 1024
_PAGE_BYTES = 1 << 20
_LIST_BYTES = 4 << 20
_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class StoredEvent:
    version: int  # of the run after this event: 1, 2, 3, ...
    nonce: bytes  # 8 random bytes: tells this event from another one that once had the version
    time_ms: int  # by Redis' clock
    event: storage_pb2.Event


@dataclass(frozen=True, slots=True)
class Sync:
    """What a server must know before it answers from its replica."""

    exists: bool  # False: the run is deleted; the other fields are empty
    diverged: bool  # the events that the server has folded are not Redis' history: rebuild from a snapshot
    version: int  # the newest
    events: list[StoredEvent]  # after the known version, oldest first; a page: ask again until `version` is reached
    snapshot_version: int  # of the newest snapshot; 0: none but the start
    leases: int  # tasks under a live lease


@dataclass(frozen=True, slots=True)
class Appended:
    version: int  # of the run after the event; of a repeat: after the first time
    repeated: bool  # the request id was seen before; nothing was changed
    snapshot_version: int  # of the newest snapshot
    snapshot_due: bool
    released: int  # live leases that ended with the report


@dataclass(frozen=True, slots=True)
class Page:
    events: list[StoredEvent]  # oldest first
    version: int  # of the run; there are more events if the last one is below it


class History:
    def __init__(self, database: Database, history_bytes: int) -> None:
        self._database, self._most_bytes = database, history_bytes

    def sync(self, run: storage_pb2.RunRecord, version: int, nonce: bytes) -> Sync:
        """Returns what follows the event of `version` with its `nonce` (0 and b"": the start), in one round trip.

        A selection syncs first (guarantee 2). A page ends after 1,024 events or 1 MiB, or up to seven events later; if
        the server is up to date, no event travels. Raises StoreUnavailable if a replica answers, which may be behind.
        """
        key = keys.of_run(run)
        answer = self._database.run(
            "sync", [key.run, key.events, key.leases], [version, nonce, _PAGE_EVENTS, _PAGE_BYTES]
        )
        if not answer:
            return Sync(exists=False, diverged=False, version=0, events=[], snapshot_version=0, leases=0)
        diverged, newest, snapshot_version, leases, flat = answer
        events = [
            StoredEvent(version + 1 + i, flat[3 * i], int(flat[3 * i + 1]), _event(flat[3 * i + 2]))
            for i in range(len(flat) // 3)
        ]
        return Sync(True, bool(diverged), newest, events, snapshot_version, leases)

    def append(
        self,
        run: storage_pb2.RunRecord,
        event: storage_pb2.Event,
        *,
        request_id: str,
        digest: bytes,
        request_age_ms: int = 0,
        incarnation: str = "",
        expected_version: int | None = None,
        state: storage_pb2.Snapshot | None = None,
    ) -> Appended:
        """Adds an event in one transition (guarantee 1).

        A report ends the leases that its selection has on the tasks reported. With an `incarnation` and a job, the
        leases of the job's earlier incarnations end.

        `request_id`: a UUID in text form. `digest`: of the content, at least 8 bytes, so that an id that was used for
        other content is recognised. `request_age_ms`: since the caller first sent the id. `state`: what a `restored`
        event goes back to, kept under `event.restored.state_uid` as long as the event.

        Raises RunReplaced, RequestIdReused, RequestTooOld, VersionMismatch, NotDurable.
        """
        key = keys.of_run(run)
        report = event.report if event.report.selection_id else storage_pb2.Report()
        status, *versions = self._database.run_durably(
            "append",
            [
                key.run,
                key.events,
                key.requests,
                key.arrivals,
                key.leases,
                key.owners,
                key.selections,
                key.jobs,
                key.states,
                key.restores,
            ],
            [
                uuid.UUID(request_id).bytes,
                digest[:_DIGEST_BYTES],
                request_age_ms,
                "" if expected_version is None else expected_version,
                REQUEST_IDS,
                secrets.token_bytes(8),
                event.SerializeToString(),
                "" if state is None else event.restored.state_uid,
                b"" if state is None else state.SerializeToString(),
                keys.incarnation(event.job, incarnation),
                report.selection_id,
                " ".join(map(str, report.tasks)),
                *_listed(event, state),
            ],
        )
        if status == b"gone":
            raise RunReplaced(run.name, run.uid)
        version, snapshot_version, released, unsaved = versions
        if status == b"reused":
            raise RequestIdReused(request_id)
        if status == b"old":
            raise RequestTooOld(request_id)
        if status == b"mismatch":
            raise VersionMismatch(expected_version or 0, version)
        due = version - snapshot_version >= SNAPSHOT_EVENTS or unsaved > UNSAVED_SHARE * self._most_bytes
        return Appended(version, status == b"repeated", snapshot_version, due, released)

    def repeated(self, run: storage_pb2.RunRecord, request_id: str, digest: bytes) -> Appended | None:
        """Returns the first answer to a request id; None if the id is not known.

        For a call that looks something up before it appends: the repeat must not depend on what has been deleted since.
        `append` still decides. Raises RequestIdReused, NotDurable.
        """
        key = keys.of_run(run)
        seen = self._database.command_durably("HGET", key.requests, uuid.UUID(request_id).bytes)
        if seen is None:
            return None
        if seen[:_DIGEST_BYTES] != digest[:_DIGEST_BYTES]:
            raise RequestIdReused(request_id)
        snapshot_version = int(self._database.command("HGET", key.run, "snapshot") or 0)
        return Appended(int.from_bytes(seen[8:14], "big"), True, snapshot_version, snapshot_due=False, released=0)

    def snapshot(self, run: storage_pb2.RunRecord, at_most: int | None = None) -> storage_pb2.Snapshot | None:
        """Returns the newest snapshot, of version `at_most` or below; None: start at the prior.

        Raises VersionNotFound if that version is trimmed, RunReplaced, ServerTooOld.
        """
        status, value, oldest, newest = self._snapshot(run, at_most)
        if status == b"trimmed":
            raise VersionNotFound(run.name, at_most or 0, oldest, newest)
        return reader.snapshot(run, value) if status == b"found" else None

    def put_snapshot(self, run: storage_pb2.RunRecord, snapshot: storage_pb2.Snapshot) -> bool:
        """Keeps a snapshot and trims the history that is not needed any more, in one transition.

        Returns whether it is kept: the event of its version must have its nonce, and no kept snapshot may be newer.
        """
        key = keys.of_run(run)
        kept = self._database.run(
            "put_snapshot",
            [key.run, key.events, key.snapshots, key.snapshot_versions, key.states, key.restores],
            [
                snapshot.version,
                snapshot.nonce,
                snapshot.SerializeToString(),
                HISTORY_EVENTS,
                HISTORY_STRIDE,
                self._most_bytes,
            ],
        )
        return bool(kept)

    def events(self, run: storage_pb2.RunRecord, after: int, limit: int) -> Page:
        """Returns at most `limit` events above version `after`, oldest first, in at most 4 MiB but at least one.

        Raises RunReplaced.
        """
        key = keys.of_run(run)
        events: list[StoredEvent] = []
        size = 0
        while True:  # at most limit / 1,024 times: each page but the last is full
            count = min(_PAGE_EVENTS, limit - len(events))
            answer = self._database.run("events", [key.run, key.events], [after, count, size, _LIST_BYTES])
            if not answer:
                raise RunReplaced(run.name, run.uid)
            version, flat = answer
            for entry_id, nonce, time_ms, event in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True):
                after = int(entry_id.partition(b"-")[0])
                size += len(event)
                events.append(StoredEvent(after, nonce, int(time_ms), _event(event)))
            if len(flat) < 4 * count or len(events) == limit:
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


def _event(value: bytes) -> storage_pb2.Event:
    return storage_pb2.Event.FromString(value)


def _listed(event: storage_pb2.Event, state: storage_pb2.Snapshot | None) -> list[str | bytes]:
    """Returns fields of the run's hash and their values: the hyperparameters that the event sets, one a field.

    Each value is a message, so that a listing joins them. One a field, because events of other servers may come in
    between, of which this one does not know.
    """
    changed = event.hyperparameters_changed.hyperparameters if state is None else state.hyperparameters
    words: list[str | bytes] = []
    for field, value in changed.ListFields():
        words += [f"h:{field.name}", storage_pb2.Hyperparameters(**{field.name: value}).SerializeToString()]
    return words
