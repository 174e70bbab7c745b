"""String ids of tasks, found by sorted 64-bit hashes and then compared, so that a collision costs time alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ID_BYTES = 64

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in Fibonacci hashing
_SHIFT = np.uint64(29)


class UnknownTaskId(KeyError):
    """An id that no task of the dataset has; `args` is (position in the column, the id)."""


class DuplicateTaskId(ValueError):
    """Two tasks with one id; `args` is (the id,)."""


@dataclass(frozen=True, slots=True)
class TaskIds:
    """The ids of a dataset's tasks, N of them, of at most W bytes.

    ids:    `S[N, W]` UTF-8, without trailing NULs
    hashes: `u64[N]`  ascending
    order:  `i32[N]`  the task of each hash
    """

    ids: NDArray[np.bytes_]
    hashes: NDArray[np.uint64]
    order: NDArray[np.int32]

    def names(self, tasks: NDArray[np.int64]) -> list[str]:
        """Returns the ids of tasks."""
        return [name.decode() for name in self.ids[tasks].tolist()]

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Returns the task of each id. Raises UnknownTaskId for the first that no task has."""
        wanted = [name.encode() for name in names]
        width = self.ids.dtype.itemsize
        fitting = np.array([0 < len(name) <= width for name in wanted], dtype=np.bool_)
        keys = np.array([name if fits else b"" for name, fits in zip(wanted, fitting, strict=True)], dtype=f"S{width}")
        hashes = hash_ids(keys)
        at = np.searchsorted(self.hashes, hashes)
        found = np.full(len(wanted), -1, dtype=np.int64)
        searching = np.flatnonzero(fitting)
        # Equal hashes lie side by side: go on through them until the id is the same. A second round is rare.
        while searching.size:
            searching = searching[at[searching] < len(self.hashes)]
            searching = searching[self.hashes[at[searching]] == hashes[searching]]
            task = self.order[at[searching]]
            same = self.ids[task] == keys[searching]
            found[searching[same]] = task[same]
            searching = searching[~same]
            at[searching] += 1
        if (found < 0).any():
            first = int(np.argmax(found < 0))
            raise UnknownTaskId(first, names[first])
        return found


def index_ids(ids: NDArray[np.bytes_]) -> TaskIds:
    """Returns the index of `S[N]` ids. Raises DuplicateTaskId if two are equal."""
    hashes = hash_ids(ids)
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    hashes = hashes[order]
    collisions = np.flatnonzero(hashes[1:] == hashes[:-1])
    seen: set[bytes] = set()
    for task in np.unique(np.concatenate([order[collisions], order[collisions + 1]])).tolist():
        name = bytes(ids[task])
        if name in seen:
            raise DuplicateTaskId(name.decode())
        seen.add(name)
    return TaskIds(ids, hashes, order)


def hash_ids(ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Returns a 64-bit hash `u64[N]` of each id of `S[N]`, which does not depend on the width of the array."""
    width = -(-ids.dtype.itemsize // 8) * 8
    words = np.ascontiguousarray(ids.astype(f"S{width}")).view("<u8").reshape(len(ids), width // 8)
    hashes = np.zeros(len(ids), dtype=np.uint64)
    for column in range(words.shape[1]):  # at most eight: MAX_ID_BYTES / 8
        word = words[:, column]
        mixed = (hashes ^ word) * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
        hashes = np.where(word == 0, hashes, mixed)  # padding changes nothing
    return hashes
