"""The summary is what a pass over all tasks would give."""

import numpy as np
import pytest
from hypothesis import given
from scipy.integrate import trapezoid
from scipy.stats import beta as beta_distribution
from scipy.stats import binom

from bots_server.core.interpolation import InterpolationSummary
from bots_server.core.item_response import ItemResponseSummary
from bots_server.core.posterior import Posterior, alpha_beta, individuals
from bots_server.core.summary import MOST_TAGS, summarise
from tests.core.test_posterior import begun, folded, play
from tests.strategies import Columns, Outcomes, Step


@given(folded())
def test_equals_a_pass_over_all_tasks(run: tuple[Columns, list[Posterior], list[Step]]) -> None:
    """Bins, means, shares, evidence and tags are those of alpha and beta of all N tasks."""
    columns, (*_, state), _ = run
    tasks = columns.arranged()
    summary = summarise(state, tasks)
    alpha, beta = alpha_beta(state, tasks, None)
    means = alpha / (alpha + beta)
    bins = np.minimum(np.floor(means * 20), 19).astype(np.int64)
    assert summary.pass_rate_bins.tolist() == np.bincount(bins, minlength=20).tolist()
    assert summary.mean_pass_rate == pytest.approx(means.mean(), rel=1e-9)
    assert summary.solved == pytest.approx((means > 0.9).mean())
    assert summary.too_hard == pytest.approx((means < 0.1).mean())
    assert summary.solved + summary.too_hard + summary.in_reach == pytest.approx(1)
    prior = columns.each()["prior_alpha"] + columns.each()["prior_beta"]
    assert summary.mean_evidence == pytest.approx((alpha + beta - prior).mean(), rel=1e-6, abs=1e-6)
    coverage = state.state.coverage
    assert summary.distinct_tasks == len(coverage.ever.tasks()) == round(summary.coverage * columns.size)
    assert summary.epochs == coverage.evaluations / columns.size
    rests = state.hyperparameters.rest > 0
    assert summary.resting_tasks == rests * (coverage.rank(np.arange(columns.size)) > 0).sum()
    assert summary.retired_tasks == len(state.retired)
    assert summary.pending_rollouts == state.state.pending.rollouts.sum()
    assert summary.deviating_tasks == len(individuals(state, tasks))
    assert summary.total.updates >= summary.recent.updates
    tag_of = [] if columns.tag is None else [columns.tags[j] for j in columns.tag]
    assert [tag.tag for tag in summary.tags] == sorted(sorted(set(tag_of)), key=lambda tag: -tag_of.count(tag))
    for tag in summary.tags:
        of_tag = means[np.array(tag_of) == tag.tag]
        assert tag.tasks == len(of_tag)
        assert tag.mean_pass_rate == pytest.approx(of_tag.mean(), rel=1e-9)


def test_what_uniform_selection_would_get() -> None:
    """1 - E[p^n] - E[(1 - p)^n] is the chance that n rollouts of a task neither all fail nor all succeed."""
    columns = Columns(3, {}, prior_alpha=np.array([1.0, 0.5, 1e6]), prior_beta=np.array([1.0, 3.0, 1e6]))
    tasks = columns.arranged()
    first = begun(tasks, {"rollouts_per_update": 1000})
    assert np.isnan(summarise(first, tasks).uniform_effective_task_ratio)
    state = play(tasks, first, [Outcomes((0,), (2.0,), (8,))])[1][-1]
    alpha, beta = alpha_beta(state, tasks, None)
    p = np.linspace(0, 1, 400_001)
    chances = [
        trapezoid((1 - binom.pmf(0, 8, p[1:-1]) - binom.pmf(8, 8, p[1:-1])) * density, p[1:-1])
        for density in (beta_distribution.pdf(p[1:-1], a, b) for a, b in zip(alpha, beta, strict=True))
    ]
    assert summarise(state, tasks).uniform_effective_task_ratio == pytest.approx(np.mean(chances), rel=1e-6)


def test_the_largest_tags() -> None:
    """The 50 largest tags are shown, larger ones first, and of equal ones those that the dataset names first."""
    tag = np.repeat(np.arange(60), np.arange(60) % 3 + 1).astype(np.uint32)
    columns = Columns(len(tag), {}, tag=tag, tags=tuple(f"tag-{j:02}" for j in range(60)))
    tasks = columns.arranged()
    shown = summarise(begun(tasks, {}), tasks).tags
    assert len(shown) == MOST_TAGS
    assert [item.tasks for item in shown] == [3] * 20 + [2] * 20 + [1] * 10
    assert [item.tag for item in shown[:2]] == ["tag-02", "tag-05"]


def test_the_model_adds_its_own() -> None:
    """Interpolation adds the capability, item_response what it knows of ability and inputs."""
    columns = Columns(4, {"weak": np.zeros(4, np.float32), "strong": np.ones(4, np.float32)})
    tasks = columns.arranged()
    step: list[Step] = [Outcomes((0, 1), (2.0, 6.0), (8, 8))]
    capability = summarise(play(tasks, begun(tasks, {}), step)[1][-1], tasks).learned
    assert isinstance(capability, InterpolationSummary)
    assert capability.capability == 0.5
    ability = summarise(play(tasks, begun(tasks, {}, "item_response"), step)[1][-1], tasks).learned
    assert isinstance(ability, ItemResponseSummary)
    assert len(ability.weights) == 2
