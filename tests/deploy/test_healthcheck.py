"""The health check of the container, against a real health service."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bots_server.process.health import complaint


@pytest.fixture
def service() -> Iterator[tuple[health.HealthServicer, str]]:
    """A health service and its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_serving_is_healthy(service: tuple[health.HealthServicer, str]) -> None:
    """A server that says SERVING is healthy; one that says NOT_SERVING is not, and the complaint says so."""
    servicer, address = service
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert complaint(address) is None
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert complaint(address) == f"{address}: NOT_SERVING"


def test_closed_port_is_unhealthy() -> None:
    """If nothing listens at the address, the complaint has the address and the status."""
    said = complaint("127.0.0.1:1")
    assert said is not None
    assert said.startswith("127.0.0.1:1: UNAVAILABLE: ")
