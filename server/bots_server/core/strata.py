"""Strata: tasks with the same prior and the same reference pass rates.

Strata compare the exact stored values. They are found once, when a dataset is created, and stored with it, so that a
stratum's number means the same everywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_STRATA = 2**20
MAX_REFERENCES = 8


class TooManyStrata(ValueError):
    """The dataset has more than 2^20 strata; a coarser `reference_grid` bounds their number."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {MAX_STRATA} distinct (prior, reference pass rates); "
            "a reference_grid (1/64 = 0.015625, say) bounds their number"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The strata of a dataset with R references.

    references:  `[G, R]` float32, pass rates in [0, 1]; NaN: missing
    prior_alpha: `[G]` float64, in [0.1, 1e6]
    prior_beta:  `[G]` float64, in [0.1, 1e6]
    """

    references: NDArray[np.float32]
    prior_alpha: NDArray[np.float64]
    prior_beta: NDArray[np.float64]

    def __len__(self) -> int:
        """Returns G."""
        return len(self.prior_alpha)


class StrataBuilder:
    """Finds the strata of a dataset that comes in chunks.

    A chunk's numbers are final when `add` returns, so that no column is held until the last chunk has come.
    """

    def __init__(self, references: int, reference_grid: float = 0.0) -> None:
        """Rounds pass rates of `references` references to multiples of `reference_grid`, in [0, 0.5]; 0: as given."""
        self._grid = reference_grid
        # One numbering for each 32-bit word of a row: it numbers the distinct beginnings of rows up to that word.
        self._prefixes = [_Numbering() for _ in range(references + 4)]

    def add(
        self,
        references: NDArray[np.float32] | None,
        prior_alpha: NDArray[np.float64] | None,
        prior_beta: NDArray[np.float64] | None,
        size: int,
    ) -> NDArray[np.uint32]:
        """Returns `[size]` the stratum of each of the next `size` tasks, numbered in order of first appearance.

        references:  `[size, R]`; None: all missing
        prior_alpha: `[size]`; None: 1
        prior_beta:  `[size]`; None: 1

        The columns are checked before. Raises TooManyStrata.
        """
        stratum = np.zeros(1, np.uint32)  # of one row as long as all rows are equal
        rates = [None] * (len(self._prefixes) - 4) if references is None else list(references.T)
        words = [self._reference_bits(column) for column in rates]
        words += [*_prior_bits(prior_alpha), *_prior_bits(prior_beta)]
        for prefixes, word in zip(self._prefixes, words, strict=True):
            stratum = prefixes.number(stratum.astype(np.uint64) << np.uint64(32) | word)
        return np.array(np.broadcast_to(stratum, (size,)))

    def strata(self) -> Strata:
        """Returns the strata found so far."""
        words = []
        which = np.arange(len(self._prefixes[-1]))
        for prefixes in reversed(self._prefixes):
            key = prefixes.keys()[which]
            words.append((key & np.uint64(0xFFFFFFFF)).astype(np.uint32))
            which = (key >> np.uint64(32)).astype(np.int64)
        words.reverse()
        references = [word.view(np.float32) for word in words[:-4]]
        return Strata(
            references=np.stack(references, 1) if references else np.empty((len(which), 0), np.float32),
            prior_alpha=np.stack(words[-4:-2], 1).view("<f8")[:, 0].copy(),
            prior_beta=np.stack(words[-2:], 1).view("<f8")[:, 0].copy(),
        )

    def _reference_bits(self, rates: NDArray[np.float32] | None) -> NDArray[np.uint32]:
        if rates is None:
            return np.array([np.nan], np.float32).view(np.uint32)
        if self._grid > 0:
            steps = np.rint(rates.astype(np.float64) / self._grid)
            rates = np.minimum(steps * self._grid, 1.0).astype(np.float32)
        canonical = np.where(np.isnan(rates), np.float32(np.nan), rates + np.float32(0))  # one NaN, and no -0
        return canonical.astype(np.float32, copy=False).view(np.uint32)


def _prior_bits(prior: NDArray[np.float64] | None) -> list[NDArray[np.uint32]]:
    """Returns the low and the high words of a prior."""
    values = np.ones(1) if prior is None else np.ascontiguousarray(prior, np.float64)
    words = values.astype("<f8", copy=False).view("<u4").reshape(-1, 2)
    return [words[:, 0], words[:, 1]]


class _Numbering:
    """Numbers distinct 64-bit keys 0, 1, 2, ... in order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def __len__(self) -> int:
        """Returns the number of keys."""
        return len(self._numbers)

    def number(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Returns the number of each key; raises TooManyStrata."""
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        numbers = np.empty(len(distinct), np.uint32)
        order = first.argsort()
        numbers[order] = [self._numbers.setdefault(key, len(self._numbers)) for key in distinct[order].tolist()]
        if len(self._numbers) > MAX_STRATA:
            raise TooManyStrata
        return numbers[inverse]

    def keys(self) -> NDArray[np.uint64]:
        """Returns the keys in order of their numbers."""
        return np.fromiter(self._numbers, np.uint64, len(self._numbers))
