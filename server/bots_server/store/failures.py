"""Turns the errors of redis-py into those of `bots_server.errors`; no other module does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from bots_server.errors import Failure, StoreFull, StoreUnavailable


class ReadOnly(StoreUnavailable):
    """A replica answered."""


class Refused(StoreUnavailable):
    """Redis does not accept the login or the database of the URL."""


# All that redis-py raises: connection, timeout, loading, no primary, slot not served, and error answers of Redis.
REDIS_ERRORS = RedisError, RedisClusterException


def failure_of(error: Exception) -> Failure:
    """Returns StoreUnavailable or StoreFull for one of REDIS_ERRORS."""
    answer = str(error) or type(error).__name__
    match error:
        case ResponseError():
            return _refusal(answer)
        case AuthenticationError():
            return Refused(f"refuses the login of the URL: {answer}")
        case BusyLoadingError():
            return StoreUnavailable(f"is loading its data: {answer}")
    if "max number of clients" in answer:
        return StoreUnavailable("has as many clients as it accepts (maxclients)")
    return StoreUnavailable(f"cannot be reached or does not answer in time: {answer}")


@contextmanager
def failures() -> Iterator[None]:
    """Raises StoreUnavailable or StoreFull for each of REDIS_ERRORS."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise failure_of(error) from error


def _refusal(answer: str) -> Failure:
    """Returns the meaning of an error answer. The answer of a script contains that of the command that failed in it."""
    if "command not allowed when used memory" in answer:
        return StoreFull("its memory reached maxmemory")
    if "MISCONF" in answer or "Errors writing to the AOF" in answer or "unable to persist" in answer:
        return StoreFull(f"it cannot write to its disk ({answer})")
    if "read only replica" in answer:
        return ReadOnly("is a replica, and read-only")
    if "DB index is out of range" in answer:
        return Refused("has no database of the URL's number")
    if answer.startswith("BUSY "):
        return StoreUnavailable(f"is busy with a script of another client: {answer}")
    return StoreUnavailable(f"answers with an error: {answer}")
