"""The registry: memory is bounded in bytes and freed at once."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from bots_server.errors import RunReplaced, ServerStopping
from bots_server.runs.dataset import array_bytes
from bots_server.runs.registry import Registry
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def registry(service: Service, max_bytes: int = 2**30, idle_seconds: float = 60.0) -> Iterator[tuple[Registry, Clock]]:
    """Yields a registry of its own over a service's Redis, and its clock."""
    clock = Clock()
    made = Registry(
        service.store, Metrics(CollectorRegistry()), max_bytes=max_bytes, idle_seconds=idle_seconds, clock=clock
    )
    yield made, clock
    made.close()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Disables the cyclic garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_dropped_replica_and_its_dataset_are_freed_at_once(letters: Service) -> None:
    """By counting references alone, also after a view, a summary and a prefetch."""
    letters.run("letters", "policy").report([1], [2])
    with registry(letters) as (runs, _):
        replica = runs.open("letters", "policy")
        replica.summary(replica.view().posterior)
        replica.prefetch()
        posterior = replica.view().posterior
        freed: list[weakref.ref[Any]] = [
            weakref.ref(replica),
            weakref.ref(replica.dataset),
            weakref.ref(replica.dataset.tasks),
        ]
        del posterior
        runs.gone(replica)
        del replica
        assert [one() for one in freed] == [None] * 3


def test_memory_is_bounded_in_bytes(letters: Service) -> None:
    """The least recently used runs are dropped; the one used last is held in any case, and held() counts them."""
    letters.dataset("large", 100_000, features={f"f{n}": np.arange(100_000) % (n + 2) for n in range(4)})
    for name in ("one", "two", "three"):
        letters.create("letters", name)
    letters.create("large", "run")
    with registry(letters, max_bytes=2**20) as (runs, _):
        for name in ("one", "two", "one", "three"):
            runs.open("letters", name).view()
        assert [replica.record.name for replica in runs.held()] == ["two", "one", "three"]
        large = runs.open("large", "run")
        large.view()
        assert large.dataset.bytes > 2**20
        assert [replica.record.name for replica in runs.held()] == ["run"]
        runs.open("letters", "one").view()
        assert [replica.record.name for replica in runs.held()] == ["one"]


def test_runs_of_one_dataset_share_it_in_memory(letters: Service) -> None:
    """And it is counted once."""
    letters.create("letters", "other")
    with registry(letters) as (runs, _):
        one, other = runs.open("letters", "policy"), runs.open("letters", "other")
        assert one.dataset is other.dataset


def test_idle_replica_is_dropped(letters: Service) -> None:
    """After idle_seconds without a use."""
    letters.create("letters", "other")
    with registry(letters, idle_seconds=60) as (runs, clock):
        runs.open("letters", "policy").view()
        clock.now = 50
        runs.open("letters", "other").view()
        clock.now = 70
        assert [replica.record.name for replica in runs.held()] == ["other"]


def test_nothing_is_folded_after_the_close(letters: Service) -> None:
    """Runs answer what they have, also one that was dropped while a call uses it; none is read from its beginning."""
    run = letters.run("letters", "policy")
    with registry(letters) as (runs, _):
        run.report([1], [1])
        dropped = runs.open("letters", "policy")
        dropped.view()
        runs.gone(dropped)
        held = runs.open("letters", "policy")
        held.view()
        runs.close()
        assert [replica.view().posterior.version for replica in (held, dropped)] == [1, 1]
        run.report([2], [1])
        runs.gone(held)
        for replica in held, dropped, runs.open("letters", "policy"):
            with pytest.raises(ServerStopping):
                replica.view()


def test_stale_uid_evicts_nothing(letters: Service) -> None:
    """And costs one look-up in the store."""
    with registry(letters) as (runs, _):
        live = runs.open("letters", "policy")
        for _ in range(3):
            with pytest.raises(RunReplaced):
                runs.open("letters", "policy", "0" * 32)
        assert runs.open("letters", "policy") is live
        assert runs.open("letters", "policy", live.record.uid) is live


def test_array_bytes_counts_each_array_once() -> None:
    """In dataclasses and tuples, however often it is referred to."""
    array = np.zeros(100)
    assert array_bytes((array, (array, np.zeros(3, np.int32)))) == 812
