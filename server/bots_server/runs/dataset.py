"""Datasets in memory: what selection and fold need of one, shared by all of its runs."""

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import numpy as np

from bots_server.core.task_ids import TaskIds, index_ids
from bots_server.core.tasks import Tasks, arrange
from bots_server.errors import DatasetNotFound
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, codec

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

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded: weakref.WeakValueDictionary[str, Dataset] = weakref.WeakValueDictionary()

    def get(self, name: str, uid: str) -> Dataset:
        """Returns the dataset. Raises DatasetNotFound if the name has none, or another, by now."""
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
    strata = codec.strata(store.datasets.strata(record))
    # Filled chunk by chunk: a list of the chunks would be a second copy, which malloc keeps when it is freed.
    stratum = np.empty(record.size, np.uint32)
    tag = np.empty(record.size if record.tags else 0, np.uint32)
    features = np.empty((record.size if record.features else 0, len(record.features)), np.float32)
    ids, end = [], 0
    for chunk in map(codec.columns, store.datasets.columns(record)):
        start, end = end, end + len(chunk.stratum)
        stratum[start:end] = chunk.stratum
        if chunk.tag is not None:
            tag[start:end] = chunk.tag
        if chunk.features is not None:
            features[start:end] = chunk.features
        if chunk.ids is not None:
            ids.append(chunk.ids)
    tasks = arrange(
        strata,
        stratum,
        tag if record.tags else None,
        tuple(tag.name for tag in record.tags),
        reference_names=tuple(reference.name for reference in record.references),
        features=features if record.features else None,
        feature_names=tuple(record.features),
    )
    index = index_ids(np.concatenate(ids)) if record.has_ids else None
    log.info(
        "loaded dataset %s: %d tasks in %d strata, %.2f s", name, record.size, len(strata), time.perf_counter() - begin
    )
    return Dataset(record, tasks, index)


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
