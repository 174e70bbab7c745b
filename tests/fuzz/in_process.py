"""Calls of a server without sockets: what `grpc.server` and a channel do, in the thread of the caller.

All of the server but gRPC itself is real, so that a process makes a thousand calls a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, TypeAlias
from unittest.mock import patch

import grpc
from prometheus_client import CollectorRegistry

from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.methods import MAX_MESSAGE_BYTES
from bots_server.process.server import make_server
from bots_server.process.settings import Settings
from bots_server.store import Store, connect
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
Ask: TypeAlias = Callable[..., Any]


class CallDetails(NamedTuple):
    """What an interceptor knows of a call."""

    method: str
    invocation_metadata: Metadata


@dataclass
class Refused(grpc.RpcError):
    """The status of a call that failed."""

    status: grpc.StatusCode
    message: str
    trailing: Metadata = ()

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self.message

    def trailing_metadata(self) -> Any:
        return self.trailing


grpc.Call.register(Refused)


@dataclass(eq=False)
class Context:
    """The part of `grpc.ServicerContext` that the server uses, for a call that is never cut."""

    metadata: Metadata
    end: float
    trailing: Metadata = ()

    def invocation_metadata(self) -> Metadata:
        return self.metadata

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.trailing = metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Refused(code, details, self.trailing)

    def time_remaining(self) -> float:
        return self.end - time.monotonic()

    def is_active(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def cancel(self) -> None:
        """Does nothing."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@dataclass
class InProcess:
    """Both ends: what `make_server` takes for a server, and what a stub takes for a channel.

    metadata: of each call that is made
    """

    metadata: Metadata
    interceptors: Sequence[grpc.ServerInterceptor] = ()
    handlers: list[grpc.GenericRpcHandler] = field(default_factory=list)

    def server(self, _pool: Any, *, interceptors: Sequence[grpc.ServerInterceptor], **_options: Any) -> InProcess:
        """Stands in for `grpc.server`."""
        self.interceptors = interceptors
        return self

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self.handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """These are the same as the generic ones."""

    def add_insecure_port(self, address: str) -> int:
        return 1

    def start(self) -> None:
        """Does nothing."""

    def stop(self, grace: float) -> threading.Event:
        (stopped := threading.Event()).set()
        return stopped

    def calling_as(self, metadata: Metadata) -> InProcess:
        """Returns another channel to the same server."""
        return replace(self, metadata=metadata)

    def stub(self) -> TaskSelectionServiceStub:
        channel: Any = self
        return TaskSelectionServiceStub(channel)

    def unary_unary(self, path: str, **serializers: Any) -> Ask:
        ask = self.stream_stream(path, **serializers)
        return lambda request, timeout: only(ask([request], timeout))

    def stream_unary(self, path: str, **serializers: Any) -> Ask:
        ask = self.stream_stream(path, **serializers)
        return lambda requests, timeout: only(ask(requests, timeout))

    def unary_stream(self, path: str, **serializers: Any) -> Ask:
        ask = self.stream_stream(path, **serializers)
        return lambda request, timeout: Responses(ask([request], timeout))

    def stream_stream(
        self, path: str, request_serializer: Any = bytes, response_deserializer: Any = bytes, **_options: Any
    ) -> Ask:
        """Returns what makes a call and yields its responses."""

        def ask(requests: Iterable[Any], timeout: float) -> Iterator[Any]:
            messages = [request_serializer(request) for request in requests]
            if any(len(message) > MAX_MESSAGE_BYTES for message in messages):
                raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max")
            for response in self._call(path, iter(messages), timeout):
                yield response_deserializer(response)

        return ask

    def _call(self, path: str, requests: Iterator[bytes], seconds: float) -> Iterator[bytes]:
        def find(details: Any) -> Any:
            return next(filter(None, (handler.service(details) for handler in self.handlers)))

        details: Any = CallDetails(path, self.metadata)
        (interceptor,) = self.interceptors
        handler: Any = interceptor.intercept_service(find, details)
        context = Context(self.metadata, time.monotonic() + seconds)
        try:
            if handler.response_streaming:
                yield from map(handler.response_serializer, handler.stream_stream(requests, context))
            else:
                yield handler.stream_unary(requests, context)
        except Refused:
            raise
        except Exception as error:  # as gRPC does
            raise Refused(grpc.StatusCode.UNKNOWN, repr(error)) from error


@dataclass
class Responses:
    """The responses of a stream."""

    responses: Any

    def __iter__(self) -> Iterator[Any]:
        return iter(self.responses)

    def __next__(self) -> Any:
        return next(self.responses)

    def cancel(self) -> None:
        self.responses.close()


def only(responses: Iterable[Any]) -> Any:
    (response,) = responses
    return response


@contextmanager
def serving_in_process(url: str, metadata: Metadata = (), **settings: Any) -> Iterator[tuple[Service, InProcess]]:
    """Yields a server over the Redis at `url`, and a channel to it."""
    redis, registry, local = connect(url, timeout_seconds=5.0), CollectorRegistry(), InProcess(metadata)
    chosen = Settings(port=0, threads=1, **settings)
    store = Store(redis, history_bytes=chosen.history_bytes, quotas=chosen.quotas)
    with patch("grpc.server", local.server):
        server = make_server(store, chosen, Metrics(registry, ("SelectBatch",)))
    server.start()
    try:
        yield Service("", url, local.stub(), server, store, redis, registry), local
    finally:
        server.stop(0)
        store.close()
