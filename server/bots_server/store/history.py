"""The history of a run: a stream of events, and snapshots of the state along it."""

from __future__ import annotations

from dataclasses import dataclass

from bots_server.storage.v1 import storage_pb2
from bots_server.store.scripts import Scripts


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


@dataclass(frozen=True, slots=True)
class Page:
    events: list[StoredEvent]  # oldest first
    version: int  # of the run; there is more where the last event is below it


class History:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    def sync(self, run: storage_pb2.RunRecord, version: int, nonce: bytes) -> Sync:
        """Returns what came after the event `version` with its `nonce` (0 and b"": the start), in one round trip.

        A selection sees every report acknowledged before it was asked (on the same Redis primary): it syncs first. A
        page holds at most 1,024 events and, but for its last event, 1 MiB; where the server is up to date, no event
        travels.
        """
        raise NotImplementedError

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

        Raises RunReplaced, RequestIdReused, RequestTooOld, VersionMismatch, NotDurable.
        """
        raise NotImplementedError

    def snapshot(self, run: storage_pb2.RunRecord, at_most: int | None = None) -> storage_pb2.Snapshot | None:
        """Returns the newest snapshot, of version `at_most` or below; None: there is none before the start at the
        prior.

        Raises VersionNotFound where that is trimmed away, RunReplaced.
        """
        raise NotImplementedError

    def put_snapshot(self, run: storage_pb2.RunRecord, snapshot: storage_pb2.Snapshot) -> bool:
        """Keeps a snapshot and trims what is not needed any more, in one transition. Returns whether it was accepted:
        only where the event of its version has its nonce, and only a newer one than the newest (or that one again)."""
        raise NotImplementedError

    def events(self, run: storage_pb2.RunRecord, after: int, limit: int) -> Page:
        """Returns at most `limit` events above version `after`, and not much more than 4 MiB of them. Raises
        RunReplaced."""
        raise NotImplementedError

    def oldest(self, run: storage_pb2.RunRecord) -> int:
        """Returns the oldest version whose state can be rebuilt."""
        raise NotImplementedError
