"""The way to the service: one lazily opened gRPC channel with a deadline, a retry policy and client-side balancing.

Promise: A trainer never waits on the service longer than its deadline, and never stops because the service is away.
The first half is held here: every call has a deadline, and retries, waiting for a connection and the balancing over
servers all happen within it. The second half is `bots.fallback`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from bots.errors import from_rpc
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub

if TYPE_CHECKING:
    Method = grpc.UnaryUnaryMultiCallable
    StreamMethod = grpc.UnaryStreamMultiCallable
    UploadMethod = grpc.StreamUnaryMultiCallable

Request = TypeVar("Request")
Response = TypeVar("Response")

SERVICE = "bots.v1.TaskSelectionService"

# A repeat of these changes nothing: they only read, or carry a request_id, or say the whole outcome.
REPEATABLE = (
    "GetDataset",
    "ListDatasets",
    "CreateRun",
    "GetRun",
    "ListRuns",
    "UpdateRun",
    "SelectBatch",
    "ReportOutcomes",
    "ReleaseSelection",
    "GetPosteriors",
    "GetRunSummary",
    "WatchRun",
    "CreateCheckpoint",
    "ListCheckpoints",
    "RestoreRun",
    "ListEvents",
)
# A repeat of these is safe but misleads (a deletion that worked would answer NOT_FOUND) or is too long to keep.
NOT_REPEATED = ("CreateDataset", "DeleteDataset", "DeleteRun", "DeleteCheckpoint")

# Five attempts (the most that gRPC allows) within 2.5 s or so: longer than a server's restart behind a balancer,
# shorter than the default deadline.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": SERVICE, "method": method} for method in REPEATABLE],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2.5,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # gRPC repeats only what it has kept; the largest report is below this.
    ("grpc.per_rpc_retry_buffer_size", 16 << 20),
    ("grpc.max_receive_message_length", 64 << 20),
    # A server that is back is found within two seconds; gRPC's own default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A host that vanished without a word is noticed in seconds (it also sets TCP_USER_TIMEOUT), not by TCP's quarter of
    # an hour.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class TLS:
    """How to encrypt: paths of PEM files.

    ca_file    whom to trust; None: the certificate authorities that gRPC comes with.
    cert_file  this client's certificate and
    key_file   its key, where the server asks for one. Both or neither.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials for gRPC. OSError: a file cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))


class Channel:
    """A gRPC channel that opens at the first call; pickled or forked, it opens anew. Safe to share among threads."""

    def __init__(self, target: str | Sequence[str], token: str | None, tls: TLS | None) -> None:
        self.target = resolve(target)
        self._token = token
        self._tls = tls
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stub: TaskSelectionServiceStub | None = None
        _channels.add(self)

    @property
    def stub(self) -> TaskSelectionServiceStub:
        """The generated stub. RuntimeError: the client was closed."""
        if self._stub is None:
            with self._lock:
                if self._closed:
                    raise RuntimeError("the client is closed")
                if self._stub is None:
                    self._channel = self._open()
                    self._stub = TaskSelectionServiceStub(self._channel)
        return self._stub

    def _open(self) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(self.target, OPTIONS)
        return grpc.secure_channel(self.target, self._tls.credentials(), OPTIONS)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def call(
        self, method: Method[Request, Response], request: Request, timeout: float, *, wait_for_ready: bool = True
    ) -> Response:
        """Returns the answer to one request.

        timeout         seconds, for everything: connecting, retries, the answer.
        wait_for_ready  wait for a connection as long as the timeout; False: fail at once where there is none.
        Raises the errors of `bots.errors`.
        """
        try:
            return method(request, timeout=timeout, wait_for_ready=wait_for_ready, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error, self.target, timeout) from error

    def stream(self, method: StreamMethod[Request, Response], request: Request, timeout: float) -> Iterator[Response]:
        """Yields the answers to one request; closing the generator ends the call. Raises the errors of
        `bots.errors`.
        """
        call = method(request, timeout=timeout, wait_for_ready=True, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc(error, self.target, timeout) from error
        finally:
            call.cancel()

    def upload(self, method: UploadMethod[Request, Response], requests: Iterator[Request], timeout: float) -> Response:
        """Returns the answer to a stream of requests. Raises the errors of `bots.errors`."""
        try:
            return method(requests, timeout=timeout, wait_for_ready=True, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc(error, self.target, timeout) from error

    def close(self) -> None:
        """Ends the calls under way and refuses new ones."""
        with self._lock:
            self._closed = True
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self.target, "_token": self._token, "_tls": self._tls, "_closed": self._closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
# gRPC's threads do not survive a fork: the child must neither use nor destroy its parent's channels.
_of_the_parent: list[grpc.Channel | None] = []


def _after_fork() -> None:
    for channel in tuple(_channels):
        _of_the_parent.append(channel._channel)
        channel._forget()


os.register_at_fork(after_in_child=_after_fork)


def resolve(target: str | Sequence[str]) -> str:
    """Returns what gRPC calls a target: `target` itself, or several addresses as one.

    ValueError: several, and one of them is not "IP address:port" (or "localhost:port"). Looking up several names would
    take time that no deadline bounds; servers behind one name are reached as "dns:///name:port".
    """
    addresses = target.split(",") if isinstance(target, str) and "/" not in target else target
    if isinstance(addresses, str):
        return addresses
    if len(addresses) == 1:
        return addresses[0]
    hosts = [_host_and_port(address.strip()) for address in addresses]
    if not hosts or len({host.version for host, _ in hosts}) > 1:
        raise ValueError(f"target: {target!r}, must be addresses of one IP version")
    if hosts[0][0].version == 4:
        return "ipv4:" + ",".join(f"{host}:{port}" for host, port in hosts)
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in hosts)


def _host_and_port(address: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]")), int(port)
    except ValueError:
        raise ValueError(
            f"target: {address!r}, must be IP address:port where there are several (or one dns:///name:port)"
        ) from None


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
