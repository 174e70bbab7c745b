"""Datasets in memory: what selection and fold need of one, shared by all of its runs."""

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bots_server.core.task_ids import TaskIds, index_ids, join
from bots_server.core.tasks import Tasks, arrange
from bots_server.errors import DatasetNotFound, DeadlineExceeded
from bots_server.runs.memory import LOADED_COPIES, LOADED_TASK_BYTES, Memory
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, codec, remaining

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset's record, its tasks, and their ids (None: it has none)."""

    record: storage.DatasetRecord
    tasks: Tasks
    ids: TaskIds | None

    @cached_property
    def tag_numbers(self) -> Mapping[str, int]:
        """Returns the number of each tag."""
        return {tag: number for number, tag in enumerate(self.tasks.tags)}

    @cached_property
    def bytes(self) -> int:
        """Returns the size of its arrays."""
        return array_bytes(self)


class DatasetCache:
    """The datasets in use: each is loaded once, and freed when the last replica of its runs is."""

    def __init__(self, store: Store, memory: Memory) -> None:
        self._store, self._memory = store, memory
        self._lock = threading.Lock()  # of the next two
        self._loaded: weakref.WeakValueDictionary[str, Dataset] = weakref.WeakValueDictionary()
        self._loading: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()

    def get(self, name: str, uid: str) -> Dataset:
        """Returns the dataset. Raises DatasetNotFound if the name has none, or another, by now."""
        with self._lock:
            dataset, loading = self._loaded.get(uid), self._loading.setdefault(uid, threading.Lock())
        if dataset is not None:
            return dataset
        timeout = remaining()
        if not loading.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise DeadlineExceeded
        try:
            with self._lock:
                dataset = self._loaded.get(uid)
            if dataset is None:
                dataset = self._load(name, uid)
                with self._lock:
                    self._loaded[uid] = dataset
            return dataset
        finally:
            loading.release()

    def _load(self, name: str, uid: str) -> Dataset:
        record = self._store.datasets.get(name)
        if record.uid != uid:
            raise DatasetNotFound(name)
        with self._memory.for_load(LOADED_TASK_BYTES * record.size + LOADED_COPIES * record.bytes):
            begin = time.perf_counter()
            dataset = load(self._store, record)
        log.info(
            "loaded dataset %s: %d tasks in %d strata, %.2f s",
            name,
            record.size,
            record.strata,
            time.perf_counter() - begin,
        )
        return dataset


def load(store: Store, record: storage.DatasetRecord) -> Dataset:
    """Reads a dataset from the store. Raises DatasetNotFound if it is deleted."""
    strata = codec.strata(store.datasets.strata(record))
    narrow: type[np.unsignedinteger] = np.uint16 if record.strata <= 2**16 else np.uint32
    narrow_tag: type[np.unsignedinteger] = np.uint8 if len(record.tags) <= 2**8 else np.uint16
    stratum: NDArray[np.unsignedinteger] = np.empty(record.size, narrow)
    tag: NDArray[np.unsignedinteger] | None = np.empty(record.size, narrow_tag) if record.tags else None
    features = np.empty((record.size, len(record.features)), np.float32) if record.features else None
    ids, end = [], 0
    for message in store.datasets.columns(record):
        chunk = codec.columns(message)
        begin, end = end, end + message.size
        stratum[begin:end] = chunk.stratum
        if tag is not None and chunk.tag is not None:
            tag[begin:end] = chunk.tag
        if features is not None and chunk.features is not None:
            features[begin:end] = chunk.features
        if chunk.ids is not None:
            ids.append(chunk.ids)
    tasks = arrange(
        strata,
        stratum,
        tag,
        tuple(one.name for one in record.tags),
        reference_names=tuple(reference.name for reference in record.references),
        features=features,
        feature_names=tuple(record.features),
    )
    return Dataset(record, tasks, index_ids(join(ids)) if record.has_ids else None)


def array_bytes(*values: object) -> int:
    """Returns the bytes of all distinct arrays in dataclasses and tuples of arrays."""
    seen: dict[int, int] = {}
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, np.ndarray):
            seen[id(value)] = value.nbytes
        elif isinstance(value, tuple):
            left += value
        elif is_dataclass(value):
            left += [getattr(value, field.name) for field in fields(value)]
    return sum(seen.values())
