"""The connection to the service: one lazily opened gRPC channel with a deadline and a retry policy."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import grpc

from bots.calls import METHODS, Call
from bots.errors import BotsError, DeadlineExceededError, from_rpc
from bots.fork import GUARD
from bots.target import Target
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub


class Channel:
    """A gRPC channel that opens at the first call; pickled or forked, it opens anew. Safe to share among threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: TaskSelectionServiceStub | None = None
        _channels.add(self)

    def _method(self, name: str) -> Any:
        if self._stub is None:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the client is closed")
                if self._stub is None:
                    self._channel = self._open()
                    self._stub = TaskSelectionServiceStub(self._channel)
        return getattr(self._stub, name)

    def _open(self) -> grpc.Channel:
        address, options = self.target.address(), self.target.options()
        if self.target.tls is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, self.target.tls.credentials(), options)

    def call(self, call: Call) -> Any:
        """Returns the answer, or None after the last answer of a stream. Raises the errors of `bots.errors`."""
        if METHODS[call.method].server_streaming:
            with GUARD.call():
                for answer in self._stream(call):
                    if call.each is not None:
                        call.each(answer)
            return None
        with GUARD.call():
            try:
                return self._call(call)
            except BotsError as error:
                if isinstance(error, DeadlineExceededError) and not error.reason:
                    error.args = (f"{error.args[0]}{self._why()}",)
                raise
            except Exception:
                raise
            except BaseException:
                # An exception of a signal handler may have left a lock of gRPC's channel held for ever.
                _abandoned.append(self._channel)
                self._forget()
                raise

    def stream(self, call: Call) -> Iterator[Any]:
        """Yields the answers of a stream; closing the generator ends the call. Raises the errors of `bots.errors`."""
        with GUARD.unforkable():
            yield from self._stream(call)

    def _call(self, call: Call) -> Any:
        request = call.request if call.requests is None else call.requests()
        try:
            return self._method(call.method)(
                request,
                timeout=call.timeout,
                wait_for_ready=call.wait_for_ready,
                metadata=self.target.metadata(),
            )
        except grpc.RpcError as error:
            raise from_rpc(error, self.target.tried(), call.timeout, call.request_id) from error

    def _stream(self, call: Call) -> Iterator[Any]:
        answers = self._method(call.method)(
            call.request, timeout=call.timeout, wait_for_ready=call.wait_for_ready, metadata=self.target.metadata()
        )
        try:
            yield from answers
        except grpc.RpcError as error:
            raise from_rpc(error, self.target.tried(), call.timeout) from error
        finally:
            answers.cancel()

    def _why(self) -> str:
        """Returns why there is no connection, as gRPC knows it; empty: there is one."""
        channel = self._channel
        if channel is None:
            return ""
        # A method without a retry policy, so that a connection that fails is an answer.
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            check(b"", timeout=0.1, wait_for_ready=False, metadata=self.target.metadata())
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAVAILABLE:
                return f" ({self.target.cause(error.details() or '')})"
        return ""

    def close(self) -> None:
        """Ends the calls under way and refuses new ones."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self.target, "_closed": self._closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
# Channels that must neither be used nor destroyed: interrupted ones and, in the child of a fork, its parent's.
_abandoned: list[grpc.Channel | None] = []


def _after_fork() -> None:
    for channel in tuple(_channels):
        _abandoned.append(channel._channel)
        channel._forget()


os.register_at_fork(after_in_child=_after_fork)
