"""A real server over a real Redis, and how tests look at both."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

import bots
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.telemetry.metrics import Metrics
from bots_server.process.server import Server
from bots_server.process.settings import Settings
from bots_server.store import Client, Store, connect


@dataclass
class Service:
    """A serving process's parts: a stub on a real channel, the client library, the server, and its Redis."""

    address: str
    redis_url: str
    stub: TaskSelectionServiceStub
    client: bots.Client
    server: Server
    redis: Client

    def state(self) -> dict[bytes, object]:
        """Returns all that is in Redis, the index of names left out, which may know too many."""
        keys = [key for key in self.redis.scan_iter(count=1000) if key != b"bots:datasets"]
        return {key: self.redis.dump(key) for key in keys}

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Returns when the condition holds; fails after so many seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
            time.sleep(0.01)


@contextmanager
def serving(url: str, **settings: Any) -> Iterator[Service]:
    """Yields a server over the Redis at `url`, and ends it."""
    redis = connect(url, timeout_seconds=settings.get("redis_timeout_seconds", 5.0))
    store = Store(redis)
    server = Server(store, Settings(**({"port": 0} | settings)), Metrics(CollectorRegistry()))
    server.start()
    address = f"127.0.0.1:{server.port}"
    try:
        with grpc.insecure_channel(address) as channel, bots.Client(address, timeout=20) as client:
            yield Service(address, url, TaskSelectionServiceStub(channel), client, server, redis)
    finally:
        server.stop(0)
        store.close()


def reason_of(error: grpc.RpcError) -> object:
    """Returns the word for programs that came with an error."""
    assert isinstance(error, grpc.Call)
    return {entry[0]: entry[1] for entry in error.trailing_metadata() or ()}.get("bots-reason")
