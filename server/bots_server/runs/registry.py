"""The runs that a process holds: the one door from the name of a run to its replica."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bots_server.errors import Failure, NotFound, RunReplaced
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.replica import Replica
from bots_server.runs.turn import charged
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Appended, Store
from bots_server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

RECORD_BYTES = 4096  # of a replica without its arrays: records, locks


class Registry:
    """Replicas by name, bounded in bytes, and two threads that snapshot and prefetch for them.

    A replica is dropped if it is idle, if memory is short, or if the store says that its run is gone. Nothing refers to
    it then but the calls that still use it, so that its memory is freed when they end.

    max_bytes:    of the replicas, their datasets, loads and uploads together; the replica used last is held in any case
    idle_seconds: a replica that was not used for so long is dropped
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        max_bytes: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._metrics = store, metrics
        self.memory = Memory(max_bytes, changed=self.evict)
        self.datasets = DatasetCache(store, self.memory)
        self._idle_seconds, self._clock = idle_seconds, clock
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str], tuple[Replica, float]] = OrderedDict()  # least recently used first
        self._waiting: set[tuple[str, str]] = set()  # work and uid of the run, for the background
        self._closing = threading.Event()
        self._background = ThreadPoolExecutor(2, thread_name_prefix="background")

    def open(self, dataset: str, name: str, uid: str = "") -> Replica:
        """Returns the run of a name.

        Raises DatasetNotFound, RunNotFound, and RunReplaced if `uid` is given and is not the run's. A look-up of an
        outdated uid asks the store, and changes nothing here.
        """
        with self._lock:
            held = self._held.get((dataset, name))
            if held is not None and uid in ("", held[0].record.uid):
                return self._use(held[0])
        record = self._find(dataset, name, uid)
        with self._lock:
            held = self._held.get((dataset, name))
            if held is None or held[0].record.uid != record.uid:
                return self._use(Replica(self._store, self._metrics, self.datasets, record, self._closing))
            return self._use(held[0])

    def gone(self, replica: Replica) -> None:
        """Drops a run of which the store said that it is gone."""
        key = replica.record.dataset, replica.record.name
        with self._lock:
            held = self._held.get(key)
            if held is not None and held[0] is replica:
                del self._held[key]

    def held(self) -> list[Replica]:
        """Returns the replicas that have a state, after dropping those that are idle or too many."""
        self.evict()
        with self._lock:
            return [replica for replica, _ in self._held.values() if replica.last_view() is not None]

    def evict(self) -> None:
        """Drops replicas that are idle, or more than the memory allows."""
        with self._lock:
            self._evict()

    def damaged(self) -> int:
        """Returns how many of the runs in use were damaged when they were last read."""
        with self._lock:
            return sum(replica.damaged for replica, _ in self._held.values())

    def appended(self, replica: Replica, appended: Appended, *, prefetch: bool = False) -> None:
        """Has the event that was just appended folded, and a snapshot stored if one is due, in the background."""
        if appended.snapshot_due:
            self._submit("snapshot", replica, lambda: self._snapshot(replica, appended.snapshot_version))
        if prefetch:
            self._submit("prefetch", replica, replica.prefetch)

    def close(self) -> None:
        """Has runs read no further, in calls and in the background, and drops what waits for the background."""
        with self._lock:
            self._closing.set()
        self._background.shutdown(cancel_futures=True)

    def _find(self, dataset: str, name: str, uid: str) -> storage.RunRecord:
        try:
            record = self._store.runs.get(self._store.datasets.get(dataset), name)
        except NotFound as missing:
            if uid:
                raise RunReplaced(name, uid) from missing
            raise
        if uid not in ("", record.uid):
            raise RunReplaced(name, uid)
        return record

    def _use(self, replica: Replica) -> Replica:
        """Notes the use of a replica and returns it; the lock is held."""
        key = replica.record.dataset, replica.record.name
        new = key not in self._held
        self._held[key] = replica, self._clock()
        self._held.move_to_end(key)
        if new:
            self._evict()
        return replica

    def _evict(self) -> None:
        """Drops replicas that are idle, and the least recently used while all are too large; the lock is held."""
        oldest = self._clock() - self._idle_seconds
        while self._held and next(iter(self._held.values()))[1] < oldest:
            self._held.popitem(last=False)
        while len(self._held) > 1 and self._bytes() > self.memory.limit:
            self._held.popitem(last=False)

    def _bytes(self) -> int:
        replicas = [replica for replica, _ in self._held.values()]
        datasets = {dataset.record.uid: dataset for replica in replicas if (dataset := replica.loaded_dataset())}
        held = sum(replica.bytes + RECORD_BYTES for replica in replicas) + sum(d.bytes for d in datasets.values())
        return held + self.memory.taken

    def _submit(self, name: str, replica: Replica, work: Callable[[], None]) -> None:
        key = name, replica.record.uid
        with self._lock:
            if key not in self._waiting and not self._closing.is_set():
                self._waiting.add(key)
                self._background.submit(self._do, key, replica, charged(work))

    def _do(self, key: tuple[str, str], replica: Replica, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.discard(key)
        try:
            work()
        except Failure as failure:  # nothing is lost: the next call or report does the same
            log.debug("run %s: no %s: %s", replica.record.name, key[0], failure)
        except Exception:
            log.exception("run %s: no %s, because of a bug", replica.record.name, key[0])

    def _snapshot(self, replica: Replica, newest: int) -> None:
        begin, outcome = time.perf_counter(), "failed"
        try:
            outcome = "stored" if replica.snapshot(newest) else "refused"
        finally:
            self._metrics.observe_snapshot(outcome, time.perf_counter() - begin)
