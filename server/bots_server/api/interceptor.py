"""What every call passes through: caller, request, deadline, errors, access log and metrics.

The caller is known by its token before its request is read, or by its certificate before its request is decoded. An
exception that is no Failure is a bug: it is logged with its traceback and answered INTERNAL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NoReturn, TypeAlias

import grpc

from bots_server.api.admission import Arrivals, ShortCalls
from bots_server.api.callers import Caller, Callers, calling
from bots_server.api.health import CHECK
from bots_server.api.methods import METHODS, Method
from bots_server.api.status import Bug, code_of, trailing_metadata
from bots_server.errors import AccessDenied, BadToken, Failure, InvalidRequest
from bots_server.runs.turn import off_turn
from bots_server.store import within
from bots_server.telemetry.access import Sampled, log_call
from bots_server.telemetry.metrics import Metrics

NO_DEADLINE_SECONDS = 1e6
CUT_SECONDS = 0.05
REFUSALS_LOGGED = 10  # a second: callers that are refused must not fill the log

log = logging.getLogger(__name__)

Behavior = Callable[[Any, grpc.ServicerContext], Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(grpc.ServerInterceptor):
    """Refuses callers, turns failures into statuses, and accounts for each call."""

    def __init__(self, metrics: Metrics, callers: Callers, arrivals: Arrivals, short_calls: ShortCalls) -> None:
        self._metrics, self._callers = metrics, callers
        self._guarded = cache(self._guard)
        self._arrivals, self._short_calls = arrivals, short_calls
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="refusals")
        self._refusals.submit(int)  # starts the thread: gRPC stops serving if it cannot start one later
        self._logged_refusals = Sampled(REFUSALS_LOGGED)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method == CHECK:
            return handler
        method = METHODS[handler_call_details.method]
        try:
            if (caller := self._callers.by_token(handler_call_details.invocation_metadata)) is not None:
                caller.require(method.role)
        except (BadToken, AccessDenied) as refusal:
            return self._refused(method, refusal)
        return self._guarded(handler, method)

    def _refused(self, method: Method, refusal: Failure) -> Handler:
        """Returns a handler that ends the call without reading its request, in a thread of its own."""

        def answer(_requests: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
            Call(self._metrics, method, context, logged=self._logged_refusals.next()).fail(refusal)

        answer.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        return grpc.stream_unary_rpc_method_handler(answer)

    def _guard(self, handler: Handler, method: Method) -> Handler:
        """Returns a handler that decodes and answers requests. A stream whose caller is no longer valid ends.

        It takes every request as a stream, because gRPC waits without an end for one that is not.
        """

        def decode(call: Call, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            if handler.request_streaming:
                return (method.decode(one, handler.request_deserializer) for one in messages)
            with off_turn():  # the request may take long to come
                message = self._arrivals.only(messages, context)
            call.request = method.decode(message, handler.request_deserializer)
            return call.request

        def identify(call: Call, context: grpc.ServicerContext) -> Caller:
            known = self._callers.by_token(context.invocation_metadata())
            call.caller = one = known or self._callers.by_certificate(context)
            one.require(method.role)
            return one

        def admitted(one: Caller, context: grpc.ServicerContext) -> AbstractContextManager[None]:
            return nullcontext() if handler.request_streaming else self._short_calls.admitted(one.identity, context)

        def unary(behavior: Behavior, serialize: Callable[[Any], bytes]) -> Behavior:
            def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
                call = Call(self._metrics, method, context)
                try:
                    one = identify(call, context)
                    with calling(one), deadline(context), admitted(one, context):
                        response = behavior(decode(call, messages, context), context)
                        encoded = serialize(response)
                except Exception as error:
                    if handler.request_streaming:
                        learn_of_cut(context)
                    call.fail(error)
                call.end(grpc.StatusCode.OK, response)
                return encoded

            return answer

        def stream(behavior: Behavior) -> Behavior:
            def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
                call = Call(self._metrics, method, context)
                response = None
                try:
                    identify(call, context)
                    responses = behavior(decode(call, messages, context), context)
                    while True:
                        with calling(identify(call, context)), deadline(context):
                            following = next(responses, None)
                        if following is None:
                            break
                        identify(call, context)  # the token may have been taken back while a watch waited
                        response = following
                        yield response
                except GeneratorExit:
                    call.end(grpc.StatusCode.CANCELLED, response)
                    raise
                except Exception as error:
                    call.fail(error)
                call.end(grpc.StatusCode.OK, response)

            answer.experimental_thread_pool = getattr(behavior, "experimental_thread_pool", None)  # type: ignore[attr-defined]
            return answer

        if handler.response_streaming:
            streaming = handler.unary_stream or handler.stream_stream
            assert streaming is not None
            return grpc.stream_stream_rpc_method_handler(stream(streaming), None, handler.response_serializer)
        single = handler.unary_unary or handler.stream_unary
        assert single is not None
        assert handler.response_serializer is not None
        return grpc.stream_unary_rpc_method_handler(unary(single, handler.response_serializer))


def learn_of_cut(context: grpc.ServicerContext) -> None:
    """Waits a little for gRPC to say that the call is cut, which it does just after its requests have ended."""
    cut = threading.Event()
    if context.add_callback(cut.set):
        cut.wait(CUT_SECONDS)


def deadline(context: grpc.ServicerContext) -> AbstractContextManager[None]:
    """Returns what bounds the store's waits by the caller's remaining time; without a deadline gRPC has a huge one."""
    seconds = context.time_remaining()
    return nullcontext() if seconds is None or seconds > NO_DEADLINE_SECONDS else within(seconds)


class Call:
    """One call from its start to its access line. `caller` and `request` are set when they are known."""

    def __init__(self, metrics: Metrics, method: Method, context: grpc.ServicerContext, *, logged: bool = True) -> None:
        self._metrics, self._method, self._context, self._logged = metrics, method, context, logged
        self.caller: Caller | None = None
        self.request: Any = None
        metrics.begin_rpc()
        self._start = time.perf_counter()

    def fail(self, error: Exception) -> NoReturn:
        """Ends the call with the status of its error."""
        # The caller is gone, or the server stops, which may be what broke: an upload that is cut looks incomplete.
        cut = not self._context.is_active()
        if cut and (isinstance(error, InvalidRequest) or not isinstance(error, Failure)):
            self.end(grpc.StatusCode.CANCELLED, message=repr(error))
            self._context.abort(grpc.StatusCode.CANCELLED, "cancelled")
        if not isinstance(error, Failure):
            log.error("%s failed", self._method.name, exc_info=error)
            error = Bug()
        code = code_of(error)
        self.end(code, message=str(error))
        self._context.set_trailing_metadata(trailing_metadata(error))
        self._context.abort(code, str(error))
        raise AssertionError("abort raises")

    def end(self, code: grpc.StatusCode, response: Any = None, message: str = "") -> None:
        """Counts the call and writes its access line."""
        seconds = time.perf_counter() - self._start
        self._metrics.observe_rpc(self._method.name, code.name, seconds)
        if self._logged:
            log_call(self._method.name, code.name, seconds, message, self._fields(response))

    def _fields(self, response: Any) -> dict[str, str | int]:
        fields = {name: getattr(self.request, name, "") for name in self._method.logged}
        if (run := getattr(self.request, "run", None)) is not None:
            fields |= {"dataset": run.dataset, "run": run.name}
        fields["version"] = getattr(response, "version", "")
        fields["identity"] = self.caller.identity if self.caller is not None else ""
        fields["peer"] = self._context.peer()
        return fields
