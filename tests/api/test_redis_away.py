"""Redis away: UNAVAILABLE within the deadline, and all is well when it is back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import Run, Service, reason_of, serving
from tests.valkey import Valkey, valkey

DEADLINE = 3.0


@pytest.fixture
def redis() -> Iterator[Valkey]:
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def service(redis: Valkey) -> Iterator[Service]:
    with serving(redis.url, redis_timeout_seconds=0.5) as service:
        yield service


@pytest.mark.parametrize("fault", ["killed", "hanging"])
def test_calls_fail_within_the_deadline_and_succeed_afterwards(redis: Valkey, service: Service, fault: str) -> None:
    """Guarantee 6, the server's part: UNAVAILABLE in time, NOT_SERVING, and all is well when Redis is back."""
    service.dataset("tasks", 50)
    run = service.create("tasks", "policy")
    run.report([1], [1])
    run.select(4)
    redis.kill() if fault == "killed" else redis.pause()
    selection = pb.SelectBatchRequest(run=run.ref, batch_size=4)
    report = pb.ReportOutcomesRequest(run=run.ref, tasks=[2], successes=[1], rollouts=[4])
    calls: list[tuple[Any, Any]] = [(run.stub.SelectBatch, selection), (run.stub.ReportOutcomes, report)]
    for call, request in calls:
        begin = time.monotonic()
        with pytest.raises(grpc.RpcError) as away:
            call(request, timeout=DEADLINE)
        assert time.monotonic() - begin < DEADLINE + 2  # the machine may be busy
        assert reason_of(away.value) in ("STORE_UNAVAILABLE", "DEADLINE_EXCEEDED", None)
    service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.NOT_SERVING)
    redis.start() if fault == "killed" else redis.resume()
    service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.SERVING)
    version = run.report([3], [1]).version
    assert version in (2, 3)  # a report that hung may have arrived, once
    assert run.select(4).version == version


def test_calls_that_wait_for_one_run_fail_together(redis: Valkey, service: Service) -> None:
    """While Redis hangs, twelve calls at once wait for one timeout or two, not for one after the other."""
    service.dataset("tasks", 50)
    run = service.create("tasks", "policy")
    run.select(1)
    redis.pause()
    begin = time.monotonic()
    with ThreadPoolExecutor(12) as threads:
        for call in [threads.submit(select_once, run) for _ in range(12)]:
            assert call.result() == "STORE_UNAVAILABLE"
    assert time.monotonic() - begin < 4  # of 0.5 s each, one after the other they would take 6 s
    redis.resume()


def test_absence_is_logged_once(
    redis: Valkey, service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each probe of the health service."""
    monkeypatch.setattr("bots_server.process.server.PROBE_SECONDS", 0.05)
    redis.kill()
    service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.NOT_SERVING)
    time.sleep(0.5)  # ten further probes, of which two would tell
    redis.start()
    service.wait_until(lambda: health(service) == health_pb2.HealthCheckResponse.SERVING)
    lines = [record.getMessage() for record in caplog.records if "serving" in record.getMessage()]
    assert len([line for line in lines if line.startswith("not serving")]) == 1


def health(service: Service) -> int:
    """Returns the answer of the health service."""
    with grpc.insecure_channel(service.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return int(answer.status)


def select_once(run: Run) -> object:
    try:
        run.select(1)
    except grpc.RpcError as error:
        return reason_of(error)
    return "selected"
