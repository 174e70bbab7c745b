"""Redis away: UNAVAILABLE within the deadline, and all is well when it is back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import bots
from tests.api.service import Service, serving
from tests.valkey import Valkey, valkey

DEADLINE = 1.0


@pytest.fixture
def redis() -> Iterator[Valkey]:
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def service(redis: Valkey) -> Iterator[Service]:
    with serving(redis.url, redis_timeout_seconds=0.2) as service:
        yield service


@pytest.mark.parametrize("fault", ["killed", "hanging"])
def test_calls_fail_within_the_deadline_and_go_on_afterwards(redis: Valkey, service: Service, fault: str) -> None:
    """A trainer never waits on the service longer than its deadline, and never stops because the service is away."""
    service.client.create_dataset("tasks", size=50)
    service.client.create_run("tasks", "policy").report([1], [1], [4])
    with bots.Client(service.address, timeout=DEADLINE) as client:
        run = client.run("tasks", "policy")
        run.select(4)
        redis.kill() if fault == "killed" else redis.pause()
        for call in (lambda: run.select(4), lambda: run.report([2], [1], [4])):
            begin = time.monotonic()
            with pytest.raises(bots.TemporaryError) as away:
                call()
            assert time.monotonic() - begin < DEADLINE + 2  # the machine may be busy
            assert away.value.reason in ("STORE_UNAVAILABLE", "")
        assert health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
        redis.start() if fault == "killed" else redis.resume()
        service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.SERVING)
        version = run.report([3], [1], [4])
        assert version in (2, 3)  # a report that hung may have arrived, once
        assert run.select(4).version == version


def test_a_fallback_keeps_the_trainer_going(redis: Valkey, service: Service) -> None:
    """While Redis is away a run with a fallback gives uniform batches, and its reports arrive once it is back."""
    service.client.create_dataset("tasks", size=50)
    service.client.create_run("tasks", "policy")
    with bots.Client(service.address, timeout=1.0) as client:
        run = client.run("tasks", "policy", fallback=bots.Fallback(size=50))
        run.select(4)
        redis.kill()
        for _ in range(3):
            batch = run.select(4)
            assert batch.fallback
            batch.report(1, 4)
        assert run.pending_reports == 3
        redis.start()
        service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.SERVING)

        def delivered() -> bool:
            run.flush()
            return run.pending_reports == 0

        service.wait_until(delivered)
    assert service.client.run("tasks", "policy").info().version == 3


def health(service: Service) -> int:
    """Returns what the health service says."""
    with grpc.insecure_channel(service.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return int(answer.status)


def test_calls_that_wait_for_one_run_fail_together(redis: Valkey, service: Service) -> None:
    """Where Redis hangs, twelve calls at once wait for one time-out or two, not for one after the other."""
    service.client.create_dataset("tasks", size=50)
    run = service.client.create_run("tasks", "policy")
    run.select(1)
    redis.pause()
    begin = time.monotonic()
    with ThreadPoolExecutor(12) as threads, bots.Client(service.address, timeout=60) as client:
        stub_calls = [threads.submit(select_once, client) for _ in range(12)]
        for call in stub_calls:
            assert call.result() == "STORE_UNAVAILABLE"
    # 0.2 s each, with a repeat of redis-py and three retries of the client: twelve in a row would take 20 s and more.
    assert time.monotonic() - begin < 15
    redis.resume()


def select_once(client: bots.Client) -> str:
    try:
        client.run("tasks", "policy").select(1)
    except bots.TemporaryError as error:
        return error.reason
    return "selected"
