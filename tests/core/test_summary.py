"""The summary is what a pass over all tasks would give."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy.integrate import trapezoid
from scipy.stats import beta as beta_distribution
from scipy.stats import binom

from bots_server.core.distinct import estimate
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import alpha_beta, start
from bots_server.core.summary import MOST_TAGS, summarise
from tests.core.test_posterior import play
from tests.strategies import Columns, Outcomes, Step, runs


@given(runs())
def test_equals_a_pass_over_all_tasks(run: tuple[Columns, dict[str, Any], list[Step]]) -> None:
    """Bins, means, shares, evidence and tags are those of alpha and beta of all N tasks."""
    columns, begin, history = run
    tasks = columns.arranged()
    state = play(tasks, start(tasks, Hyperparameters(**begin)), history)[1][-1]
    summary = summarise(state, tasks)
    alpha, beta = alpha_beta(state, tasks, None)
    means = alpha / (alpha + beta)
    bins = np.minimum(np.floor(means * 20), 19).astype(np.int64)
    assert summary.pass_rate_bins.tolist() == np.bincount(bins, minlength=20).tolist()
    assert summary.mean_pass_rate == pytest.approx(means.mean(), rel=1e-9)
    assert summary.solved == pytest.approx((means > 0.9).mean())
    assert summary.unsolvable == pytest.approx((means < 0.1).mean())
    assert summary.solved + summary.unsolvable + summary.in_reach == pytest.approx(1)
    prior = columns.each()["prior_alpha"] + columns.each()["prior_beta"]
    assert summary.mean_evidence == pytest.approx((alpha + beta - prior).mean(), rel=1e-6, abs=1e-6)
    assert summary.tried_tasks == min(estimate(state.tried), columns.size)
    tag_of = [] if columns.tag is None else [columns.tags[j] for j in columns.tag]
    assert [tag.tag for tag in summary.tags] == sorted(sorted(set(tag_of)), key=lambda tag: -tag_of.count(tag))
    for tag in summary.tags:
        of_tag = means[np.array(tag_of) == tag.tag]
        assert tag.tasks == len(of_tag)
        assert tag.mean_pass_rate == pytest.approx(of_tag.mean(), rel=1e-9)


def test_what_uniform_selection_would_get() -> None:
    """1 - E[p^n] - E[(1 - p)^n] is the chance that n rollouts of a task neither all fail nor all succeed."""
    columns = Columns(3, prior_alpha=np.array([1.0, 0.5, 1e6]), prior_beta=np.array([1.0, 3.0, 1e6]))
    tasks = columns.arranged()
    first = start(tasks, Hyperparameters(rollouts_per_update=1000))
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
    columns = Columns(len(tag), tag=tag, tags=tuple(f"tag-{j:02}" for j in range(60)))
    tasks = columns.arranged()
    shown = summarise(start(tasks, Hyperparameters()), tasks).tags
    assert len(shown) == MOST_TAGS
    assert [item.tasks for item in shown] == [3] * 20 + [2] * 20 + [1] * 10
    assert [item.tag for item in shown[:2]] == ["tag-02", "tag-05"]


def test_a_million_tried_tasks_are_at_most_all() -> None:
    """The estimate of tried tasks never says more tasks than there are."""
    tasks = Columns(10).arranged()
    full = replace(start(tasks, Hyperparameters()), tried=np.full(2048, 20, np.uint8))
    assert summarise(full, tasks).tried_tasks == 10
