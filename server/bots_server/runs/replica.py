"""A replica: a run's posterior in this process, folded from the newest snapshot and the events after it.

A replica is a cache. It holds nothing that cannot be rebuilt from Redis, and it never goes on from a past that Redis
has forgotten: each sync compares the nonce of the last folded event with the one that Redis has at that version, and
where they differ, or events are missing, the replica is dropped and rebuilt.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bots_server.api import messages
from bots_server.ahead import Ahead
from bots_server.core.posterior import Event, Posterior, fold_all, start
from bots_server.runs.dataset import Dataset
from bots_server.errors import Conflict, Failure, RunReplaced, VersionNotFound
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.selection import Selection, Wish
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, Sync
from bots_server.turn import TURN

log = logging.getLogger(__name__)

LEAP = 32  # events behind a snapshot from which on it is cheaper to read than they are to fold (0.2 ms each)
AT_A_TURN = 16  # events: so that no other run waits long
REBUILDS = 3  # between the reading of a snapshot and of the events after it, a newer snapshot may have trimmed them


@dataclass(frozen=True, slots=True)
class View:
    """A run at a version: its posterior, and how many tasks are leased."""

    posterior: Posterior
    live_leases: int


@dataclass(frozen=True, slots=True)
class State:
    """A posterior and the nonce of the event that made its version (empty at version 0)."""

    posterior: Posterior
    nonce: bytes


class Replica:
    """One run's newest state; safe to use from many threads."""

    def __init__(self, store: Store, metrics: Metrics, run: storage.RunRecord, dataset: Dataset) -> None:
        self.run = run
        self.dataset = dataset
        self._store, self._metrics = store, metrics
        self._lock = threading.Lock()
        self._begun = self._ended = 0  # number of the newest sync that began, and of the newest that ended
        self._failure: Failure | None = None  # how that one ended, where it failed
        self._state: State | None = None
        self._leases = 0
        self._snapshot_version = 0
        self.ahead = Ahead(self._selection)

    def view(self) -> View:
        """Returns the run as it is in Redis now. Raises RunReplaced where it is deleted.

        A selection sees every report acknowledged before it was asked (on the same Redis primary): the events are read
        after the call came in.
        """
        begun = self._begun
        with self._lock:
            if self._ended <= begun:  # else a sync that began after this call came in serves it as well, or fails it
                self._begun += 1
                self._failure = self._sync()
                self._ended = self._begun
            if self._failure is not None:
                raise self._failure
            assert self._state is not None
            return View(self._state.posterior, self._leases)

    def last_view(self) -> View | None:
        """Returns the run as it was seen last, without asking Redis; None: not yet."""
        state = self._state
        return None if state is None else View(state.posterior, self._leases)

    def at(self, version: int) -> Posterior:
        """Returns the posterior at a version of the kept history. Raises VersionNotFound."""
        for _ in range(REBUILDS):
            state, sync = self._caught_up(self._rebuilt(version), version)
            if state is None:
                continue
            if state.posterior.version == version:
                return state.posterior
            raise VersionNotFound(self.run.name, version, self._store.history.oldest(self.run), sync.version)
        raise self._unsteady()

    def snapshot_due(self) -> bool:
        """Returns whether the state that was viewed last is `snapshot_interval` events past the newest snapshot."""
        version = self._state.posterior.version if self._state else 0
        return version - self._snapshot_version >= self.run.retention.snapshot_interval

    def snapshot(self) -> bool:
        """Stores the state that was viewed last; returns whether Redis took it: only where it stands on an event that
        Redis has, and is newer than the newest."""
        state = self._state
        assert state is not None, "view() comes first"
        return self._store.history.put_snapshot(self.run, messages.snapshot_message(state.posterior, state.nonce))

    def _selection(self, posterior: Posterior, wish: Wish) -> Selection:
        return Selection(np.random.default_rng(), self.run, self.dataset, posterior, wish)

    def _sync(self) -> Failure | None:
        """Brings the state up to what Redis has now; returns why not, where that failed."""
        try:
            self._state, sync = self._synced()
        except Failure as failure:
            return failure
        self._leases, self._snapshot_version = sync.leases, sync.snapshot_version
        return None

    def _synced(self) -> tuple[State, Sync]:
        if self._state is not None:
            begin, kinds = time.perf_counter(), list[str]()
            state, sync = self._caught_up(self._state, kinds=kinds)
            if state is not None:
                self._metrics.observe_fold(self.run.dataset, self.run.name, kinds, time.perf_counter() - begin)
                return state, sync
            log.warning("run %s: what was folded here is not in Redis, lost or trimmed; rebuilding", self.run.name)
            self._metrics.rebuilt()
        for _ in range(REBUILDS):
            state, sync = self._caught_up(self._rebuilt())
            if state is not None:
                return state, sync
        raise self._unsteady()

    def _unsteady(self) -> Conflict:
        return Conflict(f"run = {self.run.name!r}: its history changed {REBUILDS} times while it was read; repeat")

    def _rebuilt(self, at_most: int | None = None) -> State:
        """Returns the newest stored state, at or below a version."""
        snapshot = self._store.history.snapshot(self.run, at_most)
        if snapshot is None:
            hyperparameters = messages.hyperparameters(self.run.hyperparameters)
            return State(start(self.dataset.tasks, hyperparameters), b"")
        return State(messages.posterior(snapshot), snapshot.nonce)

    def _caught_up(
        self, state: State, until: int | None = None, kinds: list[str] | None = None
    ) -> tuple[State | None, Sync]:
        """Folds what Redis has after a state, up to a version, and adds the events' kinds to `kinds`.

        What a newer snapshot holds is not folded but read from it. Returns None where Redis has another history.
        """
        while True:
            sync = self._store.history.sync(self.run, state.posterior.version, state.nonce)
            if not sync.exists:
                raise RunReplaced(self.run.name, self.run.uid)
            if sync.diverged:
                return None, sync
            if until is None and sync.snapshot_version - state.posterior.version > LEAP:
                newer = self._rebuilt()
                if newer.posterior.version > state.posterior.version:
                    state = newer
                    continue
            entries = [entry for entry in sync.events if until is None or entry.version <= until]
            if entries:
                try:
                    events = [messages.core_event(entry.event, self._restored) for entry in entries]
                except StateTrimmed:
                    return None, sync
                state = State(self._folded(state.posterior, events), entries[-1].nonce)
                if kinds is not None:
                    kinds += [entry.event.WhichOneof("kind") or "" for entry in entries]
            if state.posterior.version >= (sync.version if until is None else min(until, sync.version)):
                return state, sync

    def _folded(self, posterior: Posterior, events: Sequence[Event]) -> Posterior:
        for some in range(0, len(events), AT_A_TURN):
            with TURN:
                posterior = fold_all(posterior, self.dataset.tasks, events[some : some + AT_A_TURN])
        return posterior

    def _restored(self, state_uid: str) -> Posterior:
        state = self._store.checkpoints.state(self.run, state_uid)
        if state is None:
            raise StateTrimmed
        return messages.posterior(state)


class StateTrimmed(Exception):
    """The state that a restore names is gone, and so is its event."""
