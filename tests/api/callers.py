"""Token files, and calls with tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.callers import hashed
from tests.api.service import Service


def write(path: Path, callers: Mapping[str, str]) -> Path:
    """Writes a token file. `callers`: from token to `identity role datasets`."""
    path.write_text("".join(f"{words} {hashed(token)}\n" for token, words in callers.items()))
    return path


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Sends a token with each call."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=bearer(self._token)), request)

    intercept_unary_stream = intercept_unary_unary

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self.intercept_unary_unary(continuation, client_call_details, request_iterator)


@contextmanager
def caller(service: Service, token: str) -> Iterator[Service]:
    """Yields the service as a caller with a token meets it."""
    with grpc.insecure_channel(service.address) as channel:
        stub = TaskSelectionServiceStub(grpc.intercept_channel(channel, _Bearer(token)))
        fields = {name: getattr(service, name) for name in service.__dataclass_fields__}
        yield Service(**fields | {"stub": stub})
