"""Calls are bounded for each caller, so that no caller delays the calls of others.

Long calls are bounded in time too, and so is the wait for a request: each holds a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc

from bots_server.api.share import Presence, Share
from bots_server.errors import CallTooLong, TooManyCalls, UploadTooSlow
from bots_server.runs.turn import on_turn

CALL_SECONDS = 0.001  # of a processor, that gRPC takes for a short call on top of what is measured

LONG_CALLS = "long calls (WatchRun, GetPosteriors, CreateDataset)"

Item = TypeVar("Item")


@dataclass(eq=False)
class LongCall:
    """One admitted call. It ends itself when `over`; while it sends, `LongCalls.cancel_stalled` watches it."""

    who: str
    share: Share
    context: grpc.ServicerContext
    end: float  # on the monotonic clock
    sending_since: float | None = field(default=None)
    paid_until: float = field(default_factory=time.thread_time)  # of the thread that answers

    def pay(self) -> None:
        """Meters what the call has taken since it paid last."""
        now = time.thread_time()
        self.share.spend(max(0.0, now - self.paid_until))
        self.paid_until = now

    @property
    def over(self) -> bool:
        """Returns whether the call has had its time."""
        return time.monotonic() > self.end


class LongCalls:
    """At most `limit` of WatchRun, GetPosteriors and CreateDataset at once. Short calls have threads of their own.

    per_caller:   at most so many of one caller: its identity, or its host if callers have no identity
    seconds:      most time that a call takes
    idle_seconds: most time that it waits for its caller: for the next chunk, or to take what is sent
    """

    def __init__(self, short: ShortCalls, limit: int, per_caller: int, seconds: float, idle_seconds: float) -> None:
        self._short_calls, self._limit, self._per_caller = short, limit, per_caller
        self._seconds, self._idle_seconds = seconds, idle_seconds
        self._lock = threading.Lock()
        self._calls: set[LongCall] = set()

    @contextmanager
    def admitted(self, identity: str, context: grpc.ServicerContext) -> Iterator[LongCall]:
        """Admits one call for the duration of the block. Raises TooManyCalls."""
        who, share = identity or context.peer().rpartition(":")[0], self._short_calls.share_of_long_calls(identity)
        call = LongCall(who, share, context, time.monotonic() + self._seconds)
        with self._lock:
            if len(self._calls) >= self._limit:
                raise TooManyCalls(self._limit, LONG_CALLS)
            if sum(other.who == call.who for other in self._calls) >= self._per_caller:
                raise TooManyCalls(self._per_caller, f"{LONG_CALLS} of one caller")
            self._calls.add(call)
        try:
            yield call
        finally:
            call.pay()
            with self._lock:
                self._calls.discard(call)

    def responses(self, call: LongCall, responses: Iterator[Item | None]) -> Iterator[Item]:
        """Yields responses until the caller is gone or the call is over.

        None is not sent. It comes before a response is made, which waits until what its caller took is paid, and
        whenever the call should look for its caller.
        """
        for response in responses:
            if not call.context.is_active():
                return
            if call.over:
                raise CallTooLong(self._seconds)
            if response is not None:
                call.sending_since = time.monotonic()
                yield response
                call.sending_since = None
            call.pay()
            if response is None:
                call.share.wait_until_paid()

    def requests(self, call: LongCall, requests: Iterator[Item]) -> Iterator[Item]:
        """Yields requests as they come, each when what earlier ones of its caller took is paid.

        Raises UploadTooSlow if the next one does not come in time, CallTooLong.
        """
        # gRPC's iterator waits without an end, so another thread waits for it. It ends with the call.
        reader = ThreadPoolExecutor(1, thread_name_prefix="upload")

        def following() -> Item | None:
            since = time.thread_time()
            request = next(requests, None)
            call.share.spend(time.thread_time() - since)
            return request

        try:
            while True:
                try:
                    request = reader.submit(following).result(self._idle_seconds)
                except TimeoutError:
                    raise UploadTooSlow(self._idle_seconds) from None
                if request is None:
                    return
                if call.over:
                    raise CallTooLong(self._seconds)
                call.share.wait_until_paid()
                yield request
                call.pay()
        finally:
            reader.shutdown(wait=False)

    def cancel_stalled(self) -> None:
        """Cancels calls whose callers do not take what is sent. Their threads wait in gRPC, and end no other way."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            since = call.sending_since
            if since is not None and time.monotonic() - since > self._idle_seconds:
                call.context.cancel()


class ShortCalls:
    """Of each caller, few calls are in progress at once and further ones wait, at most `per_caller` in all.

    A caller is an identity, or a connection if callers have no identity.
    """

    def __init__(self, per_caller: int, stopping: threading.Event) -> None:
        """stopping: set when the server drains, so that no call waits for its turn much longer"""
        self._per_caller, self._stopping = per_caller, stopping
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}
        self._of_long_calls: dict[str, Share] = {}  # by identity
        self._presence = Presence()

    @contextmanager
    def admitted(self, identity: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Admits one call for the duration of the block, when it is its turn.

        Raises TooManyCalls, DeadlineExceeded, ServerStopping.
        """
        who = identity or context.peer()
        with self._lock:
            share = self._share(self._shares, who, metered=bool(identity))
            if share.calls >= self._per_caller:
                raise TooManyCalls(self._per_caller, "calls of one caller")
            share.calls += 1
        try:
            with on_turn(share):
                share.spend(CALL_SECONDS)
                since = time.thread_time()
                try:
                    yield
                finally:
                    share.spend(time.thread_time() - since)
        finally:
            with self._lock:
                share.end_call()
                if not share.calls and not identity:
                    del self._shares[who]

    def share_of_long_calls(self, identity: str) -> Share:
        """Returns what meters the long calls of an identity; callers without one are not metered."""
        with self._lock:
            if not identity:
                return Share("", Presence(), self._stopping, metered=False)
            return self._share(self._of_long_calls, identity, metered=True)

    def _share(self, shares: dict[str, Share], who: str, *, metered: bool) -> Share:
        """Returns the share of a caller; the lock is held."""
        if (share := shares.get(who)) is None:
            share = shares[who] = Share(who, self._presence, self._stopping, metered=metered)
        return share


class Arrivals:
    """Requests of one message that have not come yet. Each holds a thread, for about `seconds` at most."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[grpc.ServicerContext, float] = {}  # on the monotonic clock

    def only(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """Returns the message of a request; None: it has none. Raises UploadTooSlow, or RpcError if the caller left."""
        begin = self._since[context] = time.monotonic()
        try:
            message = next(requests, None)
        except grpc.RpcError:
            if time.monotonic() - begin <= self._seconds:
                raise
            message = None
        finally:
            del self._since[context]
        if message is None and time.monotonic() - begin > self._seconds:  # it was cancelled
            raise UploadTooSlow(self._seconds)
        return message

    def cancel_late(self) -> None:
        """Cancels calls whose requests do not come. Their threads wait in gRPC, and end no other way."""
        now = time.monotonic()
        for context, since in list(self._since.items()):
            if now - since > self._seconds:
                context.cancel()
