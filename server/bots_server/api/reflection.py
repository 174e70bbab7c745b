"""Server reflection, bounded: a stream takes one of a few threads of its own, and ends."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

STREAMS = 2
STREAM_SECONDS = 60.0


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """The standard servicer, whose streams are cancelled after STREAM_SECONDS."""

    def ServerReflectionInfo(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        end = threading.Timer(STREAM_SECONDS, context.cancel)
        end.daemon = True
        end.start()
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            end.cancel()


Reflection.ServerReflectionInfo.experimental_thread_pool = (  # type: ignore[attr-defined]
    ThreadPoolExecutor(STREAMS, "reflection")
)
