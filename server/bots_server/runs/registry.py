"""The replicas of a process: held while they are asked for, snapshotted and folded ahead while nobody waits."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bots_server.runs.dataset import DatasetCache
from bots_server.errors import Failure
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.replica import Replica
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

log = logging.getLogger(__name__)


class Replicas:
    """The replicas of this process, and the two threads that work for them while nobody waits."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        capacity: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._metrics = store, metrics
        self._datasets = DatasetCache(store)
        self._capacity, self._idle_seconds, self._clock = capacity, idle_seconds, clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[Replica, float]] = OrderedDict()  # by run uid, the idlest first
        self._due: set[str] = set()
        self._closed = False
        self._background = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._behind: set[str] = set()  # runs that have a report which is to be folded ahead
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def get(self, run: storage.RunRecord) -> Replica:
        """Returns the replica of a run; a new one reads from Redis when it is first looked at."""
        return self._used(run.uid) or self._keep(self.glance(run))

    def glance(self, run: storage.RunRecord) -> Replica:
        """Returns the replica of a run where it is held, else a new one that is not kept: a listing puts none out."""
        with self._lock:
            if run.uid in self._held:
                return self._held[run.uid][0]
        return Replica(self._store, self._metrics, run, self._datasets.get(run.dataset, run.dataset_uid))

    def drop(self, run_uid: str) -> None:
        """Forgets a run that is no more."""
        with self._lock:
            self._held.pop(run_uid, None)

    def held(self) -> list[Replica]:
        """Returns the replicas that were asked for lately."""
        with self._lock:
            while self._held and self._idlest() < self._clock() - self._idle_seconds:
                self._held.popitem(last=False)
            return [replica for replica, _ in self._held.values()]

    def snapshot_if_due(self, run: storage.RunRecord, version: int, snapshot_version: int) -> None:
        """Has a snapshot stored in the background where enough events have come since the last."""
        if version - snapshot_version < run.retention.snapshot_interval:
            return
        with self._lock:
            if run.uid in self._due or self._closed:
                return
            self._due.add(run.uid)
            self._background.submit(self._snapshot, run)

    def fold_ahead(self, run: storage.RunRecord) -> None:
        """Has what was just reported folded, and the next selection drawn, before somebody waits for it."""
        with self._lock:
            if run.uid in self._behind or run.uid not in self._held or self._closed:
                return
            self._behind.add(run.uid)
            self._folding.submit(self._fold_ahead, self._held[run.uid][0])

    def close(self) -> None:
        """Waits for the snapshot that is being stored; drops the ones that wait."""
        with self._lock:
            self._closed = True
        self._folding.shutdown(cancel_futures=True)
        self._background.shutdown(cancel_futures=True)

    def _used(self, run_uid: str) -> Replica | None:
        """Returns the held replica of a run, which is in use now; None: there is none."""
        with self._lock:
            held = self._held.pop(run_uid, None)
            if held is None:
                return None
            self._held[run_uid] = held[0], self._clock()
            return held[0]

    def _keep(self, made: Replica) -> Replica:
        """Holds a new replica and returns it, or the one that another thread made meanwhile."""
        now = self._clock()
        with self._lock:
            replica = self._held.pop(made.run.uid, (made, now))[0]
            self._held[made.run.uid] = replica, now
            while len(self._held) > self._capacity or self._idlest() < now - self._idle_seconds:
                self._held.popitem(last=False)
            return replica

    def _fold_ahead(self, replica: Replica) -> None:
        with self._lock:
            self._behind.discard(replica.run.uid)
        try:
            replica.ahead.prepare(replica.view().posterior)
        except Failure as failure:
            log.debug("run %s: nothing was folded ahead: %s", replica.run.name, failure)  # the next call says so
        except Exception:
            log.exception("run %s: nothing was folded ahead, by a bug", replica.run.name)
            raise

    def _snapshot(self, run: storage.RunRecord) -> None:
        begin, outcome = time.perf_counter(), "failed"
        try:
            replica = self.get(run)
            replica.view()
            # Another server may have been faster.
            outcome = "stored" if replica.snapshot_due() and replica.snapshot() else "refused"
        except Failure as failure:
            # Nothing is lost: the events stay until a snapshot holds them, and the next report asks again.
            log.warning("run %s: no snapshot was stored: %s", run.name, failure)
        except Exception:
            log.exception("run %s: no snapshot was stored, by a bug", run.name)
            raise
        finally:
            with self._lock:
                self._due.discard(run.uid)
            self._metrics.observe_snapshot(outcome, time.perf_counter() - begin)

    def _idlest(self) -> float:
        return next(iter(self._held.values()))[1]
