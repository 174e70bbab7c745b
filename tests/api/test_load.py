"""Load: long calls are bounded and take no thread from short ones; a caller's deadline bounds every wait."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from prometheus_client import CollectorRegistry

from bots.v1 import error_details_pb2 as details
from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.admission import ShortCalls
from bots_server.errors import DeadlineExceeded, TooManyCalls
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.replica import Replica
from bots_server.runs.selection import Drawn, draw
from bots_server.store import within
from bots_server.telemetry.metrics import Metrics
from tests.api.callers import caller, write
from tests.api.service import SECONDS, Run, Service, dataset_parts, reason_of, serving, status_of
from tests.valkey import valkey

SMALL = {"threads": 2, "max_long_calls": 3, "max_long_calls_per_caller": 3}
SLOW = [("grpc.http2.lookahead_bytes", 4096), ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def service(redis_url: str) -> Iterator[Service]:
    """A server with two threads for short calls and three for long ones."""
    with serving(redis_url, **SMALL) as service:
        service.dataset("tasks", 300_000)
        service.create("tasks", "policy")
        yield service


def context(peer: str) -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, SimpleNamespace(peer=lambda: peer))


def selects(service: Service) -> list[float]:
    """Returns the seconds of ten selections."""
    run, seconds = service.run("tasks", "policy"), []
    for _ in range(10):
        begin = time.monotonic()
        run.select(8)
        seconds.append(time.monotonic() - begin)
    return seconds


def test_slow_readers_delay_no_selection(service: Service) -> None:
    """Eight GetPosteriors that nobody reads: three are served, the others are refused, selections go on."""
    refused: set[tuple[object, ...]] = set()
    with grpc.insecure_channel(service.address, SLOW) as channel:
        stub = TaskSelectionServiceStub(channel)
        request = pb.GetPosteriorsRequest(run=pb.RunRef(dataset="tasks", name="policy"))
        calls = []
        for _ in range(8):
            call = stub.GetPosteriors(request, timeout=60)
            try:
                next(call)
                calls.append(call)
            except grpc.RpcError as error:
                refused.add((error.code(), reason_of(error), "at most 3 long calls" in (error.details() or "")))
        assert len(calls) == 3
        assert refused == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", True)}
        assert max(selects(service)) < 2
        for call in calls:
            call.cancel()
    wait_until_free(service)


def test_uploads_delay_no_selection(service: Service) -> None:
    """A hundred uploads over a slow link: three are served at once, the others are refused, selections go on."""
    header, chunk = dataset_parts("new", 2048)
    begun, proceed = threading.Semaphore(0), threading.Event()

    def slow(number: int) -> Iterator[pb.CreateDatasetRequest]:
        own = pb.DatasetHeader()
        own.CopyFrom(header)
        own.name = f"new-{number}"
        yield pb.CreateDatasetRequest(header=own)
        begun.release()
        proceed.wait(SECONDS)
        yield pb.CreateDatasetRequest(chunk=chunk)

    def upload(number: int) -> object:
        try:
            return service.stub.CreateDataset(slow(number), timeout=60).created
        except grpc.RpcError as error:
            return reason_of(error)

    with ThreadPoolExecutor(100) as threads:
        uploads = [threads.submit(upload, number) for number in range(100)]
        service.wait_until(lambda: sum(one.done() for one in uploads) == 97)
        assert max(selects(service)) < 2
        proceed.set()
    answers = [one.result() for one in uploads]
    assert (answers.count(True), answers.count("TOO_MANY_CALLS")) == (3, 97)


def test_watches_are_bounded_and_end_with_their_callers(service: Service) -> None:
    """The place of a watch is free again soon after its caller left."""
    request = pb.WatchRunRequest(run=pb.RunRef(dataset="tasks", name="policy"), interval_seconds=60)
    watches = [service.stub.WatchRun(request, timeout=60) for _ in range(3)]
    for watch in watches:
        next(watch)
    with pytest.raises(grpc.RpcError) as refused:
        next(service.stub.WatchRun(request, timeout=60))
    assert reason_of(refused.value) == "TOO_MANY_CALLS"
    for watch in watches:
        watch.cancel()
    wait_until_free(service)


def test_more_calls_than_can_be_queued_are_refused(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESOURCE_EXHAUSTED at once, in place of a queue without a bound."""
    monkeypatch.setattr("bots_server.process.server.QUEUED_PER_THREAD", 1)
    with serving(redis_url, threads=1, max_long_calls=1) as service:
        service.dataset("tasks", 100)
        run = service.create("tasks", "policy")
        watch = service.stub.WatchRun(pb.WatchRunRequest(run=run.ref), timeout=60)
        next(watch)
        with ThreadPoolExecutor(16) as threads:
            calls = [threads.submit(status_of_select, run) for _ in range(64)]
            codes = {call.result() for call in calls}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes
        watch.cancel()


def test_call_waits_for_another_ones_sync_no_longer_than_its_deadline() -> None:
    """While Redis hangs and one call waits for it, the others leave when their callers do."""
    with valkey() as redis, serving(redis.url, redis_timeout_seconds=20.0) as service:
        service.dataset("tasks", 100)
        run = service.create("tasks", "policy")
        record = service.store.runs.get(service.store.datasets.get("tasks"), "policy")
        datasets = DatasetCache(service.store, Memory(2**30))
        replica = Replica(service.store, Metrics(CollectorRegistry()), datasets, record, threading.Event())
        replica.view()
        redis.pause()
        try:
            with ThreadPoolExecutor(1) as threads:
                first = threads.submit(replica.view)
                service.wait_until(replica._lock.locked)
                begin = time.monotonic()
                with within(0.2), pytest.raises(DeadlineExceeded):
                    replica.view()
                assert 0.2 <= time.monotonic() - begin < 5
                redis.resume()
                assert first.result().posterior.version == 0
        finally:
            redis.resume()
        assert status_of_select(run) is grpc.StatusCode.OK


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Semaphore, threading.Event]]:
    """Makes selections with a seed wait until the event is set; the semaphore counts those that wait."""
    begun, proceed = threading.Semaphore(0), threading.Event()

    def waiting(*arguments: Any) -> Drawn:
        begun.release()
        proceed.wait(SECONDS)
        return draw(*arguments)

    monkeypatch.setattr("bots_server.api.selections.draw", waiting)
    yield begun, proceed
    proceed.set()


def test_flood_of_one_identity_delays_no_other(
    redis_url: str, tmp_path: Path, blocked: tuple[threading.Semaphore, threading.Event]
) -> None:
    """H4: two of its calls are in progress, others wait, further ones are refused, and another identity is served."""
    begun, proceed = blocked
    tokens = write(tmp_path / "tokens", {"one": "flood train *", "other": "trainer train *"})
    with (
        serving(redis_url, tokens_file=tokens, threads=8, max_calls_per_caller=4) as service,
        caller(service, "one") as flood,
        caller(service, "other") as trainer,
        ThreadPoolExecutor(4) as threads,
    ):
        flood.dataset("tasks", 100)
        run = flood.create("tasks", "policy")
        calls = [threads.submit(run.select, 1, seed=seed) for seed in range(4)]
        for _ in range(2):
            assert begun.acquire(timeout=SECONDS)
        service.wait_until(lambda: status_of_select(run) is grpc.StatusCode.RESOURCE_EXHAUSTED)
        with pytest.raises(grpc.RpcError) as refused:
            run.select(1)
        assert reason_of(refused.value) == "TOO_MANY_CALLS"
        retry = status_of(refused.value).details[-1]
        assert details.RetryInfo.FromString(retry.value).retry_delay.nanos == 500_000_000
        assert trainer.run("tasks", "policy").select(8).tasks
        assert not begun.acquire(blocking=False)
        proceed.set()
        assert all(call.result().tasks for call in calls)
        assert run.select(1).tasks


def test_callers_without_identity_are_told_apart_by_connection() -> None:
    """Each connection has a bound of its own, and gets its place back."""
    calls, one, other = ShortCalls(1, threading.Event()), context("ipv4:10.0.0.1:1000"), context("ipv4:10.0.0.1:2000")
    for _ in range(2):
        with (
            calls.admitted("", one),
            calls.admitted("", other),
            pytest.raises(TooManyCalls, match="at most 1 calls of one caller at once"),
            calls.admitted("", one),
        ):
            pass


def test_call_waits_for_its_turn_no_longer_than_its_deadline() -> None:
    """A call that waits leaves when its caller does, and its place is free again."""
    calls, one = ShortCalls(3, threading.Event()), context("ipv4:10.0.0.1:1000")
    with calls.admitted("", one), calls.admitted("", one):
        for _ in range(2):
            with pytest.raises(DeadlineExceeded), within(0.05), calls.admitted("", one):
                pass


def status_of_select(run: Run) -> grpc.StatusCode:
    try:
        run.select(1)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def wait_until_free(service: Service) -> None:
    """Returns when three long calls are admitted again, one by one as their places become free."""
    request = pb.WatchRunRequest(run=pb.RunRef(dataset="tasks", name="policy"))
    watches: list[Any] = []

    def opened() -> bool:
        watch = service.stub.WatchRun(request, timeout=60)
        try:
            next(watch)
        except grpc.RpcError:
            return False
        watches.append(watch)
        return len(watches) == 3

    service.wait_until(opened)
    for watch in watches:
        watch.cancel()
