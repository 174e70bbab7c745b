"""One history: no server goes on from a past that Redis forgot."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import bots
from bots_server.core.posterior import alpha_beta
from bots_server.runs.dataset import load
from bots_server.runs.replica import Replica
from bots_server.store import Store
from bots_server.telemetry.metrics import Metrics
from tests.api.service import Service, serving


def forget(service: Service, kept: dict[bytes, bytes]) -> None:
    """Takes Redis back to what it held: as a failover to a lagging replica does, or an older append-only file."""
    service.redis.flushall()
    for key, value in kept.items():
        service.redis.restore(key, 0, value)


def held(service: Service) -> dict[bytes, bytes]:
    return {key: value for key, value in service.state().items() if isinstance(value, bytes)}


@pytest.mark.parametrize("later", [0, 3, 5, 8])
def test_a_server_ahead_of_redis_rebuilds(letters: Service, later: int) -> None:
    """A server that folded five events which Redis lost answers from what Redis has, whatever was appended meanwhile:
    nothing, fewer, as many, or more."""
    ahead = letters.client.run("letters", "policy")
    for task in range(10):
        ahead.report([task], [1], [4])
    kept = held(letters)
    for _ in range(5):
        ahead.report([20], [4], [4])
    assert ahead.posteriors()[0][20] > 10
    forget(letters, kept)
    with serving(letters.redis_url) as other:
        there = other.client.run("letters", "policy")
        for _ in range(later):
            there.report([21], [0], [4])
        expected = there.posteriors()
        here = letters.client.run("letters", "policy")
        np.testing.assert_array_equal(here.posteriors()[0], expected[0])
        np.testing.assert_array_equal(here.posteriors()[1], expected[1])
        assert here.select(3).version == 10 + later


def test_a_server_that_was_away_reads_the_newest_snapshot(letters: Service) -> None:
    """A server that was away for 310 events folds the ten after the newest snapshot alone, equal to the last bit."""
    run = letters.client.create_run("letters", "away", retention=bots.Retention(snapshot_interval=100_000))
    store = Store(letters.redis)
    record = store.runs.get(store.datasets.get("letters"), "away")
    registry, dataset = CollectorRegistry(), load(store, "letters", record.dataset_uid)
    replica, other = (Replica(store, Metrics(each), record, dataset) for each in (registry, CollectorRegistry()))
    replica.view()
    for step in range(310):
        if step == 300:
            other.view()
            assert other.snapshot()
        run.report([step % 26], [step % 5], [4])
    posterior = replica.view().posterior
    assert (posterior.version, posterior.updates) == (310, 310)
    assert registry.get_sample_value("bots_fold_lag_events_sum") == 10
    np.testing.assert_array_equal(alpha_beta(posterior, replica.dataset.tasks, None), run.posteriors())


def test_a_snapshot_of_a_lost_history_is_refused(letters: Service) -> None:
    """A snapshot stands on an event that Redis has, or Redis does not take it."""
    run = letters.client.create_run("letters", "kept", retention=bots.Retention(snapshot_interval=100_000))
    run.report([0], [1], [4])
    before = held(letters)
    run.report([1], [1], [4])
    store = Store(letters.redis)
    record = store.runs.get(store.datasets.get("letters"), "kept")
    dataset = load(store, "letters", record.dataset_uid)
    replica = Replica(store, Metrics(CollectorRegistry()), record, dataset)
    replica.view()
    forget(letters, before)
    with serving(letters.redis_url) as other:
        other.client.run("letters", "kept").report([2], [1], [4])
        assert not replica.snapshot()
        expected = other.client.run("letters", "kept").posteriors()
        assert replica.view().posterior.version == 2
        assert replica.snapshot()
        np.testing.assert_array_equal(run.posteriors()[0], expected[0])


def test_a_new_server_meets_a_trimmed_history_far_on(letters: Service) -> None:
    """Versions far beyond the history are restored and go on, on every server."""
    run = letters.client.create_run(
        "letters", "long", retention=bots.Retention(snapshot_interval=5, history=10, history_stride=5)
    )
    for step in range(120):
        run.report([step % 26], [step % 5], [4])
    kept = run.posteriors()
    assert run.restore(version=115) == 121
    for step in range(120):
        run.report([step % 26], [2], [4])
    assert run.restore(version=235) == 242
    with serving(letters.redis_url) as other:
        there = other.client.run("letters", "long")
        np.testing.assert_array_equal(there.posteriors()[0], run.posteriors()[0])
        assert there.info().version == 242
    assert not np.array_equal(kept[0], run.posteriors()[0])
