"""The standard health check, which must answer whatever else the server does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

CHECK = "/grpc.health.v1.Health/Check"

STATUS = health_pb2.HealthCheckResponse


class Health(grpc.GenericRpcHandler):
    """Answers Check, for the whole server whatever service is asked for, and without a token.

    It has a thread of its own and never waits: it does not read the request, which a caller could hold back, and the
    answer is sent with the status. Watch and List are UNIMPLEMENTED, as the protocol allows: a stream to a caller that
    reads nothing would hold that thread.
    """

    def __init__(self) -> None:
        self.serving = False

        def check(_requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
            status = STATUS(status=STATUS.SERVING if self.serving else STATUS.NOT_SERVING)
            return bytes(status.SerializeToString())

        pool = ThreadPoolExecutor(1, thread_name_prefix="health")
        pool.submit(int)  # starts the thread: gRPC stops serving if it cannot start one later
        answer: Any = check
        answer.experimental_thread_pool = pool
        self._check: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        return self._check if handler_call_details.method == CHECK else None
