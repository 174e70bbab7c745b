"""Pages of listings by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def page(names: Iterable[bytes], after: str, limit: int, read: Callable[[list[bytes]], Iterable[Item]]) -> list[Item]:
    """Returns the first `limit` items whose names are above `after`, in order of name.

    `read` returns the items of some names, in order; it leaves out those that were deleted meanwhile. The result is
    shorter than `limit` only if there are no more names.
    """
    left = sorted(name for name in names if name > after.encode())
    items: list[Item] = []
    while left and len(items) < limit:
        now, left = left[: limit - len(items)], left[limit - len(items) :]
        items += read(now)
    return items
