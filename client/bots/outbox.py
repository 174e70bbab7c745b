"""What waits to be delivered: reports, and what must precede them if the service was away at the start.

Entries of one run form a lane. What waits in a lane is delivered in order, each entry once (its request id makes
repeats safe); an entry before which nothing waits is sent by its caller at once. A lane whose delivery fails is tried
again after a back-off; other lanes go on. The outbox is bounded: beyond the bound the oldest report is dropped, which
is logged and counted.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from bots.errors import BotsError

# A generator of its own: the program's seeds and draws are none of the client's.
_random = random.Random()  # noqa: S311

logger = logging.getLogger("bots")

MOST_ENTRIES = 10_000
MOST_BYTES = 256 << 20
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0

# "unresolved" is a report of which it is not known yet whether its numbers are row numbers or ids.
Kind = Literal["create", "resume", "report", "unresolved", "release"]
REPORTS = ("report", "unresolved")
LaneKey = tuple[str, str]  # dataset, run


@dataclass(eq=False)
class Entry:
    """One thing to deliver.

    payload     the request of the kind or JSON ("resume").
    first_sent  time.monotonic() when it was first sent.
    row         its row in the file; None: not in one.
    claimed     it is being sent.
    """

    lane: LaneKey
    kind: Kind
    payload: bytes
    first_sent: float = field(default_factory=time.monotonic)
    row: int | None = None
    claimed: bool = False


@dataclass(eq=False)
class Lane:
    """The entries of one run, oldest first."""

    entries: deque[Entry] = field(default_factory=deque)
    delivering: Entry | None = None  # by a caller that goes on with the next entry
    failures: int = 0
    due: float = 0.0
    dropped: int = 0
    retries: int = 0


class Storage:
    """Keeps nothing: an outbox in memory. `bots.outbox_file.OutboxFile` keeps entries in a file."""

    def load(self) -> list[Entry]:
        """Returns the entries that an earlier process left, oldest first."""
        return []

    def add(self, entry: Entry) -> None:
        """Keeps an entry and sets its row."""

    def remove(self, entry: Entry) -> None:
        """Forgets an entry."""

    def close(self) -> None:
        """Releases the file."""


class Outbox:
    """Safe to share among threads. `storage` is asked for at the first entry, or by `load`."""

    def __init__(self, storage: Callable[[], Storage] = Storage) -> None:
        self._lock = threading.RLock()
        self._lanes: dict[LaneKey, Lane] = {}
        self._open = storage
        self._storage: Storage | None = None
        self._entries = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._entries

    def load(self) -> bool:
        """Takes in what an earlier process left in the file; returns whether something waits."""
        with self._lock:
            if self._storage is None:
                self._storage = self._open()
                for entry in self._storage.load():
                    self._append(entry)
            return self._entries > 0

    def add(self, lane: LaneKey, kind: Kind, payload: bytes) -> Entry:
        """Keeps an entry behind the others of its lane, in the file if there is one, and returns it."""
        self.load()
        entry = Entry(lane, kind, payload)
        with self._lock:
            assert self._storage is not None
            self._storage.add(entry)
            self._append(entry)
            while self._entries > MOST_ENTRIES or self._bytes > MOST_BYTES:
                oldest = next((one for one in self._droppable() if one is not entry), None)
                if oldest is None:
                    break
                self._drop(oldest, "too many wait")
        return entry

    def pending(self, lane: LaneKey | None = None) -> int:
        """Returns the number of reports that wait, of one lane or of all."""
        with self._lock:
            lanes = self._lanes.values() if lane is None else filter(None, [self._lanes.get(lane)])
            return sum(entry.kind in REPORTS for one in lanes for entry in one.entries)

    def counts(self, lane: LaneKey) -> tuple[int, int]:
        """Returns (reports dropped, deliveries repeated) of a lane."""
        one = self._lanes.get(lane, Lane())
        return one.dropped, one.retries

    def claim(self, lane: LaneKey, entry: Entry | None = None) -> Entry | None:
        """Returns the oldest entry of a lane that waits, to be sent by the caller; None: there is none, another caller
        delivers the lane, or it is not `entry`.
        """
        with self._lock:
            one = self._lanes.get(lane)
            oldest = None if one is None or one.delivering else next((e for e in one.entries if not e.claimed), None)
            if one is None or oldest is None or (entry is not None and oldest is not entry):
                return None
            oldest.claimed = True
            one.delivering = oldest if entry is None else one.delivering
            return oldest

    def delivered(self, entry: Entry) -> None:
        """Ends a claim: the entry is done."""
        with self._lock:
            lane = self._lanes[entry.lane]
            lane.failures, lane.due = 0, 0.0
            self._unclaim(entry)
            self._remove(entry)

    def withdrawn(self, entry: Entry) -> None:
        """Ends a claim: the entry is given back to its caller."""
        with self._lock:
            self._unclaim(entry)
            self._remove(entry)

    def refused(self, entry: Entry, why: object) -> None:
        """Ends a claim: the entry will never be accepted."""
        with self._lock:
            self._unclaim(entry)
            self._drop(entry, why)

    def released(self, entry: Entry, error: BotsError | None = None) -> None:
        """Ends a claim: the entry stays. `error`: its delivery failed, and is due again after a back-off."""
        with self._lock:
            lane = self._lanes[entry.lane]
            self._unclaim(entry)
            if error is not None:
                lane.retries += 1
                backoff = min(FIRST_BACKOFF_SECONDS * 2 ** min(lane.failures, 10), LONGEST_BACKOFF_SECONDS)
                lane.failures += 1
                backoff = max(backoff * _random.uniform(0.5, 1), error.retry_seconds or 0.0)
                lane.due = time.monotonic() + backoff

    def waits(self, lane: LaneKey) -> bool:
        """Returns whether something waits in a lane."""
        return lane in self.lanes()

    def lanes(self) -> list[LaneKey]:
        """Returns the lanes with entries that nobody is delivering."""
        with self._lock:
            return [
                key
                for key, lane in self._lanes.items()
                if not lane.delivering and not all(entry.claimed for entry in lane.entries)
            ]

    def due_in(self, lane: LaneKey) -> float:
        """Returns the seconds until a lane should be delivered."""
        return max(0.0, self._lanes[lane].due - time.monotonic())

    def close(self) -> None:
        """Releases the file; what waits stays in it."""
        with self._lock:
            if self._storage is not None:
                self._storage.close()

    def _append(self, entry: Entry) -> None:
        self._lanes.setdefault(entry.lane, Lane()).entries.append(entry)
        self._entries += 1
        self._bytes += len(entry.payload)

    def _unclaim(self, entry: Entry) -> None:
        lane = self._lanes[entry.lane]
        entry.claimed = False
        if lane.delivering is entry:
            lane.delivering = None

    def _remove(self, entry: Entry) -> None:
        assert self._storage is not None
        self._lanes[entry.lane].entries.remove(entry)
        self._entries -= 1
        self._bytes -= len(entry.payload)
        self._storage.remove(entry)

    def _droppable(self) -> list[Entry]:
        """Returns the oldest report of each lane that is not being delivered, oldest first."""
        oldest = []
        for lane in self._lanes.values():
            waiting = (entry for entry in lane.entries if not entry.claimed and entry.kind in REPORTS)
            oldest += [entry for entry in [next(waiting, None)] if entry is not None]
        return sorted(oldest, key=lambda entry: entry.first_sent)

    def _drop(self, entry: Entry, why: object) -> None:
        self._remove(entry)
        if entry.kind in REPORTS:
            self._lanes[entry.lane].dropped += 1
        logger.warning("run %s/%s: a %s that waited is dropped: %s", *entry.lane, entry.kind, why)
