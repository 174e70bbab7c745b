"""Arrays as bytes. The stored types are little-endian: "<f4", "<f8", "<u4", "u1"."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

PIECE = 4096  # entries that protobuf takes at once: it holds the interpreter for 0.1 ms
HAND_OVER_SECONDS = 1e-6  # with the slack of the clock 0.05 ms, in which a thread that waits takes the interpreter


class Repeated(Protocol):
    """A repeated field."""

    def extend(self, values: list[Any], /) -> None: ...


def extend(field: Repeated, values: NDArray[Any]) -> None:
    """Appends the entries of an array to a field. Other threads run after each piece of a long one."""
    for start in range(0, len(values), PIECE):
        if start:
            time.sleep(HAND_OVER_SECONDS)
        field.extend(values[start : start + PIECE].tolist())


def pack(array: NDArray[Any] | None, stored: str) -> bytes:
    """Returns the entries of an array, one after the other, in the stored type; none if there is no array."""
    return b"" if array is None else array.astype(stored).tobytes()


def packed(values: object, **stored: str) -> dict[str, Any]:
    """Returns arrays of a dataclass by name, each packed in its stored type."""
    return {name: pack(getattr(values, name), kind) for name, kind in stored.items()}


def unpack(packed: bytes, stored: str, dtype: DTypeLike) -> NDArray[Any]:
    """Returns the array whose entries are packed in the stored type, in one dimension."""
    return np.frombuffer(packed, stored).astype(dtype)


def numbers(packed: bytes) -> NDArray[np.int64]:
    """Returns the numbers that are packed as "<u4"."""
    return unpack(packed, "<u4", np.int64)


def floats(packed: bytes) -> NDArray[np.float64]:
    """Returns the values that are packed as "<f8"."""
    return unpack(packed, "<f8", np.float64)


def rows(packed: bytes, count: int) -> NDArray[np.float32]:
    """Returns `[count, columns]` float32; no columns if nothing is packed."""
    values = unpack(packed, "<f4", np.float32)
    return values.reshape(count, len(values) // count if count else 0)
