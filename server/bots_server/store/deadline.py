"""The time that the current call has left, which bounds every wait on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from bots_server.errors import DeadlineExceeded

_end: ContextVar[float | None] = ContextVar("deadline", default=None)  # by `monotonic`; None: no bound


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bounds what happens inside, in this thread: the store stops waiting for Redis `seconds` from now.

    A single command may take the client's socket timeout longer, because redis-py has one timeout for all commands.
    """
    token = _end.set(monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def remaining() -> float | None:
    """Returns the seconds that are left, above 0; None without a bound. Raises DeadlineExceeded if none are left."""
    end = _end.get()
    if end is None:
        return None
    left = end - monotonic()
    if left <= 0:
        raise DeadlineExceeded
    return left
