"""Memory that the C library keeps, so that arrays of a request are not made of fresh pages each time."""

import ctypes
from contextlib import suppress

# mallopt(3): arrays from so many bytes on are given back to the system, and so is what is free at the end of the heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES, _FREE_BYTES = 1 << 20, 8 << 20


def keep_freed_memory() -> None:
    """Has glibc keep what arrays of less than 1 MB leave; does nothing with another C library.

    By default it takes temporary arrays from 128 KB on from the system and gives them back at once. Each page is then
    zeroed and mapped anew at its first touch, which takes longer than to compute what it holds.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)
