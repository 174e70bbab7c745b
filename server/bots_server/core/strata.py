"""Strata: tasks with the same prior and the same reference pass rates.

Strata compare the exact stored values. They are found once, when a dataset is created, and stored with it, so that a
stratum's number means the same everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Floats, Ints, distinct

MAX_STRATA = 2**20

_FINEST = 2.0**-150  # a grid as fine as this changes no float32

_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, as in Fibonacci hashing


class TooManyStrata(ValueError):
    """The dataset has more than 2^20 strata; a coarser `reference_grid` bounds their number."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {MAX_STRATA} distinct (prior, reference pass rates); "
            "a reference_grid (1/64 = 0.015625, say) bounds their number"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The strata of a dataset with R references."""

    references: NDArray[np.float32]  # `[G, R]` pass rates in [0, 1]; NaN: missing
    prior_alpha: Floats  # `[G]` in [0.1, 1e6]
    prior_beta: Floats  # `[G]` in [0.1, 1e6]

    def __len__(self) -> int:
        return len(self.prior_alpha)


class StrataBuilder:
    """Finds the strata of a dataset that comes in chunks.

    A chunk's numbers are final when `add` returns, so that no column is held until the last chunk has come.
    """

    def __init__(self, references: int, reference_grid: float = 0.0) -> None:
        """Rounds pass rates of `references` references to multiples of `reference_grid`, in [0, 0.5]; 0: as given."""
        self._references = references
        self._grid = reference_grid
        self._numbers: dict[bytes, int] = {}  # by prior and references, as stored

    def add(
        self,
        references: NDArray[np.float32] | None,
        prior_alpha: Floats | None,
        prior_beta: Floats | None,
        size: int,
    ) -> NDArray[np.uint32]:
        """Returns `[size]` the stratum of each of the next `size` tasks, numbered in order of first appearance.

        references:  `[size, R]`; None: all missing
        prior_alpha: `[size]`; None: 1
        prior_beta:  `[size]`; None: 1

        The columns are checked before. Raises TooManyStrata.
        """
        if size == 0:
            return np.empty(0, np.uint32)
        rates = [None] * self._references if references is None else list(references.T)
        words = [*_prior_words(prior_alpha), *_prior_words(prior_beta), *map(self._reference_word, rates)]
        first, row = _distinct_rows(words)
        table = np.stack([word[first] if len(word) > 1 else np.repeat(word, len(first)) for word in words], 1)
        keys = table.astype("<u4").tobytes()
        width = 4 * len(words)
        numbers = np.empty(len(first), np.uint32)
        for k in first.argsort().tolist():
            numbers[k] = self._numbers.setdefault(keys[k * width : (k + 1) * width], len(self._numbers))
        if len(self._numbers) > MAX_STRATA:
            raise TooManyStrata
        return np.array(np.broadcast_to(numbers[row], (size,)))

    def strata(self) -> Strata:
        """Returns the strata found so far."""
        table = np.frombuffer(b"".join(self._numbers), "<u4").reshape(-1, 4 + self._references)
        return Strata(
            references=np.ascontiguousarray(table[:, 4:]).view("<f4"),
            prior_alpha=np.ascontiguousarray(table[:, :2]).view("<f8")[:, 0].copy(),
            prior_beta=np.ascontiguousarray(table[:, 2:4]).view("<f8")[:, 0].copy(),
        )

    def _reference_word(self, rates: NDArray[np.float32] | None) -> NDArray[np.uint32]:
        if rates is None:
            return np.array([np.nan], np.float32).view(np.uint32)
        if self._grid > _FINEST:
            steps = np.rint(rates.astype(np.float64) / self._grid)
            rates = np.minimum(steps * self._grid, 1.0).astype(np.float32)
        canonical = np.where(np.isnan(rates), np.float32(np.nan), rates + np.float32(0))  # one NaN, and no -0
        return canonical.astype(np.float32, copy=False).view(np.uint32)


def _prior_words(prior: Floats | None) -> list[NDArray[np.uint32]]:
    """Returns the low and the high words of a prior."""
    values = np.ones(1) if prior is None else np.ascontiguousarray(prior, np.float64)
    words = values.astype("<f8", copy=False).view("<u4").reshape(-1, 2)
    return [words[:, 0], words[:, 1]]


def _distinct_rows(words: Sequence[NDArray[np.uint32]]) -> tuple[Ints, Ints]:
    """Returns the position of the first of each distinct row of a table, and which of these each row equals.

    words: the columns of the table, `[n]` each, or `[1]` if all rows have one value

    Rows are found by hash and then compared; if two distinct rows have one hash, another hash is tried.
    """
    for seed in count(1, 2):
        hashes = np.zeros(1, np.uint64)
        for word in words:
            hashes = (hashes ^ word) * np.uint64(_MULTIPLIER * seed % 2**64)
            hashes ^= hashes >> np.uint64(29)
        found = distinct(hashes)
        row = found.searchsorted(hashes)
        first = np.empty(len(found), np.int64)
        first[row[::-1]] = np.arange(len(hashes) - 1, -1, -1)  # the last to be written is the first to appear
        if all((word[first][row] == word).all() for word in words if len(word) > 1):
            break
    return first, row
