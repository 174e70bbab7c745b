"""String ids of tasks, found by sorted 64-bit hashes and then compared, so that a collision costs time alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Bools, Ints, distinct

_BLOCK = 65_536  # texts that are hashed or compared at once, so that the working memory does not grow with their number
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in Fibonacci hashing


class DuplicateTaskId(ValueError):
    """Two tasks with one id; `args` is (the id, the first task, the second task)."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """N texts without NUL, one after the other, without padding."""

    text: NDArray[np.uint8]  # `[B + 8]` their UTF-8, then eight NULs
    start: NDArray[np.unsignedinteger]  # `[N + 1]`; text i is `text[start[i]:start[i + 1]]`

    def __len__(self) -> int:
        return len(self.start) - 1

    def read(self, which: Ints) -> list[str]:
        data = self.text.data
        begin, end = self.start.take(which).tolist(), self.start.take(which + 1).tolist()
        return [str(data[first:last], "utf-8") for first, last in zip(begin, end, strict=True)]

    def lengths(self, which: Ints) -> Ints:
        """Returns the lengths of some of the texts, in bytes."""
        return (self.start.take(which + 1) - self.start.take(which)).astype(np.int64)

    def words(self, which: Ints) -> Iterator[tuple[Ints, NDArray[np.uint64]]]:
        """Yields positions in `which` and the next 8 bytes of these texts as whole numbers, until all texts end."""
        windows: NDArray[np.uint64] = np.ndarray((len(self.text) - 7,), "<u8", self.text, strides=(1,))
        begin, left, at = self.start.take(which).astype(np.int64), self.lengths(which), np.arange(len(which))
        while len(at):
            beyond = 8 * np.maximum(8 - left, 0).astype(np.uint64)
            yield at, windows[begin] << beyond >> beyond
            more = left > 8
            begin, left, at = begin[more] + 8, left[more] - 8, at[more]


def pack(texts: Sequence[bytes]) -> Texts:
    return from_lengths(b"".join(texts), np.fromiter(map(len, texts), np.int64, len(texts)))


def from_lengths(text: bytes, lengths: NDArray[np.integer]) -> Texts:
    """Returns the texts of these lengths in bytes that lie one after the other."""
    return _texts([np.frombuffer(text, np.uint8)], lengths)


def join(parts: Sequence[Texts]) -> Texts:
    return _texts([part.text[:-8] for part in parts], np.concatenate([np.diff(part.start) for part in parts]))


def _texts(pieces: Sequence[NDArray[np.uint8]], lengths: NDArray[np.integer]) -> Texts:
    size = sum(map(len, pieces))
    narrow: type[np.unsignedinteger] = np.uint32 if size < 2**32 else np.uint64
    start: NDArray[np.unsignedinteger] = np.zeros(len(lengths) + 1, narrow)
    np.cumsum(lengths, out=start[1:])
    text = np.zeros(size + 8, np.uint8)
    np.concatenate(pieces, out=text[:size])
    return Texts(text, start)


@dataclass(frozen=True, slots=True, eq=False)
class TaskIds:
    """The ids of a dataset's N tasks."""

    ids: Texts
    hashes: NDArray[np.uint64]  # `[N]` ascending
    order: NDArray[np.int32]  # `[N]` the task of each hash

    def names(self, tasks: Ints) -> list[str]:
        return self.ids.read(tasks)

    def find(self, names: Sequence[str]) -> Ints:
        """Returns the task of each id; -1: no task has it."""
        return self.find_each(pack([name.encode() for name in names]))

    def find_each(self, ids: Texts) -> Ints:
        """Returns the task of each id; -1: no task has it."""
        hashes = hash_texts(ids)
        at = np.searchsorted(self.hashes, hashes)
        found = np.full(len(ids), -1, dtype=np.int64)
        searching = np.arange(len(ids))
        # Equal hashes lie side by side: go on through them until the id is the same. A second round is rare.
        while searching.size:
            searching = searching[at[searching] < len(self.hashes)]
            searching = searching[self.hashes[at[searching]] == hashes[searching]]
            task = self.order[at[searching]].astype(np.int64)
            same = equal(self.ids, task, ids, searching)
            found[searching[same]] = task[same]
            searching = searching[~same]
            at[searching] += 1
        return found


def index_ids(ids: Texts) -> TaskIds:
    """Returns the index of the ids of all tasks. Raises DuplicateTaskId if two are equal."""
    hashes = hash_texts(ids)
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    hashes = hashes[order]
    collisions = np.flatnonzero(hashes[1:] == hashes[:-1])
    suspects = distinct(np.concatenate([order[collisions], order[collisions + 1]])).astype(np.int64)
    first: dict[str, int] = {}
    for task, name in zip(suspects.tolist(), ids.read(suspects), strict=True):
        if first.setdefault(name, task) != task:
            raise DuplicateTaskId(name, first[name], task)
    return TaskIds(ids, hashes, order)


def hash_texts(texts: Texts) -> NDArray[np.uint64]:
    """Returns `[N]` a 64-bit hash of each text."""
    hashes = np.zeros(len(texts), np.uint64)
    for begin in range(0, len(texts), _BLOCK):
        block = hashes[begin : begin + _BLOCK]
        for at, word in texts.words(np.arange(begin, begin + len(block))):
            mixed = (block[at] ^ word) * _MULTIPLIER
            block[at] = mixed ^ mixed >> np.uint64(29)
    return hashes


def equal(one: Texts, which: Ints, other: Texts, whom: Ints) -> Bools:
    """Returns whether texts `which` of one equal texts `whom` of another, pair by pair."""
    same = np.asarray(one.lengths(which) == other.lengths(whom))
    for begin in range(0, len(same), _BLOCK):
        pairs = begin + np.flatnonzero(same[begin : begin + _BLOCK])
        for (at, word), (_, word_of_other) in zip(one.words(which[pairs]), other.words(whom[pairs]), strict=True):
            same[pairs[at[word != word_of_other]]] = False
    return same
