"""From the names in a request to the run that they mean now."""

import threading
from collections.abc import Callable
from typing import TypeVar

from bots_server.errors import DatasetNotFound, NotFound, RunReplaced
from bots_server.replicas import Replicas
from bots_server.service import rules
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

Answer = TypeVar("Answer")


class Directory:
    """Remembers which run a name meant last, and asks again when that run turns out to be gone."""

    def __init__(self, store: Store, replicas: Replicas) -> None:
        self._store, self._replicas = store, replicas
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], storage.RunRecord] = {}

    def with_run(self, dataset: str, run: str, uid: str, act: Callable[[storage.RunRecord], Answer]) -> Answer:
        """Returns what `act` makes of the run.

        Raises DatasetNotFound or RunNotFound where the names mean nothing, and RunReplaced where `uid` is given and is
        not of a run that they mean. Where `act` raises RunReplaced or DatasetNotFound, the run or its dataset was
        deleted since it was looked up, and nothing was changed: it is called once more with what has the name now.
        """
        record, fresh = self._find(dataset, run, uid)
        while True:
            try:
                if uid and record.uid != uid:
                    raise RunReplaced(run, uid)
                return act(record)
            except (RunReplaced, DatasetNotFound):
                self._forget(record)
                if fresh:
                    raise
                record, fresh = self._find(dataset, run, uid)

    def forget(self, dataset: str, run: str) -> None:
        """Forgets a run that was deleted through this server."""
        with self._lock:
            record = self._runs.get((dataset, run))
        if record is not None:
            self._forget(record)

    def _find(self, dataset: str, run: str, uid: str) -> tuple[storage.RunRecord, bool]:
        """Returns a run, and whether the store was asked for it just now. Raises RunReplaced where nothing has the
        name and `uid` says that something had.
        """
        with self._lock:
            record = self._runs.get((dataset, run))
        if record is not None and record.uid == uid:
            return record, False
        rules.name("dataset", dataset)
        rules.name("run", run)
        rules.uid("run_uid", uid)
        if record is not None:
            return record, False
        try:
            record = self._store.runs.get(self._store.datasets.get(dataset), run)
        except NotFound as missing:
            if uid:
                raise RunReplaced(run, uid) from missing
            raise
        with self._lock:
            if len(self._runs) >= 10_000:  # names are short; this only bounds what a scan over all names may leave
                self._runs.clear()
            self._runs[dataset, run] = record
        return record, True

    def _forget(self, record: storage.RunRecord) -> None:
        with self._lock:
            self._runs.pop((record.dataset, record.name), None)
        self._replicas.drop(record.uid)
