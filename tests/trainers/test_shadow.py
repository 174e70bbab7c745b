"""What shadow mode says of a selection that was not made."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bots
from bots.trainers import Identity, TaskRows, create_dataset
from bots.trainers.shadow import Shadow, effectiveness

ROLLOUTS = 8


def test_effectiveness_is_the_chance_that_rollouts_differ() -> None:
    """Beta(1, 1): all k of G are equally likely, and two of G + 1 are ineffective; a sure pass rate: 1 - p^G - q^G."""
    alpha, beta = np.array([1.0, 1e9]), np.array([1.0, 3e9])
    expected = [7 / 9, 1 - 0.25**8 - 0.75**8]
    np.testing.assert_allclose(effectiveness(alpha, beta, ROLLOUTS), expected, rtol=1e-7)


def test_first_step_is_judged_by_the_prior_and_one_observation(client: bots.Client) -> None:
    """All tasks are Beta(1, 1), so they are one group: 3 of 4 effective and the prediction 7/9 as a fifth."""
    rows = [{"prompt": str(task)} for task in range(20)]
    create_dataset(client, "d", rows, dimensions=0)
    run = client.create_run("d", "r", model="interpolation")
    shadow = Shadow(TaskRows(run, rows), ROLLOUTS)
    ids = [Identity().of_row(row) for row in rows[:4]]
    shadow.begin(ids, 0)
    shadow.report(ids, [[0, 1] * 4] * 3 + [[1] * 8], 0)
    summary = shadow.summary()
    assert (summary.steps, summary.effective_task_ratio, summary.unsupported) == (1, 0.75, 0.0)
    rate = (3 + 7 / 9) / 5
    assert summary.bots_effective_task_ratio == pytest.approx(rate, rel=1e-6)
    assert summary.bots_standard_error == pytest.approx(math.sqrt(rate * (1 - rate) / 5), rel=1e-6)
    alpha, _ = run.posteriors(ids)
    assert alpha[3] > alpha[0]


def test_estimate_is_near_the_truth_of_what_would_have_been_selected(client: bots.Client) -> None:
    """Pass rates are known here, hence the true ratio. The bound is 6.1 standard errors: probability 1e-9."""
    rng = np.random.default_rng(5)
    rates = rng.beta(0.4, 0.4, 150)
    rows = [{"prompt": f"{task}"} for task in range(150)]
    create_dataset(client, "d", rows, dimensions=0)
    run = client.create_run("d", "r", rest=0.0)
    mapping = TaskRows(run, rows)
    shadow = Shadow(mapping, ROLLOUTS)
    truth: list[float] = []
    select = mapping.select

    def noted(*args: int, **options: int) -> bots.Batch:
        batch = select(*args, **options)
        p = rates[mapping.rows_of(batch)]
        truth.extend(1 - p**ROLLOUTS - (1 - p) ** ROLLOUTS)
        return batch

    mapping.select = noted  # type: ignore[method-assign]
    for step in range(60):
        chosen = rng.choice(150, 16, replace=False)
        ids = [mapping.identity.of_row(rows[task]) for task in chosen]
        shadow.begin(ids, step)
        shadow.report(ids, rng.random((16, ROLLOUTS)) < rates[chosen, None], step)
    summary = shadow.summary()
    assert abs(summary.bots_effective_task_ratio - np.mean(truth)) < 6.1 * summary.bots_standard_error, str(summary)
    assert summary.bots_effective_task_ratio > summary.effective_task_ratio + 6.1 * summary.standard_error, str(summary)
    assert "of what BOTS would have selected" in str(summary)


def test_step_without_the_service_is_skipped(client: bots.Client) -> None:
    rows = [{"prompt": str(task)} for task in range(5)]
    with bots.Client("127.0.0.1:1", timeout=0.2) as away:
        create_dataset(away, "d", rows, dimensions=0)
        shadow = Shadow(TaskRows(away.create_run("d", "r"), rows), ROLLOUTS)
        ids = [Identity().of_row(row) for row in rows]
        shadow.begin(ids)
        shadow.report(ids, [[0, 1]] * 5)
        assert (shadow.summary().steps, shadow.summary().skipped_steps) == (0, 1)
        assert math.isnan(shadow.summary().effective_task_ratio)
