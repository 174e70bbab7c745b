"""The running sums give the figures that the outcomes themselves give."""

import math
from dataclasses import asdict, astuple, fields
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core import shadow
from bots_server.core.evidence import Evidence, gather
from bots_server.core.posterior import Report, fold
from bots_server.core.statistics import SIZE, Accuracy, CalibrationBin, Figures, figures, observe
from tests.core.oracle import oracle
from tests.core.test_posterior import begun
from tests.strategies import Columns, Outcomes, given_values, outcomes, runs

Floats = NDArray[np.float64]


def prediction(scores: Floats, k: Floats, n: Floats, weight: Floats) -> Accuracy:
    """Returns the figures of predictions `scores`, one an outcome."""
    observed = k / n

    def mean(values: Floats) -> float:
        return float(np.average(values, weights=weight)) if len(values) else math.nan

    correlation = math.nan
    if len(k):
        covariance = np.cov(scores, observed, aweights=weight, bias=True)
        if min(covariance[0, 0], covariance[1, 1]) >= 1e-6:
            correlation = float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
    wins, pairs = 0.0, 0.0
    bins = np.minimum(np.floor(scores * 64), 63)
    successes, failures = weight * k, weight * (n - k)
    for i, j in product(range(len(k)), repeat=2):
        pairs += successes[i] * failures[j]
        wins += successes[i] * failures[j] * float((bins[i] > bins[j]) + 0.5 * (bins[i] == bins[j]))
    return Accuracy(
        outcomes=weight.sum(),
        absolute_error=mean(abs(scores - observed)),
        brier_score=mean((scores - observed) ** 2),
        correlation=correlation,
        auc=wins / pairs if pairs > 1e-9 else math.nan,
    )


def expected(rows: Floats, weight: Floats, updates: float, lags: list[tuple[float, int]]) -> Figures:
    """Returns the figures of outcomes.

    rows:    `[n, 5]` successes, rollouts, posterior mean before, implicit pass rate before (NaN: none), tried before
    weight:  `[n]` of each outcome
    updates: sum of the weights of the updates
    lags:    weight and policy lag of the updates that have one
    """
    k, n, predicted, implicit, tried = rows.T
    observed, bins = k / n, np.minimum(np.floor(predicted * 10), 9)
    every = np.ones(len(k), np.bool_)
    kinds = [(predicted, every), (predicted, tried == 0), (implicit, ~np.isnan(implicit))]
    accuracies = [prediction(x[at], k[at], n[at], weight[at]) for x, at in kinds]

    def mean(values: Floats, where: NDArray[np.bool_]) -> float:
        return float(np.average(values[where], weights=weight[where])) if where.any() else math.nan

    return Figures(
        updates=updates,
        outcomes=weight.sum(),
        rollouts=(weight * n).sum(),
        successes=(weight * k).sum(),
        effective_task_ratio=mean(((k > 0) & (k < n)).astype(np.float64), every),
        prediction=accuracies[0],
        first_prediction=accuracies[1],
        implicit_prediction=accuracies[2],
        calibration=tuple(
            CalibrationBin(weight[bins == b].sum(), mean(predicted, bins == b), mean(observed, bins == b))
            for b in range(10)
        ),
        mean_policy_lag=float(np.average([lag for _, lag in lags], weights=[w for w, _ in lags])) if lags else math.nan,
        shadow=shadow.figures(np.zeros(shadow.SIZE)),
    )


def assert_same(got: Figures, right: Figures) -> None:
    """Fails if two sets of figures differ, but for a correlation or area of next to nothing."""
    for field in fields(Figures):
        values, references = getattr(got, field.name), getattr(right, field.name)
        if field.name == "calibration":
            table, expected_table = ([astuple(each) for each in bins] for bins in (values, references))
            np.testing.assert_allclose(table, expected_table, rtol=1e-7, atol=1e-8)
        elif field.name == "shadow":
            assert values.outcomes == references.outcomes
        elif not isinstance(values, Accuracy):
            assert values == pytest.approx(references, rel=1e-7, abs=1e-8, nan_ok=True), field.name
        else:
            for name, value in asdict(values).items():
                reference = getattr(references, name)
                if math.isnan(reference) and name in ("correlation", "auc"):
                    assert math.isnan(value) or -1 <= value <= 1
                else:
                    assert value == pytest.approx(reference, rel=1e-7, abs=1e-7, nan_ok=True), (field.name, name)


Reported = tuple[Columns, dict[str, Any], list[tuple[Outcomes, int | None]]]


@st.composite
def reported(draw: st.DrawFn) -> Reported:
    """A dataset, hyperparameters, and reports, some of which have a policy lag."""
    dataset, begin, _ = draw(runs(max_steps=1))
    lag = st.none() | st.integers(0, 50)
    return dataset, begin, draw(st.lists(st.tuples(outcomes(dataset.size), lag), max_size=10))


@given(reported())
def test_figures_are_those_of_the_outcomes(case: Reported) -> None:
    """Accuracys are the posterior mean and the implicit pass rate before the report, pending outcomes counted in; a
    recent report weighs 63/64 of the one after it.
    """
    dataset, begin, reports = case
    tasks = dataset.arranged()
    state, right = begun(tasks, begin), oracle(dataset.each(), given_values(begin))
    rows: list[tuple[float, ...]] = []
    age: list[int] = []  # reports before the one of each row
    for number, (step, lag) in enumerate(reports):
        evidence = gather(np.array(step.tasks), np.array(step.successes, np.float64), np.array(step.rollouts))
        before = right.now()
        alpha, beta = before.seen()
        for task, k, n in zip(evidence.tasks.tolist(), evidence.successes, evidence.rollouts, strict=True):
            implicit = before.implicit_pass_rates()[task]
            rows.append((k, n, alpha[task] / (alpha[task] + beta[task]), implicit, task in before.ever))
            age.append(number)
        right.report(step.tasks, step.successes, step.rollouts)
        policy_step, selection_policy_step = (7, None) if lag is None else (100 + lag, 100)
        state = fold(state, tasks, Report(evidence, number, "", policy_step, selection_policy_step))
    table = np.array(rows, np.float64).reshape(-1, 5)
    # Rounding decides the bin of a prediction that is all but at an edge; those at an edge are exact in both.
    scaled = table[:, 2:4, None] * np.array([10, 64])
    assume(not ((np.abs(scaled - np.rint(scaled)) < 1e-9) & (scaled != np.rint(scaled))).any())
    lags = [(number, lag) for number, (_, lag) in enumerate(reports) if lag is not None]
    for sums, weight in ((state.state.total, 1.0), (state.state.recent, 63 / 64)):
        weigh = [weight ** (len(reports) - 1 - number) for number in range(len(reports))]
        weights = np.array([weigh[number] for number in age])
        right_figures = expected(table, weights, sum(weigh), [(weigh[number], lag) for number, lag in lags])
        assert_same(figures(sums), right_figures)


def test_no_update_no_figures() -> None:
    """Before the first update the counts are 0 and the rest is NaN."""
    nothing = figures(np.zeros(SIZE))
    assert (nothing.updates, nothing.outcomes, nothing.rollouts, nothing.successes) == (0, 0, 0, 0)
    assert math.isnan(nothing.effective_task_ratio)
    assert math.isnan(nothing.mean_policy_lag)
    assert [each.outcomes for each in nothing.calibration] == [0] * 10
    assert math.isnan(nothing.calibration[3].predicted)
    assert nothing.first_prediction.outcomes == 0
    assert math.isnan(nothing.first_prediction.auc)


def observed(successes: Floats, rollouts: Floats, scores: Floats, effective: list[bool] | None = None) -> Figures:
    """Returns the figures of one update of tasks never tried before."""
    spread = None if effective is None else np.array(effective)
    evidence = Evidence(np.arange(len(successes)), successes, rollouts, spread)
    return figures(observe(evidence, np.zeros(len(successes), np.bool_), scores, np.full(len(scores), np.nan), None))


def test_a_correlation_needs_two_values() -> None:
    """If all predictions or all outcomes are the same, the correlation is NaN and not rounding noise."""
    third, rollouts = np.full(7, 1 / 3), np.full(7, 3.0)
    spread = np.linspace(0, 1, 7)
    assert math.isnan(observed(spread, rollouts, third).first_prediction.correlation)
    assert math.isnan(observed(np.ones(7), rollouts, spread).first_prediction.correlation)
    assert observed(spread, rollouts, spread).first_prediction.correlation == pytest.approx(1)
    assert observed(spread, rollouts, 1 - spread).first_prediction.correlation == pytest.approx(-1)


def test_the_area_under_the_curve() -> None:
    """A score that puts every success above every failure has area 1, the reverse 0, one score for all 1/2."""
    successes, rollouts = np.array([0.0, 4.0]), np.array([4.0, 4.0])
    for scores, area in (([0.2, 0.8], 1.0), ([0.8, 0.2], 0.0), ([0.5, 0.5], 0.5), ([1.0, 1.0], 0.5)):
        assert observed(successes, rollouts, np.array(scores)).first_prediction.auc == area
    assert math.isnan(observed(successes[:1], rollouts[:1], rollouts[:1] / 8).first_prediction.auc)


def test_a_group_with_one_reward_for_all_is_not_effective() -> None:
    """8 rewards of 1/2 have no advantage: what the report says of the spread counts, not the sum of the rewards."""
    half, eight = np.array([4.0, 4.0]), np.array([8.0, 8.0])
    assert observed(half, eight, half / 8).effective_task_ratio == 1
    assert observed(half, eight, half / 8, [False, True]).effective_task_ratio == 0.5
