"""What every call passes through: token, deadline, errors, access log and metrics.

An exception that is no Failure is a bug: it is logged with its traceback and answered INTERNAL.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeAlias

import grpc

from bots_server.api.status import Bug, code_of, trailing_metadata
from bots_server.errors import BadToken, Failure
from bots_server.store import within
from bots_server.telemetry.access import log_call
from bots_server.telemetry.metrics import Metrics

OPEN_SERVICES = ("/grpc.health.v1.",)  # probes have no token

NO_DEADLINE_SECONDS = 1e6

log = logging.getLogger(__name__)

Behavior = Callable[[Any, grpc.ServicerContext], Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.ServerInterceptor):
    """Turns failures into statuses, and accounts for each call.

    token: what callers must send as `authorization: Bearer TOKEN`; None: nothing
    """

    def __init__(self, metrics: Metrics, token: str | None = None) -> None:
        self._metrics = metrics
        self._authorization = None if token is None else f"Bearer {token}"

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        return self._guard(handler, method.rsplit("/", 1)[1], self._allowed(handler_call_details))

    def _allowed(self, call: grpc.HandlerCallDetails) -> bool:
        if self._authorization is None:
            return True
        given = dict(call.invocation_metadata or ()).get("authorization", "")
        return hmac.compare_digest(str(given).encode(), self._authorization.encode())

    def _guard(self, handler: Handler, method: str, allowed: bool) -> Handler:
        def unary(behavior: Behavior) -> Behavior:
            def answer(request: Any, context: grpc.ServicerContext) -> Any:
                call = Call(self._metrics, method, request, context)
                try:
                    if not allowed:
                        raise BadToken
                    with deadline(context):
                        response = behavior(request, context)
                except Exception as error:
                    call.fail(error)
                call.end(grpc.StatusCode.OK, response)
                return response

            return answer

        def stream(behavior: Behavior) -> Behavior:
            def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                call = Call(self._metrics, method, request, context)
                response = None
                try:
                    if not allowed:
                        raise BadToken
                    responses = behavior(request, context)
                    while True:
                        with deadline(context):
                            following = next(responses, None)
                        if following is None:
                            break
                        response = following
                        yield response
                except GeneratorExit:
                    call.end(grpc.StatusCode.CANCELLED, response)
                    raise
                except Exception as error:
                    call.fail(error)
                call.end(grpc.StatusCode.OK, response)

            return answer

        if handler.unary_unary:
            make, behavior = grpc.unary_unary_rpc_method_handler, unary(handler.unary_unary)
        elif handler.stream_unary:
            make, behavior = grpc.stream_unary_rpc_method_handler, unary(handler.stream_unary)
        elif handler.unary_stream:
            make, behavior = grpc.unary_stream_rpc_method_handler, stream(handler.unary_stream)
        else:
            assert handler.stream_stream is not None
            make, behavior = grpc.stream_stream_rpc_method_handler, stream(handler.stream_stream)
        return make(behavior, handler.request_deserializer, handler.response_serializer)


def deadline(context: grpc.ServicerContext) -> AbstractContextManager[None]:
    """Returns what bounds the store's waits by the caller's remaining time; without a deadline gRPC has a huge one."""
    seconds = context.time_remaining()
    return nullcontext() if seconds is None or seconds > NO_DEADLINE_SECONDS else within(seconds)


class Call:
    """One call from its start to its access line."""

    def __init__(self, metrics: Metrics, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self._metrics, self._method, self._request, self._context = metrics, method, request, context
        metrics.begin_rpc()
        self._start = time.perf_counter()

    def fail(self, error: Exception) -> NoReturn:
        """Ends the call with the status of its error."""
        if not isinstance(error, Failure):
            if not self._context.is_active():  # the caller is gone, which may be what broke
                self.end(grpc.StatusCode.CANCELLED, message=repr(error))
                raise error
            log.error("%s failed", self._method, exc_info=error)
            error = Bug()
        code = code_of(error)
        self.end(code, message=str(error))
        self._context.set_trailing_metadata(trailing_metadata(error))
        self._context.abort(code, str(error))
        raise AssertionError("abort raises")

    def end(self, code: grpc.StatusCode, response: Any = None, message: str = "") -> None:
        """Counts the call and writes its access line."""
        seconds = time.perf_counter() - self._start
        self._metrics.observe_rpc(self._method, code.name, seconds)
        log_call(self._method, code.name, seconds, message, self._fields(response))

    def _fields(self, response: Any) -> dict[str, str | int]:
        request = self._request
        run = getattr(request, "run", None)
        fields = {name: getattr(request, name, "") for name in ("dataset", "name", "job", "request_id")}
        if run is not None:
            fields |= {"dataset": run.dataset, "run": run.name}
        fields["version"] = getattr(response, "version", "")
        return {name: value for name, value in fields.items() if isinstance(value, str | int) and value != ""}
