"""Turns the errors of redis-py into those of `bots_server.errors`; no other module does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from bots_server.errors import Failure, StoreFull, StoreUnavailable


class ReadOnly(StoreUnavailable):
    """A replica answered."""


# All that redis-py raises: connection, timeout, loading, no primary, slot not served, and error answers of Redis.
REDIS_ERRORS = RedisError, RedisClusterException


def failure_of(error: Exception) -> Failure:
    """Returns StoreUnavailable or StoreFull for one of REDIS_ERRORS."""
    return _refusal(error) if isinstance(error, ResponseError) else StoreUnavailable(str(error) or type(error).__name__)


@contextmanager
def failures() -> Iterator[None]:
    """Raises StoreUnavailable or StoreFull for each of REDIS_ERRORS."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise failure_of(error) from error


def _refusal(error: ResponseError) -> Failure:
    """Returns the meaning of an error answer. The answer of a script contains that of the command that failed in it."""
    answer = str(error)
    if "command not allowed when used memory" in answer:
        return StoreFull("its memory reached maxmemory")
    if "MISCONF" in answer or "Errors writing to the AOF" in answer or "unable to persist" in answer:
        return StoreFull(f"it cannot write to its disk ({answer})")
    if "read only replica" in answer:
        return ReadOnly("it is a replica, and read-only")
    return StoreUnavailable(answer)
