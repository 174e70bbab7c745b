"""The history of a run: a stream of events, and snapshots of the state along it."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from bots_server.errors import (
    RequestIdReused,
    RequestTooOld,
    RunDamaged,
    RunReplaced,
    VersionMismatch,
    VersionNotFound,
)
from bots_server.storage.v1 import storage_pb2
from bots_server.store import reader
from bots_server.store.database import Database
from bots_server.store.seal import checksum, seal, unseal

log = logging.getLogger(__name__)

SNAPSHOT_EVENTS = 256  # events after the newest snapshot at which the next one is due
HISTORY_EVENTS = 10_000  # newest events that are kept
HISTORY_STRIDE = 1_024  # versions between the snapshots that are kept along the history
REQUEST_IDS = 100_000  # newest request ids that are remembered
HISTORY_BYTES = 64 << 20  # default of the bytes that are kept behind the newest snapshot, and of a run's answers
UNSAVED_SHARE = 0.25  # of history_bytes, written since the newest snapshot, at which the next one is due

_PAGE_EVENTS = 1024
_PAGE_BYTES = 1 << 20
_LIST_BYTES = 2**16  # a page takes some 5 ms to make, in which other calls wait
_DIGEST_BYTES = 8
_IDS_LOST = "lacked request ids: whether this call was applied is not known, and the next calls are accepted"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    version: int  # of the run after this event: 1, 2, 3, ...
    nonce: bytes  # 8 random bytes: tells this event from another one that once had the version
    time_ms: int  # by Redis' clock
    event: storage_pb2.Event


@dataclass(frozen=True, slots=True)
class Sync:
    """What a server must know before it answers from its replica."""

    diverged: bool  # the events that the server has folded are not Redis' history: rebuild from a snapshot
    version: int  # the newest
    events: list[StoredEvent]  # after the known version, oldest first; a page: ask again until `version` is reached
    snapshot_version: int  # of the newest snapshot; 0: none but the start
    leases: int  # tasks with a lease, also one that is over and not purged yet
    live_leases: int  # tasks under a live lease


@dataclass(frozen=True, slots=True)
class Appended:
    version: int  # of the run after the event; of a repeat: after the first time
    repeated: bool  # the request id was seen before; nothing was changed
    snapshot_version: int  # of the newest snapshot
    snapshot_due: bool
    released: int  # live leases that ended with the event


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
        the server is up to date, no event travels. Raises RunReplaced, RunDamaged, and StoreUnavailable if a replica
        answers, which may be behind.
        """
        key = self._database.keys.of_run(run)
        answer = self._database.run(
            "sync", [key.run, key.events, key.leases, key.owners], [version, nonce, _PAGE_EVENTS, _PAGE_BYTES]
        )
        if not answer:
            raise gone(self._database, run)
        diverged, newest, snapshot_version, leases, live, entries = answer
        events = [_event(key.events, version + 1 + i, words) for i, words in enumerate(entries)]
        return Sync(bool(diverged), newest, events, snapshot_version, leases, live)

    def append(
        self,
        run: storage_pb2.RunRecord,
        event: storage_pb2.Event,
        *,
        request_id: str,
        digest: bytes,
        request_age_ms: int = 0,
        expected_version: int | None = None,
        state: storage_pb2.Snapshot | None = None,
    ) -> Appended:
        """Adds an event in one transition (guarantee 1).

        A report ends the leases that its selection has on the tasks reported, a restore all leases.

        `request_id`: a UUID in text form. `digest`: of the content, at least 8 bytes, so that an id that was used for
        other content is recognised. `request_age_ms`: since the caller first sent the id. `state`: what a `restored`
        or `undone` event goes on from, kept under the `state_uid` of the event as long as the event.

        Raises RunReplaced, RequestIdReused, RequestTooOld, VersionMismatch, NotDurable.
        """
        key = self._database.keys.of_run(run)
        nonce, state_uid = secrets.token_bytes(8), event.restored.state_uid or event.undone.state_uid
        report = event.report if event.report.selection_id else storage_pb2.Report()
        of_leases = key.leases, key.owners, key.selections
        status, *versions = self._database.run_durably(
            "append",
            [key.run, key.events, key.requests, key.arrivals, *of_leases, key.states, key.restores],
            [
                _id_bytes(request_id),
                digest[:_DIGEST_BYTES],
                request_age_ms,
                "" if expected_version is None else expected_version,
                REQUEST_IDS,
                nonce,
                seal(event.SerializeToString(), nonce),
                state_uid,
                b"" if state is None else seal(state.SerializeToString(), state_uid),
                "*" if event.HasField("restored") else report.selection_id,
                " ".join(map(str, report.tasks)),
                *_listed(event, state),
            ],
        )
        if status == b"gone":
            raise gone(self._database, run)
        version, snapshot_version, released, unsaved = versions
        if status == b"lost":
            raise RunDamaged(key.requests, _IDS_LOST)
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
        key = self._database.keys.of_run(run)
        field = _id_bytes(request_id)
        seen = self._database.command_durably("HGET", key.requests, field)
        if seen is None:
            return None
        if seen[20:] != checksum(field, seen[:20]):
            return None  # `append` decides
        if seen[:_DIGEST_BYTES] != digest[:_DIGEST_BYTES]:
            raise RequestIdReused(request_id)
        snapshot_version = int(self._database.command("HGET", key.run, "snapshot") or 0)
        return Appended(int.from_bytes(seen[8:14], "big"), True, snapshot_version, snapshot_due=False, released=0)

    def snapshot(self, run: storage_pb2.RunRecord, at_most: int | None = None) -> storage_pb2.Snapshot | None:
        """Returns the newest snapshot that can be used, of version `at_most` or below; None: start at the prior.

        A damaged one is passed over, because the events after the one before give the same state. Raises
        VersionNotFound if that version is trimmed, RunDamaged if none is left, RunReplaced, ServerTooOld.
        """
        key, damage = self._database.keys.of_run(run).snapshots, None
        while True:  # once for each kept snapshot, of which there are at most a dozen or two
            status, at, value, oldest, newest = self._snapshot(run, at_most)
            if status == b"trimmed":
                raise damage or VersionNotFound(run.name, at_most or 0, oldest, newest)
            if status == b"start":
                if oldest > 0 or run.HasField("forked_from"):
                    raise damage or RunDamaged(key, f"lacks version {oldest}")
                return None
            try:
                return reader.snapshot(run, key, str(at), value)
            except RunDamaged as error:
                log.warning("%s", error)
                damage, at_most = error, at - 1
                if at == 0:
                    raise

    def put_snapshot(
        self, run: storage_pb2.RunRecord, snapshot: storage_pb2.Snapshot, events: int | None = None
    ) -> bool:
        """Keeps a snapshot and trims the history that is not needed any more, in one transition.

        events: how many are kept behind the newest; None: HISTORY_EVENTS

        Returns whether it is kept: the event of its version must have its nonce, and no kept snapshot may be newer.
        """
        key = self._database.keys.of_run(run)
        kept = self._database.run(
            "put_snapshot",
            [key.run, key.events, key.snapshots, key.states, key.restores],
            [
                snapshot.version,
                snapshot.nonce,
                seal(snapshot.SerializeToString(), str(snapshot.version)),
                HISTORY_EVENTS if events is None else events,
                HISTORY_STRIDE,
                self._most_bytes,
            ],
        )
        return bool(kept)

    def events(self, run: storage_pb2.RunRecord, after: int, limit: int) -> Page:
        """Returns at most `limit` events above version `after`, oldest first, in at most 64 KiB but at least one.

        Raises RunReplaced.
        """
        key = self._database.keys.of_run(run)
        events: list[StoredEvent] = []
        size = 0
        while True:  # at most limit / 1,024 times: each page but the last is full
            count = min(_PAGE_EVENTS, limit - len(events))
            answer = self._database.run("events", [key.run, key.events], [after, count, size, _LIST_BYTES])
            if not answer:
                raise gone(self._database, run)
            version, flat = answer
            for entry_id, words in zip(flat[::2], flat[1::2], strict=True):
                after = int(entry_id.partition(b"-")[0])
                events.append(_event(key.events, after, words))
                size += len(words[5])
            if len(flat) < 2 * count or len(events) == limit:
                return Page(events, max(version, after))

    def oldest(self, run: storage_pb2.RunRecord) -> int:
        """Returns the oldest version whose state can be rebuilt. Raises RunReplaced."""
        oldest: int = self._snapshot(run, 0)[3]
        return oldest

    def _snapshot(self, run: storage_pb2.RunRecord, at_most: int | None) -> tuple[bytes, int, bytes, int, int]:
        key = self._database.keys.of_run(run)
        answer = self._database.run("snapshot", [key.run, key.snapshots], ["inf" if at_most is None else at_most])
        if answer[0] == b"gone":
            raise gone(self._database, run)
        status, at, value, oldest, newest = answer
        return status, at, value, oldest, newest


def gone(database: Database, run: storage_pb2.RunRecord) -> RunReplaced | RunDamaged:
    """Returns why a run has no head: it is deleted, or the head is lost."""
    keys = database.keys
    of_dataset, key = keys.runs(run.dataset, run.dataset_uid), keys.of_run(run).run
    listed = run.uid.encode() in (database.command("HGET", of_dataset, run.name) or b"")
    if listed and not database.command("EXISTS", key):
        return RunDamaged(key, "is missing")
    return RunReplaced(run.name, run.uid)


def _id_bytes(request_id: str) -> bytes:
    """Returns a request id, a UUID, as it is stored."""
    return bytes.fromhex(request_id.replace("-", ""))


def _event(key: str, version: int, words: list[bytes]) -> StoredEvent:
    """Returns the event of a stream's entry. Raises RunDamaged."""
    match words:
        case b"n", nonce, b"t", time, b"e", event, b"c", check, *_ if check == checksum(f"{version}-0", nonce, time):
            message = storage_pb2.Event.FromString(unseal(event, nonce, key))
            return StoredEvent(version, nonce, int(time), message)
    raise RunDamaged(key, f"has a wrong checksum at {version}-0")


def _listed(event: storage_pb2.Event, state: storage_pb2.Snapshot | None) -> list[str | bytes]:
    """Returns fields of the run's hash and their values: the hyperparameters that the event sets, one a field.

    Each value is a message, so that a listing joins them. One a field, because events of other servers may come in
    between, of which this one does not know.
    """
    changed = event.hyperparameters_changed.hyperparameters if state is None else state.hyperparameters
    words: list[str | bytes] = []
    for field, value in changed.ListFields():
        message = storage_pb2.Hyperparameters(**{field.name: value})
        words += [f"h:{field.name}", seal(message.SerializeToString(), f"h:{field.name}")]
    return words
