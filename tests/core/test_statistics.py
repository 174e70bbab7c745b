"""The running sums give the figures that the outcomes themselves give."""

import math
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Report, fold, gather, start
from bots_server.core.statistics import Accuracy, accuracy, observe, zeros
from tests.core.oracle import Oracle
from tests.strategies import Columns, Outcomes, outcomes, runs


def expected(
    rows: NDArray[np.float64], weight: NDArray[np.float64], reports: float, lags: list[tuple[float, int]]
) -> Accuracy:
    """Returns the figures of outcomes.

    rows:    `[n, 4]` successes, rollouts, posterior mean before, implicit pass rate before (NaN: none)
    weight:  `[n]` of each outcome
    reports: sum of the weights of the reports
    lags:    weight and policy lag of the reports that say it
    """
    k, n, predicted, implicit = rows.T
    observed = k / n

    def mean(values: NDArray[np.floating], where: NDArray[np.bool_]) -> float:
        return float(np.average(values[where], weights=weight[where])) if where.any() else math.nan

    def correlation(x: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
        if not where.any():
            return math.nan
        covariance = np.cov(x[where], observed[where], aweights=weight[where], bias=True)
        if min(covariance[0, 0], covariance[1, 1]) < 1e-6:
            return math.nan
        return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))

    every, known = np.ones(len(k), np.bool_), ~np.isnan(implicit)
    successes, failures = weight * k, weight * (n - k)
    wins, pairs = 0.0, 0.0
    bins = np.minimum(np.floor(implicit * 64), 63)
    for i, j in product(np.flatnonzero(known), repeat=2):
        pairs += successes[i] * failures[j]
        wins += successes[i] * failures[j] * float((bins[i] > bins[j]) + 0.5 * (bins[i] == bins[j]))
    return Accuracy(
        reports=reports,
        outcomes=weight.sum(),
        rollouts=(weight * n).sum(),
        successes=successes.sum(),
        effective_task_ratio=mean(((k > 0) & (k < n)).astype(np.float64), every),
        absolute_error=mean(abs(predicted - observed), every),
        brier_score=mean((predicted - observed) ** 2, every),
        correlation=correlation(predicted, every),
        implicit_outcomes=weight[known].sum(),
        implicit_absolute_error=mean(abs(implicit - observed), known),
        implicit_brier_score=mean((implicit - observed) ** 2, known),
        implicit_correlation=correlation(implicit, known),
        implicit_auc=wins / pairs if pairs > 1e-9 else math.nan,
        mean_policy_lag=float(np.average([lag for _, lag in lags], weights=[w for w, _ in lags])) if lags else math.nan,
    )


def same(got: Accuracy, right: Accuracy) -> None:
    """Asserts that two accuracies are equal, but for a correlation or area of next to nothing."""
    for field in fields(Accuracy):
        value, reference = getattr(got, field.name), getattr(right, field.name)
        if math.isnan(reference) and field.name.endswith(("correlation", "auc")):
            assert math.isnan(value) or -1 <= value <= 1
        else:
            assert value == pytest.approx(reference, rel=1e-8, abs=1e-8, nan_ok=True), field.name


@st.composite
def reported(draw: st.DrawFn) -> tuple[Columns, dict[str, Any], list[tuple[Outcomes, int | None]]]:
    """A dataset, hyperparameters, and reports, some of which say how many policy steps old their selection was."""
    dataset, begin, _ = draw(runs(max_steps=1))
    lag = st.none() | st.integers(0, 50)
    return dataset, begin, draw(st.lists(st.tuples(outcomes(dataset.size), lag), max_size=10))


@given(reported())
def test_figures_are_those_of_the_outcomes(
    case: tuple[Columns, dict[str, Any], list[tuple[Outcomes, int | None]]],
) -> None:
    """Predictions are the posterior mean and the implicit pass rate before the report, pending outcomes counted in; a
    recent report weighs 63/64 of the one after it.
    """
    dataset, begin, reports = case
    tasks = dataset.arranged()
    state, oracle = start(tasks, Hyperparameters(**begin, tolerance=0.0)), Oracle(**dataset.each(), **begin)
    rows: list[tuple[float, ...]] = []
    age: list[int] = []  # reports before the one of each row
    for number, (step, lag) in enumerate(reports):
        evidence = gather(np.array(step.tasks), np.array(step.successes, np.float64), np.array(step.rollouts))
        for task, k, n in zip(evidence.tasks, evidence.successes, evidence.rollouts, strict=True):
            mean = oracle.alpha[task] / (oracle.alpha[task] + oracle.beta[task])
            rows.append((k, n, mean, oracle.implicit_pass_rates[task]))
            age.append(number)
        oracle.report(step.tasks, step.successes, step.rollouts)
        policy_step, selection_policy_step = (7, None) if lag is None else (100 + lag, 100)
        state = fold(state, tasks, Report(evidence, policy_step, selection_policy_step, time_ms=number))
    table = np.array(rows).reshape(-1, 4)
    lags = [(number, lag) for number, (_, lag) in enumerate(reports) if lag is not None]
    for sums, weight in ((state.total, 1.0), (state.recent, 63 / 64)):
        weigh = [weight ** (len(reports) - 1 - number) for number in range(len(reports))]
        weights = np.array([weigh[number] for number in age])
        same(accuracy(sums), expected(table, weights, sum(weigh), [(weigh[number], lag) for number, lag in lags]))


def test_no_report_no_figures() -> None:
    """Before the first report the counts are 0 and the rest is NaN."""
    figures = {field.name: getattr(accuracy(zeros()), field.name) for field in fields(Accuracy)}
    counts = {"reports", "outcomes", "rollouts", "successes", "implicit_outcomes"}
    assert all(value == 0 if name in counts else math.isnan(value) for name, value in figures.items())


def test_a_correlation_needs_two_values() -> None:
    """Where all predictions or all outcomes are the same, correlation is NaN and not rounding noise."""
    third, rollouts = np.full(7, 1 / 3), np.full(7, 3.0)
    spread = np.linspace(0, 1, 7)
    assert math.isnan(accuracy(observe(spread, rollouts, third, third, None)).correlation)
    assert math.isnan(accuracy(observe(np.ones(7), rollouts, spread, spread, None)).implicit_correlation)
    assert accuracy(observe(spread, rollouts, spread, 1 - spread, None)).correlation == pytest.approx(1)
    assert accuracy(observe(spread, rollouts, spread, 1 - spread, None)).implicit_correlation == pytest.approx(-1)


def test_the_area_under_the_curve() -> None:
    """A score that puts every success above every failure has area 1, the reverse 0, one score for all 1/2."""
    successes, rollouts = np.array([0.0, 4.0]), np.array([4.0, 4.0])
    for implicit, area in (([0.2, 0.8], 1.0), ([0.8, 0.2], 0.0), ([0.5, 0.5], 0.5), ([1.0, 1.0], 0.5)):
        assert accuracy(observe(successes, rollouts, successes, np.array(implicit), None)).implicit_auc == area
    assert math.isnan(
        accuracy(observe(successes[:1], rollouts[:1], successes[:1], rollouts[:1] / 8, None)).implicit_auc
    )
