"""What every call passes through: the token, the errors, the access log and the metrics.

Errors are raised once, where they are known, as a `Failure`; here they become statuses. What is no Failure is a bug: it
is logged with its traceback and answered INTERNAL.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc

from bots_server.errors import BadToken, Failure
from bots_server.telemetry.metrics import Metrics

REASON_KEY = "bots-reason"
OPEN_SERVICES = ("/grpc.health.v1.",)  # probes have no token

access_log = logging.getLogger("bots_server.access")
log = logging.getLogger(__name__)

Behavior = Callable[[Any, grpc.ServicerContext], Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.ServerInterceptor):
    """Turns failures into statuses, and says of each call how it ended: once its answer is on the way, not before.

    token: what callers must send as `authorization: Bearer TOKEN`; None: nothing
    """

    def __init__(self, metrics: Metrics, token: str | None = None) -> None:
        self._metrics = metrics
        self._authorization = None if token is None else f"Bearer {token}"
        self._guarded: dict[tuple[str, bool], Handler] = {}  # by method and whether the caller is allowed

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        allowed = self._allowed(handler_call_details)
        guarded = self._guarded.get((method, allowed))
        if guarded is not None:
            return guarded
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        return self._guarded.setdefault((method, allowed), self._guard(handler, method.rsplit("/", 1)[1], allowed))

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
                    for response in behavior(request, context):
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


class Call:
    """One call from its start to its access line."""

    def __init__(self, metrics: Metrics, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self._metrics, self._method, self._request, self._context = metrics, method, request, context
        metrics.begin_rpc()
        self._start = time.perf_counter()

    def fail(self, error: Exception) -> NoReturn:
        """Ends the call with the status of its error."""
        if isinstance(error, Failure):
            self.end(error.code, message=str(error))
            self._abort(error.code, error.reason, str(error))
        if not self._context.is_active():  # the caller went away: whatever broke, nobody hears
            self.end(grpc.StatusCode.CANCELLED, message=repr(error))
            raise error
        log.error("%s failed", self._method, exc_info=error)
        self.end(grpc.StatusCode.INTERNAL, message=type(error).__name__)
        self._abort(grpc.StatusCode.INTERNAL, "BUG", "this is a bug in the server; its log has the traceback")

    def end(self, code: grpc.StatusCode, response: Any = None, message: str = "") -> None:
        """Has the call counted, and its access line written, when gRPC is through with it: its caller does not wait.

        By gRPC's own thread, which takes all calls in: it stands still while a line cannot be written.
        """
        seconds = time.perf_counter() - self._start
        account = partial(self._account, code, seconds, response, message)
        if not self._context.add_callback(account):  # the caller went away
            account()

    def _account(self, code: grpc.StatusCode, seconds: float, response: Any, message: str) -> None:
        self._metrics.observe_rpc(self._method, code.name, seconds)
        if not access_log.isEnabledFor(logging.INFO):
            return
        fields = {name: getattr(self._request, name, "") for name in ("dataset", "run", "name", "job", "request_id")}
        fields["version"] = getattr(response, "version", "")
        fields = {name: value for name, value in fields.items() if isinstance(value, str | int) and value != ""}
        access_log.info(
            "%s %s %.1f ms%s",
            self._method,
            code.name,
            seconds * 1e3,
            f": {message}" if message else "",
            extra={"fields": {"method": self._method, "code": code.name, "seconds": round(seconds, 6), **fields}},
        )

    def _abort(self, code: grpc.StatusCode, reason: str, message: str) -> NoReturn:
        self._context.set_trailing_metadata(((REASON_KEY, reason),))
        self._context.abort(code, message)
        raise AssertionError("abort raises")
