"""Arrays as bytes. The stored types are little-endian: "<f4", "<f8", "<u4", "u1"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def pack(array: NDArray[Any], stored: str) -> bytes:
    """Returns the entries of an array, one after the other, in the stored type."""
    return array.astype(stored).tobytes()


def unpack(packed: bytes, stored: str, dtype: DTypeLike) -> NDArray[Any]:
    """Returns the array whose entries are packed in the stored type, in one dimension."""
    return np.frombuffer(packed, stored).astype(dtype)


def rows(packed: bytes, count: int) -> NDArray[np.float32]:
    """Returns `[count, columns]` float32; no columns if nothing is packed."""
    values = unpack(packed, "<f4", np.float32)
    return values.reshape(count, len(values) // count if count else 0)
