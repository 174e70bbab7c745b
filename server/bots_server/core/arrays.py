"""The types of arrays."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def find(ascending: NDArray[np.integer], values: NDArray[np.integer]) -> tuple[Ints, Bools]:
    """Returns the position of each value (of an array of any shape) in `ascending`, or where it would be inserted, and
    whether it is there."""
    if len(ascending) == 0:
        return np.zeros(values.shape, np.int64), np.zeros(values.shape, np.bool_)
    at = ascending.searchsorted(values)
    return at, np.equal(ascending.take(at, mode="clip"), values)


def blocks(size: int, most: int) -> list[slice]:
    """Returns slices of `most` entries that cover `size`. Larger temporary arrays than the cache cost several times as
    much."""
    return [slice(start, start + most) for start in range(0, size, most)]
