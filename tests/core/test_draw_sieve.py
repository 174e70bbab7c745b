"""The sieve: with numeric features, only the tasks whose draws may be near the target are computed."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bots_server.core.draw import sieve
from bots_server.core.draw.sieve import REACH, heights
from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.item_response.moments import matching_beta
from bots_server.core.posterior import Posterior, Report, alpha_beta, fold, start
from bots_server.core.state import rough_logits
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange
from tests.core.draw_oracle import World, assert_same_batches, drawn, ours, plain


def dataset(size: int, features: int, tags: int = 0) -> Tasks:
    """Returns tasks with a reference, numeric features, and tags at random."""
    rng = np.random.default_rng(size)
    builder = StrataBuilder(1)
    stratum = builder.add(rng.random((size, 1)).astype(np.float32), None, None, size)
    tag = rng.integers(0, tags, size) if tags else None
    return arrange(
        builder.strata(),
        stratum,
        tag,
        [f"tag {k}" for k in range(tags)],
        reference_names=["r"],
        features=rng.standard_normal((size, features)).astype(np.float32),
    )


def evaluated(tasks: Tasks, reports: int, **given: float) -> Posterior:
    """Returns a posterior after reports of 16 tasks at 1 to 256 rollouts."""
    rng = np.random.default_rng(1)
    posterior = start(tasks, replace(Hyperparameters(rest=1.0), **given), "item_response")  # type: ignore[arg-type]
    for _ in range(reports):
        chosen, rollouts = rng.choice(len(tasks), 16, replace=False), rng.integers(1, 257, 16)
        evidence = gather(chosen, rng.binomial(rollouts, rng.random(16)).astype(np.float64), rollouts)
        posterior = fold(posterior, tasks, Report(evidence, time_ms=0))
    return posterior


def world(tasks: Tasks, posterior: Posterior) -> World:
    """Returns the same as plain columns. The kinds are twelfths of the tasks by posterior mean."""
    alpha, beta = alpha_beta(posterior, tasks, None)
    kind = (alpha / (alpha + beta)).argsort().argsort() * 12 // len(tasks)
    rank = posterior.state.coverage.rank(np.arange(len(tasks)))
    return World(tasks, posterior, alpha, beta, rank, kind)


@pytest.mark.parametrize("target", [0.1, 0.3, 0.5, 0.75, 0.9])
def test_height_bounds_the_density_near_the_target(target: float) -> None:
    """For 300,000 logits, and by less than a third on average if the density is above 0.1."""
    rng = np.random.default_rng(0)
    variance = np.exp(rng.uniform(-4, 3, 300_000)).astype(np.float32)
    mean = (np.log(target / (1 - target)) + np.sqrt(variance) * rng.uniform(-13, 13, 300_000)).astype(np.float32)
    bound = heights(target, mean, variance)
    alpha, beta = matching_beta(mean.astype(np.float64), variance.astype(np.float64))
    mode = np.where((alpha > 1) & (beta > 1), (alpha - 1) / (alpha + beta - 2), target)
    nearest = np.clip(mode, target - REACH, target + REACH)
    density = np.zeros(len(mean))
    for p in (target - REACH, nearest, target + REACH):
        density = np.maximum(density, stats.beta.pdf(p, alpha, beta))
    assert (bound >= density).all()
    dense = (density > 0.1) & np.isfinite(bound)
    assert (bound[dense] / density[dense]).mean() < 1.33
    score = (mean - np.log(target / (1 - target))) / np.sqrt(variance)
    in_table = (np.abs(np.log(variance)) < 2.5) & (np.abs(mean) < 8) & (np.abs(score) < 8)
    assert np.isfinite(bound[in_table]).all()


@pytest.mark.parametrize("model_given", [{}, {"drift": 0.3}, {"rollouts_per_update": 5000.0}])
def test_rough_logits_are_those_of_alpha_and_beta(model_given: dict[str, float]) -> None:
    """Exact to one in 10^5; tasks with pending outcomes have none."""
    tasks = dataset(500, 8, tags=3)
    posterior = evaluated(tasks, 20, **model_given)
    mean, variance = rough_logits(posterior.state, tasks)
    known = np.isfinite(variance)
    np.testing.assert_array_equal(np.flatnonzero(~known), posterior.state.pending.tasks)
    exact = [column[known] for column in alpha_beta(posterior, tasks, None)]
    got = matching_beta(mean[known].astype(np.float64), variance[known].astype(np.float64))
    np.testing.assert_allclose(got, exact, rtol=1e-3)


@pytest.mark.parametrize(
    ("target", "batch_size", "pending"), [(0.5, 1, 0.0), (0.5, 12, 0.0), (0.2, 4, 0.0), (0.85, 4, 5000.0)]
)
def test_the_nearest_draws_are_selected(
    monkeypatch: pytest.MonkeyPatch, target: float, batch_size: int, pending: float
) -> None:
    """Guarantee 4: selection has exactly the distribution of drawing every task."""
    monkeypatch.setattr(sieve, "_MIN_TASKS", 1)
    tasks = dataset(200, 6)
    where = world(tasks, evaluated(tasks, 12, rollouts_per_update=pending))
    free = np.flatnonzero(where.rank == 0)
    a = ours(where, 800, 1, batch_size=batch_size, target=target)
    b = plain(where, 6000, 2, eligible=free, batch_size=batch_size, target=target)
    assert_same_batches(where, a, b, target)


def test_ring_after_ring_the_order_is_that_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 4, however far outward it goes: to the last eligible task."""
    monkeypatch.setattr(sieve, "_MIN_TASKS", 1)
    tasks = dataset(200, 6)
    where = world(tasks, evaluated(tasks, 4))
    free, rng = np.flatnonzero(where.rank == 0), np.random.default_rng(3)
    found, draws = [], []
    for _ in range(300):
        draw = drawn(rng, where, batch_size=1)
        for spare in (0, 3, 12, 60, len(free) - 1):
            (offer,) = draw.offer(spare)
        found.append(offer.tasks)
        draws.append(offer.draws)
    distance = np.abs(np.array(draws) - 0.5)
    assert (distance[:, 1:] >= distance[:, :-1]).all()
    b = plain(where, 4000, 2, eligible=free, batch_size=len(free), target=0.5)
    a = type(b)(np.array(found), np.array(draws))
    assert (np.sort(a.tasks, 1) == free).all()
    for length in (2, 17, 60, len(free)):
        of = [type(b)(each.tasks[:, :length], each.draws[:, :length]) for each in (a, b)]
        assert_same_batches(where, of[0], of[1], 0.5)


def test_each_part_has_the_distribution_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 4 with quotas."""
    monkeypatch.setattr(sieve, "_MIN_TASKS", 1)
    tasks = dataset(200, 6, tags=3)
    where = world(tasks, evaluated(tasks, 4))
    a = ours(where, 800, 1, batch_size=5, target=0.5, quotas={0: 4, 2: 1})
    assert tasks.tag is not None
    for tag, quota, part in ((0, 4, slice(0, 4)), (2, 1, slice(4, 5))):
        free = np.flatnonzero((where.rank == 0) & (tasks.tag == tag))
        b = plain(where, 4000, 2, eligible=free, batch_size=quota, target=0.5)
        assert_same_batches(where, type(b)(a.tasks[:, part], a.draws[:, part]), b, 0.5)


@pytest.mark.parametrize("choice", [{}, {"target": 0.02}, {"tag_targets": {0: 0.3}}, {"greedy": True}])
def test_other_selections_from_the_same_tasks_draw_all_of_them(choice: dict[str, Any]) -> None:
    """Guarantee 4 if the sieve is of no use: few tasks, a target in the tails, targets by tag, no draws."""
    tasks = dataset(120, 6, tags=1)
    where = world(tasks, evaluated(tasks, 2))
    free, target = np.flatnonzero(where.rank == 0), choice.get("target", choice.get("tag_targets", {}).get(0, 0.5))
    a = ours(where, 500, 1, batch_size=6, **choice)
    b = plain(where, 4000, 2, eligible=free, batch_size=6, target=target, greedy=choice.get("greedy", False))
    assert_same_batches(where, a, b, target)


def test_dataset_with_32_features_and_a_draw_take_less_than_200_bytes_a_task() -> None:
    """Of which the draw that a server keeps takes 20."""
    tasks = dataset(200_000, 32)
    posterior = evaluated(tasks, 4)
    where = World(tasks, posterior, *(np.empty(0),) * 2, np.empty(0, np.int8), np.empty(0, np.int64))
    drawn(np.random.default_rng(0), where, batch_size=32)  # what is allocated once
    tracemalloc.start()
    try:
        draw = drawn(np.random.default_rng(0), where, batch_size=32)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tasks.features is not None
    columns = sum(column.nbytes for column in (tasks.features, tasks.stratum, tasks.members)) / len(tasks)
    assert draw.offer(0)[0].tasks.size == 32
    assert kept / len(tasks) < 20
    assert columns + peak / len(tasks) < 200
