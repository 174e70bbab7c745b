"""One history: no server goes on from a past that Redis forgot, and none folds an event that it does not understand."""

import logging
import threading

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from bots_server.core.posterior import alpha_beta
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.replica import Replica
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import codec
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service, new_id, reason_of, serving


def forget(service: Service, kept: dict[bytes, bytes]) -> None:
    """Takes Redis back to an earlier state: as a failover to a lagging replica does, or an older append-only file."""
    (redis,) = service.redis.primaries()
    redis.flushall()
    for key, value in kept.items():
        redis.restore(key, 0, value)


def held(service: Service) -> dict[bytes, bytes]:
    return {key: value for key, value in service.state().items() if isinstance(value, bytes)}


def replica_of(service: Service, registry: CollectorRegistry | None = None) -> Replica:
    """Returns a replica of the run `policy` of `letters`."""
    record = service.store.runs.get(service.store.datasets.get("letters"), "policy")
    metrics = Metrics(registry or CollectorRegistry())
    return Replica(service.store, metrics, DatasetCache(service.store, Memory(2**30)), record, threading.Event())


@pytest.mark.parametrize("later", [0, 3, 5, 8])
def test_server_ahead_of_redis_rebuilds(letters: Service, later: int) -> None:
    """A server that folded five events which Redis lost answers from what Redis has, whatever was appended meanwhile:
    nothing, fewer, as many, or more."""
    ahead = letters.run("letters", "policy")
    for task in range(10):
        ahead.report([task], [1])
    kept = held(letters)
    for _ in range(5):
        ahead.report([20], [4])
    assert ahead.posteriors()[0][20] > 10
    forget(letters, kept)
    with serving(letters.redis_url) as other:
        there = other.run("letters", "policy")
        for _ in range(later):
            there.report([21], [0])
        np.testing.assert_array_equal(ahead.posteriors(), there.posteriors())
        assert ahead.select(3).version == 10 + later


def test_server_says_once_that_a_run_is_gone(letters: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Redis was emptied below a server that holds the run. The names can be used again."""
    run = letters.run("letters", "policy")
    run.select(3)
    (redis,) = letters.redis.primaries()
    redis.flushall()
    with caplog.at_level(logging.INFO, "bots_server.api.servicer"):
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refused:
                run.select(3)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    (record,) = caplog.records
    assert "run letters/policy, uid " in record.getMessage()
    assert "is gone: deleted elsewhere, or Redis was emptied" in record.getMessage()


def test_server_that_was_away_reads_the_newest_snapshot(letters: Service) -> None:
    """It folds the events after that alone, equal to the last bit."""
    run, registry = letters.run("letters", "policy"), CollectorRegistry()
    replica = replica_of(letters, registry)
    replica.view()
    for step in range(310):
        run.report([step % 26], [step % 5])
        if step == 300:
            letters.wait_until(lambda: letters.sample("bots_snapshots_total", outcome="stored"))
    posterior = replica.view().posterior
    assert (posterior.version, posterior.state.updates) == (310, 310)
    folded = registry.get_sample_value("bots_fold_lag_events_sum")
    assert folded is not None
    assert folded <= 310 - 256
    np.testing.assert_array_equal(alpha_beta(posterior, replica.dataset.tasks, None), run.posteriors())


def test_snapshot_of_a_lost_history_is_refused(letters: Service) -> None:
    """Redis takes a snapshot of an event that it has, and no other."""
    run = letters.run("letters", "policy")
    run.report([0], [1])
    before = held(letters)
    run.report([1], [1])
    replica = replica_of(letters)
    posterior, nonce = replica.view().posterior, replica._state.nonce  # type: ignore[union-attr]
    forget(letters, before)
    run.report([2], [1])
    assert not letters.store.history.put_snapshot(replica.record, codec.snapshot_message(posterior, nonce))
    assert replica.view().posterior.version == 2
    np.testing.assert_array_equal(alpha_beta(replica.view().posterior, replica.dataset.tasks, None), run.posteriors())


def append(service: Service, event: storage.Event) -> None:
    """Appends an event to `policy`, as a server of another build does."""
    record = service.store.runs.get(service.store.datasets.get("letters"), "policy")
    event.request_id = new_id()
    service.store.history.append(record, event, request_id=event.request_id, digest=b"12345678")


def test_event_of_a_newer_server_makes_the_run_unavailable_here(letters: Service) -> None:
    """SERVER_TOO_OLD, so that the balancer moves on; the run is folded no further, other runs are served."""
    run = letters.run("letters", "policy")
    run.report([0], [1])
    newer = storage.Event(min_reader=99, report=storage.Report(tasks=[1], successes=[1], rollouts=[4]))
    newer.report.MergeFromString(b"\xfa\x01\x01x")  # a field that this build does not know
    append(letters, newer)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refused:
            run.select(1)
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_TOO_OLD")
    assert letters.create("letters", "other").select(1).version == 0


def test_unknown_kind_of_event_is_not_folded(letters: Service) -> None:
    """Also if its writer forgot to say which reader it needs."""
    append(letters, storage.Event(min_reader=1))
    with pytest.raises(grpc.RpcError) as refused:
        letters.run("letters", "policy").select(1)
    assert reason_of(refused.value) == "SERVER_TOO_OLD"


def test_unknown_field_that_changes_no_fold_is_ignored(letters: Service) -> None:
    """Two builds side by side: a field that an old server need not understand does not raise min_reader."""
    run = letters.run("letters", "policy")
    event = storage.Event(min_reader=1, report=storage.Report(tasks=[1], successes=[1], rollouts=[4]))
    event.report.MergeFromString(b"\xfa\x01\x01x")
    append(letters, event)
    run.report([2], [1])
    assert run.select(1).version == 2
    alpha, beta = run.posteriors(tasks=[1, 2])
    np.testing.assert_array_less(1, alpha)
    np.testing.assert_array_less(1, beta)
