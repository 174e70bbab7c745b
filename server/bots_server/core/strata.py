"""Strata: tasks with the same prior and the same reference pass rates, which share a posterior until evaluated.

Strata compare the exact stored values. They are found once, when a dataset is created, and stored with it, so that a
stratum's number means the same everywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_STRATA = 2**20

# Keys are numbered in blocks: what one block has learned the next one finds in the table.
_BLOCK = 65_536
_SLOT_BITS = 16
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, Knuth's multiplicative hash


class TooManyStrata(ValueError):
    """The dataset has more than 2^20 strata; a coarser `reference_grid` bounds their number."""

    def __init__(self) -> None:
        super().__init__(
            f"more than {MAX_STRATA:,} distinct (prior, reference pass rates); "
            "a reference_grid (1/64 = 0.015625, say) bounds their number"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The strata of a dataset.

    weak:        `[G]` float32, reference pass rate of the weak model in [0, 1]; NaN: no references
    strong:      `[G]` float32, reference pass rate of the strong model in [0, 1]; NaN: no references
    prior_alpha: `[G]` float64, in [0.1, 1e6]
    prior_beta:  `[G]` float64, in [0.1, 1e6]
    """

    weak: NDArray[np.float32]
    strong: NDArray[np.float32]
    prior_alpha: NDArray[np.float64]
    prior_beta: NDArray[np.float64]

    def __len__(self) -> int:
        """Returns G."""
        return len(self.weak)

    @property
    def referenced(self) -> NDArray[np.bool_]:
        """Returns `[G]` whether the stratum has reference pass rates."""
        return ~np.isnan(self.weak)


class StrataBuilder:
    """Finds the strata of a dataset that comes in chunks.

    A chunk's numbers are final at once, so that no column need be held until the last chunk has come.
    """

    def __init__(self, reference_grid: float = 0.0) -> None:
        """Rounds reference pass rates to multiples of `reference_grid`, in [0, 0.5]; 0 keeps them as given."""
        self._grid = reference_grid
        self._references = _Numbering()
        self._alphas = _Numbering()
        self._betas = _Numbering()
        self._strata = _Numbering()

    def add(
        self,
        weak: NDArray[np.float32] | None,
        strong: NDArray[np.float32] | None,
        prior_alpha: NDArray[np.float64] | None,
        prior_beta: NDArray[np.float64] | None,
        size: int,
    ) -> NDArray[np.uint32]:
        """Returns `[size]` the stratum of each of the next `size` tasks, numbered in order of first appearance.

        The columns are checked already: `[size]` each, references both or neither (absent column or NaN), in range.
        Raises TooManyStrata.
        """
        if size == 0:
            return np.empty(0, np.uint32)
        references = self._reference_bits(weak).astype(np.uint64) << np.uint64(32) | self._reference_bits(strong)
        # Each part has at most 2^20 values (or the strata are too many), so that three numbers fit into one key.
        key = np.broadcast_to(self._references.number(references).astype(np.uint64) << np.uint64(40), (size,))
        key = key | self._alphas.number(_prior_bits(prior_alpha)).astype(np.uint64) << np.uint64(20)
        key |= self._betas.number(_prior_bits(prior_beta))
        return self._strata.number(key)

    def strata(self) -> Strata:
        """Returns the strata of all tasks added so far."""
        key = self._strata.keys()
        part = np.uint64(MAX_STRATA - 1)
        references = self._references.keys()[key >> np.uint64(40)]
        return Strata(
            weak=(references >> np.uint64(32)).astype(np.uint32).view(np.float32),
            strong=references.astype(np.uint32).view(np.float32),
            prior_alpha=self._alphas.keys()[key >> np.uint64(20) & part].view(np.float64),
            prior_beta=self._betas.keys()[key & part].view(np.float64),
        )

    def _reference_bits(self, rates: NDArray[np.float32] | None) -> NDArray[np.uint32]:
        if rates is None:
            return np.array([np.nan], np.float32).view(np.uint32)
        if self._grid > 0:
            steps = np.rint(rates.astype(np.float64) / self._grid)
            rates = np.minimum(steps * self._grid, 1.0).astype(np.float32)
        canonical = np.where(np.isnan(rates), np.float32(np.nan), rates + np.float32(0))  # one NaN, and no -0
        return canonical.astype(np.float32, copy=False).view(np.uint32)


def _prior_bits(prior: NDArray[np.float64] | None) -> NDArray[np.uint64]:
    if prior is None:
        return np.ones(1, np.float64).view(np.uint64)
    return np.ascontiguousarray(prior, np.float64).view(np.uint64)


class _Numbering:
    """Numbers distinct 64-bit keys 0, 1, 2, ... in order of first appearance.

    A direct-mapped table in front of the sorted keys answers most look-ups: datasets have far more tasks than strata,
    and a binary search for each task would be most of the time of creating one.
    """

    def __init__(self) -> None:
        self._ascending = np.empty(0, np.uint64)
        self._number = np.empty(0, np.uint32)  # of each key in ascending order
        self._slot_key = np.zeros(2**_SLOT_BITS, np.uint64)
        self._slot_key[0] = 1  # key 0 belongs into slot 0 and key 1 does not: so at first every key is missed
        self._slot_number = np.zeros(2**_SLOT_BITS, np.uint32)

    def number(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Returns the number of each key; raises TooManyStrata."""
        numbers = np.empty(len(keys), np.uint32)
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            slot = (block * _MIX) >> np.uint64(64 - _SLOT_BITS)
            found = self._slot_number.take(slot)
            missed = np.flatnonzero(self._slot_key.take(slot) != block)
            if len(missed):
                found[missed] = self._search(block[missed])
                self._slot_key[slot[missed]] = block[missed]
                self._slot_number[slot[missed]] = found[missed]
            numbers[start : start + _BLOCK] = found
        return numbers

    def keys(self) -> NDArray[np.uint64]:
        """Returns the keys in order of their numbers."""
        keys = np.empty_like(self._ascending)
        keys[self._number] = self._ascending
        return keys

    def _search(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        at = self._ascending.searchsorted(keys)
        known = at < len(self._ascending)
        known[known] = self._ascending[at[known]] == keys[known]
        if not known.all():
            self._learn(keys[~known])
            at = self._ascending.searchsorted(keys)
        return self._number[at]

    def _learn(self, keys: NDArray[np.uint64]) -> None:
        new, first = np.unique(keys, return_index=True)
        if len(self._ascending) + len(new) > MAX_STRATA:
            raise TooManyStrata
        number = np.empty(len(new), np.uint32)
        number[first.argsort()] = np.arange(len(self._ascending), len(self._ascending) + len(new))
        merged = np.concatenate((self._ascending, new))
        order = merged.argsort(kind="stable")
        self._ascending = merged[order]
        self._number = np.concatenate((self._number, number))[order]
