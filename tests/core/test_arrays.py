"""Arrays of distinct values."""

import numpy as np
import pytest

from bots_server.core.arrays import distinct, union


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_distinct_values_and_unions_are_those_of_numpy(size: int, dtype: type[np.integer]) -> None:
    """Ascending, each once, of the same type."""
    rng = np.random.default_rng(size)
    first, second = rng.integers(0, 500, (2, size)).astype(dtype)
    np.testing.assert_array_equal(distinct(first), np.unique(first), strict=True)
    np.testing.assert_array_equal(union(first, second), np.union1d(first, second), strict=True)
