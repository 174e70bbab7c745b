"""Operations on the service as steps, so that one text serves threads and asyncio.

An operation is a generator: it yields a `Call` and is sent the answer or thrown the error, or yields a `Pause`.
`bots.run` and `bots.client` drive operations in the calling thread, `bots.aio` in the event loop; `blocking` and
`awaited` make methods of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from google.protobuf.message import Message

from bots.errors import AbortedError, BotsError, ResourceExhaustedError, UnavailableError
from bots.v1 import task_selection_pb2 as pb

# A generator of its own: the program's seeds and draws are none of the client's.
_random = random.Random()  # noqa: S311

T = TypeVar("T")
P = ParamSpec("P")

METHODS = pb.DESCRIPTOR.services_by_name["TaskSelectionService"].methods_by_name

# Bytes that a request may have; each chunk of an upload has less.
MOST_BYTES = {name: method.GetOptions().Extensions[pb.max_request_bytes] or 65_536 for name, method in METHODS.items()}

# A repeat of these changes nothing: they only read, carry a request_id, or state the whole outcome. A repeat of a
# deletion that worked would answer NOT_FOUND; an upload is not repeated by itself.
REPEATABLE = frozenset(METHODS) - {"CreateDataset", "DeleteDataset", "DeleteRun", "DeleteCheckpoint"}

PAGE = 1_000  # entries of a list that are asked for in one call


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call is repeated within its deadline, after pauses that grow and are shortened at random."""

    attempts: int
    first_pause_seconds: float
    longest_pause_seconds: float
    factor: float


# Longer than a server's restart behind a balancer or a failover of Redis, shorter than the default deadline.
UNAVAILABLE = RetryPolicy(attempts=5, first_pause_seconds=0.1, longest_pause_seconds=2.0, factor=2.5)
# A race that was lost is over within milliseconds.
ABORTED = RetryPolicy(attempts=8, first_pause_seconds=0.05, longest_pause_seconds=1.0, factor=2.0)
# The server has as many calls of this caller as it serves at once. It says how long to wait at least.
TOO_MANY_CALLS = RetryPolicy(attempts=10, first_pause_seconds=0.1, longest_pause_seconds=2.0, factor=2.5)


@dataclass(frozen=True)
class Call:
    """One call of the service.

    requests        for CreateDataset: makes the stream of requests; otherwise None.
    timeout         seconds, for everything: connecting, retries, the answer.
    each            for a method that answers with a stream: called with each answer.
    wait_for_ready  wait for a connection as long as the timeout; False: fail at once if there is none.
    """

    method: str
    request: Any
    timeout: float
    requests: Callable[[], Iterator[Any]] | None = None
    each: Callable[[Any], object] | None = None
    wait_for_ready: bool = True

    @property
    def request_id(self) -> str:
        """The id of the request; empty: it has none."""
        return getattr(self.request, "request_id", "")


@dataclass(frozen=True)
class Pause:
    """Wait for `seconds`."""

    seconds: float


Steps: TypeAlias = Generator[Call | Pause, Any, T]


def repeated(call: Call, *, unreachable: bool = True, unavailable: bool = True) -> Steps[Any]:
    """Returns the answer of a call, which is repeated within its timeout if that is safe: while it loses races or is
    one of too many calls, and

    unreachable  if the connection breaks.
    unavailable  if the service says UNAVAILABLE, for a reason that may pass.
    """
    end = time.monotonic() + call.timeout
    for attempt in itertools.count(1):
        try:
            return (yield call)
        except (AbortedError, UnavailableError, ResourceExhaustedError) as error:
            policy = policy_for(error)
            if policy is None:
                raise
            pause = min(policy.first_pause_seconds * policy.factor ** (attempt - 1), policy.longest_pause_seconds)
            pause *= _random.uniform(0.5, 1)
            if policy is TOO_MANY_CALLS:
                pause += error.retry_seconds or 0.0
            left = end - time.monotonic() - pause
            patient = policy is not UNAVAILABLE or (unavailable if error.reason else unreachable)
            if call.method not in REPEATABLE or attempt >= policy.attempts or left <= 0 or not patient:
                raise
        yield Pause(pause)
        call = dataclasses.replace(call, timeout=left)
    raise AssertionError("the last attempt returns or raises")


def policy_for(error: BotsError) -> RetryPolicy | None:
    """Returns how a call that failed so is repeated; None: it is not."""
    if isinstance(error, ResourceExhaustedError):
        return TOO_MANY_CALLS if error.reason == "TOO_MANY_CALLS" else None
    return ABORTED if isinstance(error, AbortedError) else UNAVAILABLE


def drive(steps: Steps[T], call: Callable[[Call], Any], pause: Callable[[float], object]) -> T:
    """Returns the result of an operation, its calls made by `call`."""
    try:
        step = next(steps)
        while True:
            try:
                answer = pause(step.seconds) if isinstance(step, Pause) else call(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def drive_async(
    steps: Steps[T], call: Callable[[Call], Awaitable[Any]], pause: Callable[[float], Awaitable[object]]
) -> T:
    """Returns the result of an operation, its calls awaited."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await pause(step.seconds) if isinstance(step, Pause) else await call(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


class Driven(Protocol):
    """What an operation is a method of: a client, a run, a batch."""

    def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""


class DrivenAsync(Protocol):
    """The same for asyncio."""

    async def drive(self, steps: Steps[T], /) -> T:
        """Returns the result of an operation."""


@overload
def blocking(operation: Callable[Concatenate[Any, P], Steps[T]]) -> Callable[Concatenate[Any, P], T]: ...
@overload
def blocking(
    operation: Callable[Concatenate[Any, P], Steps[Any]], returns: type[T]
) -> Callable[Concatenate[Any, P], T]: ...
def blocking(
    operation: Callable[Concatenate[Any, P], Steps[Any]], returns: Any = None
) -> Callable[Concatenate[Any, P], Any]:
    """Returns the operation as a method that blocks. `returns` tells a type checker what an untyped one returns."""

    @functools.wraps(operation)
    def method(self: Driven, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.drive(operation(self, *args, **kwargs))

    return method


@overload
def awaited(
    operation: Callable[Concatenate[Any, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]: ...
@overload
def awaited(
    operation: Callable[Concatenate[Any, P], Steps[Any]], returns: type[T]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]: ...
def awaited(
    operation: Callable[Concatenate[Any, P], Steps[Any]], returns: Any = None
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Any]]:
    """Returns the operation as a coroutine method; `returns` as for `blocking`."""

    @functools.wraps(operation)
    async def method(self: DrivenAsync, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await self.drive(operation(self, *args, **kwargs))

    return method


def iterated(
    page: Callable[Concatenate[Any, str, P], Steps[tuple[list[T], str]]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Returns an operation that reads one page of a list, from its token, as a method that iterates over the list."""

    @functools.wraps(page)
    def method(self: Driven, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        token = ""
        while True:
            entries, token = self.drive(page(self, token, *args, **kwargs))
            yield from entries
            if not token:
                return

    return method


def async_iterated(
    page: Callable[Concatenate[Any, str, P], Steps[tuple[list[T], str]]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Returns an operation that reads one page of a list, from its token, as a method that iterates over the list."""

    @functools.wraps(page)
    async def method(self: DrivenAsync, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        token = ""
        while True:
            entries, token = await self.drive(page(self, token, *args, **kwargs))
            for entry in entries:
                yield entry
            if not token:
                return

    return method


def has_age(request: Message) -> bool:
    """Returns whether a request says how long ago its id was first sent."""
    return "request_age_seconds" in request.DESCRIPTOR.fields_by_name
