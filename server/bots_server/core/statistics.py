"""How well outcomes were predicted: running sums over a run's reports, and the figures that they give.

The state holds two vectors of `SIZE` sums: over all reports, and over recent ones, where each report weighs 63/64 of
the one after it. Their order is stored in snapshots: indices are added at the end, never moved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RECENT_WEIGHT = 63 / 64
BINS = 64  # of the implicit pass rate, for the area under the ROC curve

REPORTS = 0
OUTCOMES = 1
ROLLOUTS = 2
SUCCESSES = 3
EFFECTIVE = 4  # outcomes with a pass rate strictly between 0 and 1
# Of the posterior mean x and the observed pass rate y: sums of |x - y|, (x - y)^2, x, y, x^2, y^2, x y.
PREDICTED = slice(5, 12)
# The same of the implicit pass rate, over the outcomes that have one.
IMPLICIT_OUTCOMES = 12
IMPLICIT = slice(13, 20)
POLICY_LAG = 20  # policy steps between selection and report
POLICY_LAG_REPORTS = 21  # reports that say it
# Successful and failed rollouts by the implicit pass rate of their task.
BIN_SUCCESSES = slice(22, 22 + BINS)
BIN_FAILURES = slice(22 + BINS, 22 + 2 * BINS)
SIZE = 22 + 2 * BINS


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The fields of `bots.v1.Accuracy`, which says what each one is. NaN: nothing to tell it from."""

    reports: float
    outcomes: float
    rollouts: float
    successes: float
    effective_task_ratio: float
    absolute_error: float
    brier_score: float
    correlation: float
    implicit_outcomes: float
    implicit_absolute_error: float
    implicit_brier_score: float
    implicit_correlation: float
    implicit_auc: float
    mean_policy_lag: float


def zeros() -> Floats:
    """Returns the sums of no report."""
    return np.zeros(SIZE)


def observe(successes: Floats, rollouts: Floats, predicted: Floats, implicit: Floats, policy_lag: int | None) -> Floats:
    """Returns `[SIZE]` the sums of one report.

    successes:  `[n]` of each task of the report
    rollouts:   `[n]`
    predicted:  `[n]` posterior means before the report
    implicit:   `[n]` implicit pass rates at the capability before the report; NaN: none
    policy_lag: policy steps between selection and report; None: not said
    """
    sums = np.zeros(SIZE)
    observed = successes / rollouts
    sums[REPORTS] = 1
    sums[OUTCOMES] = len(successes)
    sums[ROLLOUTS] = np.add.reduce(rollouts)
    sums[SUCCESSES] = np.add.reduce(successes)
    sums[EFFECTIVE] = np.count_nonzero((successes > 0) & (successes < rollouts))
    sums[PREDICTED] = _moments(predicted, observed)
    if policy_lag is not None:
        sums[POLICY_LAG] = policy_lag
        sums[POLICY_LAG_REPORTS] = 1
    known = implicit == implicit
    if not known.all():
        implicit, observed = implicit[known], observed[known]
        successes, rollouts = successes[known], rollouts[known]
    if len(implicit):
        sums[IMPLICIT_OUTCOMES] = len(implicit)
        sums[IMPLICIT] = _moments(implicit, observed)
        bins = np.minimum(implicit * BINS, BINS - 1).astype(np.int64)
        sums[BIN_SUCCESSES] = np.bincount(bins, successes, BINS)
        sums[BIN_FAILURES] = np.bincount(bins, rollouts - successes, BINS)
    return sums


def accuracy(sums: Floats) -> Accuracy:
    """Returns the figures of `[SIZE]` sums."""
    absolute_error, brier_score, correlation = _errors(sums[OUTCOMES], sums[PREDICTED])
    implicit_absolute_error, implicit_brier_score, implicit_correlation = _errors(
        sums[IMPLICIT_OUTCOMES], sums[IMPLICIT]
    )
    return Accuracy(
        reports=float(sums[REPORTS]),
        outcomes=float(sums[OUTCOMES]),
        rollouts=float(sums[ROLLOUTS]),
        successes=float(sums[SUCCESSES]),
        effective_task_ratio=_ratio(sums[EFFECTIVE], sums[OUTCOMES]),
        absolute_error=absolute_error,
        brier_score=brier_score,
        correlation=correlation,
        implicit_outcomes=float(sums[IMPLICIT_OUTCOMES]),
        implicit_absolute_error=implicit_absolute_error,
        implicit_brier_score=implicit_brier_score,
        implicit_correlation=implicit_correlation,
        implicit_auc=_auc(sums[BIN_SUCCESSES], sums[BIN_FAILURES]),
        mean_policy_lag=_ratio(sums[POLICY_LAG], sums[POLICY_LAG_REPORTS]),
    )


def _moments(x: Floats, y: Floats) -> Floats:
    rows = np.empty((7, len(x)))
    error = np.subtract(x, y, out=rows[1])
    np.abs(error, out=rows[0])
    np.multiply(error, error, out=rows[1])
    rows[2] = x
    rows[3] = y
    np.multiply(x, x, out=rows[4])
    np.multiply(y, y, out=rows[5])
    np.multiply(x, y, out=rows[6])
    return np.asarray(np.add.reduce(rows, axis=1))


def _errors(n: float, moments: Floats) -> tuple[float, float, float]:
    """Returns the mean absolute error, the mean squared error (Brier score) and the correlation."""
    if n == 0:
        return np.nan, np.nan, np.nan
    absolute, squared, x, y, xx, yy, xy = (moments / n).tolist()
    variances = (xx - x * x, yy - y * y)
    if min(variances) < 1e-12:  # rounding alone: x or y has but one value
        return absolute, squared, np.nan
    correlation = (xy - x * y) / float(np.sqrt(variances[0] * variances[1]))
    return absolute, squared, min(max(correlation, -1.0), 1.0)


def _auc(successes: Floats, failures: Floats) -> float:
    """Returns the chance that a successful rollout scores higher than a failed one, ties counted half."""
    failures_below = np.cumsum(failures) - failures
    return _ratio(
        np.add.reduce(successes * (failures_below + failures / 2)), np.add.reduce(successes) * np.add.reduce(failures)
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else np.nan
