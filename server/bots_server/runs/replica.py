"""A replica: a run's posterior in this process, folded from the newest snapshot and the events after it.

A replica is a cache. Each sync compares the nonce of the last folded event with the one that Redis has at that version;
if they differ, or events are missing, the replica is rebuilt from what Redis has.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from bots_server.core.draw import SelectionSpec
from bots_server.core.posterior import Event, Posterior, Report, fold_all, start
from bots_server.core.summary import Summary, summarise
from bots_server.errors import Conflict, Damaged, DeadlineExceeded, Failure, RunDamaged, ServerStopping, VersionNotFound
from bots_server.runs.dataset import Dataset, DatasetCache, array_bytes
from bots_server.runs.prefetch import Prefetch
from bots_server.runs.selection import Drawn, computing
from bots_server.runs.turn import off_turn
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, StoredEvent, Sync, codec, remaining
from bots_server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LEAP_EVENTS = 32  # if a newer snapshot is further ahead than this, it is read instead of folding the events before it
PIECE_EVENTS = 16  # folded at once, so that other runs need not wait for a long history
MANY_OUTCOMES = 8_192  # from here on a fold takes milliseconds
REBUILDS = 3  # between reading a snapshot and the events after it, a newer snapshot may have trimmed them


@dataclass(frozen=True, slots=True)
class View:
    """A run at a version: its posterior, and how many tasks have a lease that is alive, or any."""

    posterior: Posterior
    live_leases: int
    leases: int


@dataclass(frozen=True, slots=True)
class State:
    """A posterior and the nonce of the event that made its version (empty at version 0)."""

    posterior: Posterior
    nonce: bytes


class Diverged(Conflict):
    """Redis has another history than was folded, or no longer has the events after it."""

    def __init__(self, run: str) -> None:
        super().__init__(f"run {run!r}: its history changed while it was read; repeat")


class Replica:
    """One run: its record, its dataset and its newest state. Safe to use from many threads."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        datasets: DatasetCache,
        record: storage.RunRecord,
        closing: threading.Event,
    ) -> None:
        """closing: set when the server ends, so that syncs end with ServerStopping after the events being folded"""
        self.record = record
        self._store, self._metrics, self._datasets, self._closing = store, metrics, datasets, closing
        self._lock = threading.Lock()
        self._dataset: Dataset | None = None
        self._begun = self._ended = 0  # number of the newest sync that began, and of the newest that ended
        self._failure: Failure | None = None  # of the newest sync that ended
        self._state: State | None = None
        self._leases = 0, 0  # live ones, and all
        self._snapshot_version = 0
        self._summary: tuple[Posterior, Summary] | None = None
        self._bytes: tuple[Posterior | None, int] = (None, 0)
        self._prefetch = Prefetch()

    @property
    def dataset(self) -> Dataset:
        """Returns the run's dataset; loads it at first. Raises DatasetNotFound if it is deleted."""
        if self._dataset is None:
            self._dataset = self._datasets.get(self.record.dataset, self.record.dataset_uid)
        return self._dataset

    def view(self) -> View:
        """Returns the run as it is in Redis now (guarantee 2). Raises RunReplaced if it is deleted.

        A sync serves, or fails, all callers that came before it began.
        """
        with off_turn():
            return self._view()

    def _view(self) -> View:
        begun, timeout = self._begun, remaining()
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise DeadlineExceeded
        try:
            if self._ended <= begun:
                self._begun = number = self._begun + 1
                self._failure = self._sync()
                self._ended = number
            if self._failure is not None:
                raise self._failure.again()
            assert self._state is not None
            return View(self._state.posterior, *self._leases)
        finally:
            self._lock.release()

    def catch_up(self) -> None:
        """Folds what is in Redis if it can, in the turn of the call in progress."""
        with suppress(Failure):  # nothing is lost: the next call does the same
            self._view()

    def last_view(self) -> View | None:
        """Returns the run as it was seen last, without asking Redis; None: it was not seen yet."""
        state = self._state
        return None if state is None else View(state.posterior, *self._leases)

    @property
    def damaged(self) -> bool:
        """Returns whether the newest sync found the run or its dataset damaged."""
        return isinstance(self._failure, Damaged)

    def summary(self, posterior: Posterior) -> Summary:
        """Returns the summary of one of the run's posteriors; that of the newest is kept."""
        known = self._summary
        if known is None or known[0] is not posterior:
            self._summary = known = posterior, summarise(posterior, self.dataset.tasks)
        return known[1]

    def at(self, version: int) -> Posterior:
        """Returns the posterior at a version of the kept history. Raises VersionNotFound."""
        for _ in range(REBUILDS):
            try:
                *_, (state, sync) = self._following(self.stored(version), version)
            except Diverged:
                continue
            if state.posterior.version == version:
                return state.posterior
            raise VersionNotFound(self.record.name, version, self._store.history.oldest(self.record), sync.version)
        raise Diverged(self.record.name)

    def stored(self, at_most: int | None = None) -> State:
        """Returns the newest stored state, at or below a version."""
        snapshot = self._store.history.snapshot(self.record, at_most)
        tasks = self.dataset.tasks
        if snapshot is None:
            return State(self._start(), b"")
        return State(codec.posterior(snapshot, tasks), snapshot.nonce)

    def core_event(self, stored: StoredEvent) -> Event:
        """Returns a stored event as the fold takes it. Raises Diverged if the state that it names is trimmed."""

        def state(uid: str) -> Posterior:
            kept = self._store.checkpoints.state(self.record, uid, stored.version)
            if kept is None:
                raise Diverged(self.record.name)
            return codec.posterior(kept, self.dataset.tasks)

        return codec.core_event(stored, state)

    def snapshot(self, newest: int) -> bool:
        """Stores the newest state unless there is a snapshot above version `newest`; returns whether Redis took it.

        Redis takes a snapshot only of an event that it has, and only one that is newer than its newest.
        """
        self.view()
        return self._snapshot_version <= newest and self._put_snapshot()

    def recover(self, restored_version: int) -> None:
        """Makes a restore the beginning of the kept history if something that is stored before it is damaged."""
        try:
            self.view()
            return
        except RunDamaged as damage:
            log.warning("run %s: its history begins at version %d: %s", self.record.name, restored_version, damage)
        (event,) = self._store.history.events(self.record, restored_version - 1, 1).events
        folded = fold_all(self._start(), self.dataset.tasks, [self.core_event(event)])
        message = codec.snapshot_message(replace(folded, version=event.version), event.nonce)
        self._store.history.put_snapshot(self.record, message, events=0)

    def drawn(self, posterior: Posterior, spec: SelectionSpec) -> Drawn:
        """Returns a draw for a selection, which no other selection gets."""
        return self._prefetch.take(posterior, self.dataset.tasks, spec)

    def prefetch(self) -> None:
        """Folds what was just reported, and draws for the next selection."""
        self._prefetch.make(self.view().posterior, self.dataset.tasks)

    @property
    def bytes(self) -> int:
        """Returns the size of the state's arrays, without the dataset's."""
        posterior = self._state.posterior if self._state is not None else None
        if self._bytes[0] is not posterior:
            self._bytes = posterior, array_bytes(posterior)
        return self._bytes[1]

    def loaded_dataset(self) -> Dataset | None:
        """Returns the dataset if it is loaded."""
        return self._dataset

    def _sync(self) -> Failure | None:
        """Brings the state up to what Redis has now. Returns why that failed.

        Raises DeadlineExceeded, which concerns this caller alone; what was folded until then is kept.
        """
        try:
            for _ in range(REBUILDS):
                if self._caught_up():
                    return None
        except DeadlineExceeded:
            raise
        except Failure as failure:
            return failure
        return Diverged(self.record.name)

    def _caught_up(self) -> bool:
        """Folds up to the newest event; returns False if Redis has another history, which the next call reads."""
        held, begin, kinds = self._state, time.perf_counter(), list[str]()
        try:
            first = held or self.stored()
            for state, sync in self._following(first, None):
                self._state = state
                kinds += [entry.event.WhichOneof("kind") or "" for entry in sync.events]
        except (Diverged, RunDamaged) as error:
            self._state = None
            if held is None and isinstance(error, RunDamaged):
                raise
            if held is not None:
                log.warning("run %s: its folded history is not the one in Redis; rebuilding", self.record.name)
                self._metrics.rebuilt()
            return False
        self._leases, self._snapshot_version = (sync.live_leases, sync.leases), sync.snapshot_version
        if held is None and first.posterior.version < sync.snapshot_version:  # the newest snapshot is damaged
            self._put_snapshot()
        if held is not None:
            record = self.record
            self._metrics.observe_fold(record.dataset, record.name, kinds, time.perf_counter() - begin)
        return True

    def _following(self, state: State, until: int | None) -> Iterator[tuple[State, Sync]]:
        """Yields the state after each page of events, up to a version or to the newest. Raises Diverged."""
        while True:
            sync = self._store.history.sync(self.record, state.posterior.version, state.nonce)
            if sync.diverged:
                raise Diverged(self.record.name)
            if until is None and sync.snapshot_version - state.posterior.version > LEAP_EVENTS:
                newer = self.stored()
                if newer.posterior.version > state.posterior.version:
                    state = newer
                    continue
            entries = [entry for entry in sync.events if until is None or entry.version <= until]
            if entries:
                folded = self._folded(state.posterior, [self.core_event(entry) for entry in entries])
                state = State(folded, entries[-1].nonce)
            yield state, sync
            if state.posterior.version >= (sync.version if until is None else min(until, sync.version)):
                return

    def _folded(self, posterior: Posterior, events: Sequence[Event]) -> Posterior:
        tasks = self.dataset.tasks
        for begin in range(0, len(events), PIECE_EVENTS):
            if self._closing.is_set():
                raise ServerStopping
            piece = events[begin : begin + PIECE_EVENTS]
            outcomes = sum(len(event.evidence.tasks) for event in piece if isinstance(event, Report))
            with computing(tasks, long=outcomes > MANY_OUTCOMES):
                posterior = fold_all(posterior, tasks, piece)
        return posterior

    def _start(self) -> Posterior:
        """Returns version 0 of a run that starts at the prior."""
        return start(self.dataset.tasks, codec.hyperparameters(self.record.hyperparameters), self.record.model)

    def _put_snapshot(self) -> bool:
        """Stores the newest state; returns whether Redis took it."""
        state = self._state
        assert state is not None
        return self._store.history.put_snapshot(self.record, codec.snapshot_message(state.posterior, state.nonce))
