"""What goes wrong with Redis becomes one of our errors here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from bots_server.errors import Failure, StoreFull, StoreUnavailable


class ReadOnly(StoreUnavailable):
    """What answered is a replica."""


# What redis-py raises: connection, timeout, loading, no primary, slot not served, and what Redis refuses.
REDIS_ERRORS = RedisError, RedisClusterException


def failure_of(error: Exception) -> Failure:
    """Returns one of REDIS_ERRORS as StoreUnavailable or StoreFull."""
    return _refusal(error) if isinstance(error, ResponseError) else StoreUnavailable(str(error) or type(error).__name__)


@contextmanager
def failures() -> Iterator[None]:
    """Raises what redis-py raises as StoreUnavailable or StoreFull."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise failure_of(error) from error


def _refusal(error: ResponseError) -> Failure:
    """Returns what an error answer means. One that a script met carries the command's own answer inside."""
    answer = str(error)
    if "command not allowed when used memory" in answer:
        return StoreFull("its memory is used up to maxmemory")
    if "MISCONF" in answer or "Errors writing to the AOF" in answer or "unable to persist" in answer:
        return StoreFull(f"it cannot write to its disk ({answer})")
    if "read only replica" in answer:
        return ReadOnly("it is a replica, and read-only")
    return StoreUnavailable(answer)
