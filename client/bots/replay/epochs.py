"""Uniform selection as trainers do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


def shuffled_epochs(rng: np.random.Generator, size: int, batch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yields batches of `size` tasks without end: every task once an epoch, each epoch in a new random order.

    As a data loader with shuffle and drop_last: tasks that do not fill a batch at the end of an epoch are left out.
    `batch` must be at most `size`.
    """
    while True:
        order = rng.permutation(size)
        for start in range(0, size - batch + 1, batch):
            yield order[start : start + batch]


def count_distinct(batches: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Returns `[steps]` the number of distinct tasks in the batches up to each step."""
    seen: set[int] = set()
    counts = []
    for batch in batches:
        seen.update(batch.tolist())
        counts.append(len(seen))
    return np.array(counts)
