"""Datasets in memory: what selection and fold need of one, shared by all of its runs."""

import logging
import threading
import time
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.api import messages
from bots_server.core.task_ids import TaskIds, index_ids
from bots_server.core.tasks import Tasks, arrange
from bots_server.errors import DatasetNotFound
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """A dataset's record, its tasks, and their ids where it has them."""

    record: storage.DatasetRecord
    tasks: Tasks
    ids: TaskIds | None


class DatasetCache:
    """The datasets in use, each loaded once and dropped when the last replica lets go of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded: weakref.WeakValueDictionary[str, Dataset] = weakref.WeakValueDictionary()

    def get(self, name: str, uid: str) -> Dataset:
        """Returns the dataset. Raises DatasetNotFound where the name has none, or another, by now."""
        # One load at a time: they are rare, and two at once would need the memory twice.
        with self._lock:
            dataset = self._loaded.get(uid)
            if dataset is None:
                self._loaded[uid] = dataset = load(self._store, name, uid)
            return dataset


def load(store: Store, name: str, uid: str) -> Dataset:
    """Reads a dataset from the store. Raises DatasetNotFound."""
    begin = time.perf_counter()
    record = store.datasets.get(name)
    if record.uid != uid:
        raise DatasetNotFound(name)
    strata = messages.strata(store.datasets.strata(record))
    stratum = np.empty(record.size, dtype=np.uint32)
    tag = np.empty(record.size, dtype=np.uint32) if record.tags else None
    ids: list[NDArray[np.bytes_]] = []
    offset = 0
    for chunk in store.datasets.columns(record):
        end = offset + chunk.size
        stratum[offset:end] = np.frombuffer(chunk.stratum, "<u4")
        if tag is not None:
            tag[offset:end] = np.frombuffer(chunk.tag, "<u4")
        if record.has_ids:
            ids.append(split_ids(chunk.ids, np.frombuffer(chunk.id_lengths, "<u4")))
        offset = end
    tasks = arrange(strata, stratum, tag, tuple(count.tag for count in record.tags))
    index = index_ids(np.concatenate(ids)) if ids else None
    log.info(
        "loaded dataset %s: %d tasks in %d strata, %.2f s", name, record.size, len(strata), time.perf_counter() - begin
    )
    return Dataset(record, tasks, index)


def split_ids(text: bytes, lengths: NDArray[np.uint32]) -> NDArray[np.bytes_]:
    """Returns the ids `S[N]` that lie one after the other in `text`."""
    width = int(lengths.max(initial=1))
    inside = np.arange(width) < lengths[:, None]
    padded = np.zeros(inside.shape, dtype=np.uint8)
    padded[inside] = np.frombuffer(text, np.uint8)
    return padded.view(f"S{width}")[:, 0]
