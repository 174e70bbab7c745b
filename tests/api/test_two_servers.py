"""The shipped layout: two servers and clients that stay with one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.core.draw import SelectionSpec
from bots_server.core.posterior import Posterior
from bots_server.core.tasks import Tasks
from bots_server.runs.selection import Drawn, draw
from tests.api.service import Run, Service, serving


def calls(service: Service) -> float:
    return service.sample("bots_rpcs_total", method="SelectBatch", code="OK") or 0.0


@pytest.fixture
def two(redis_url: str) -> Iterator[tuple[Service, Service]]:
    """Two servers over one Redis, which close connections after half a second, with a run."""
    with serving(redis_url, connection_age_seconds=0.5) as one, serving(redis_url, connection_age_seconds=0.5) as other:
        one.dataset("tasks", 100)
        one.create("tasks", "policy")
        yield one, other


@contextmanager
def client(*services: Service) -> Iterator[Run]:
    """Yields a client that stays with one of the servers while that takes its calls."""
    target = "ipv4:" + ",".join(service.address for service in services)
    with grpc.insecure_channel(target, [("grpc.lb_policy_name", "pick_first")]) as channel:
        yield Run(TaskSelectionServiceStub(channel), services[0].run("tasks", "policy").ref)


def test_prefetch_works_for_a_client_that_stays_with_one_server(
    two: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty steps, all at one server, each but the first finds its selection drawn."""
    drawn: list[str] = []

    def counted(posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> Drawn:
        made = draw(posterior, tasks, spec)
        drawn.append(threading.current_thread().name)
        return made

    monkeypatch.setattr("bots_server.runs.prefetch.draw", counted)
    with client(*two) as run:
        for step in range(1, 21):
            run.answer(run.select(4))
            Service.wait_until(lambda wanted=step + 1: len(drawn) == wanted)  # type: ignore[misc]
    assert sorted((calls(two[0]), calls(two[1]))) == [0, 20]
    assert len([name for name in drawn if name.startswith("calls")]) == 1


def test_calls_survive_connections_that_are_closed_by_age(two: tuple[Service, Service]) -> None:
    """Four clients select without a pause over several lives of their connections: no call fails."""
    stop = threading.Event()

    def train() -> int:
        steps = 0
        with client(*two) as run:
            while not stop.is_set():
                run.answer(run.select(4))
                steps += 1
        return steps

    with ThreadPoolExecutor(4) as threads:
        trainers = [threads.submit(train) for _ in range(4)]
        stop.wait(3)
        stop.set()
        assert all(trainer.result() > 10 for trainer in trainers)
