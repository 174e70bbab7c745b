"""How well outcomes were predicted: running sums over a run's updates, and the figures that they give.

The state holds two vectors of `SIZE` sums: over all updates, and over recent ones, in which an update weighs 63/64 of
the one after it. The order is stored in snapshots: indices are added at the end, never moved.
"""

from dataclasses import dataclass

import numpy as np

from bots_server.core import shadow
from bots_server.core.arrays import Bools, Floats
from bots_server.core.evidence import Evidence

RECENT_WEIGHT = 63 / 64
SCORE_BINS = 64  # of a predicted pass rate, for the area under the ROC curve
CALIBRATION_BINS = 10
MOST_POLICY_LAG = 10_000  # a larger lag counts as this, so that one wrong step does not hide all others

UPDATES = 0
ROLLOUTS = 1
SUCCESSES = 2
EFFECTIVE = 3  # outcomes whose rewards were not all equal
POLICY_LAG = 4  # policy steps between selection and report
POLICY_LAG_UPDATES = 5  # updates that have one
# By bin of the predicted pass rate: outcomes, sums of the predicted and of the observed pass rate.
CALIBRATION = slice(6, 36)
# One block of sums for each kind of prediction x of the observed pass rates y: number, |x - y|, (x - y)^2, x, y, x^2,
# y^2, x y; successful, then failed rollouts by bin of x.
_BLOCK = 8 + 2 * SCORE_BINS
UNTRIED = slice(36, 36 + _BLOCK)  # posterior means of tasks that the run had not evaluated before
TRIED = slice(36 + _BLOCK, 36 + 2 * _BLOCK)  # posterior means of the other tasks
WITHOUT_OWN = slice(36 + 2 * _BLOCK, 36 + 3 * _BLOCK)  # predictions without the task's own outcomes
SHADOW = slice(WITHOUT_OWN.stop, WITHOUT_OWN.stop + shadow.SIZE)  # see `shadow.compare`
SIZE = SHADOW.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How well predictions met the outcomes. NaN: not known."""

    outcomes: float  # number of predictions
    absolute_error: float  # mean of |predicted - observed pass rate|
    brier_score: float  # mean of (predicted - observed pass rate)^2
    correlation: float  # of predicted and observed pass rate
    auc: float  # chance that a successful rollout's task was predicted higher than a failed one's, ties counted half


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Outcomes whose predicted pass rate is in the bin, and their mean predicted and observed pass rate (NaN: none)."""

    outcomes: float
    predicted: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of running sums. NaN: not known."""

    updates: float  # number of updates; with rollouts_per_update above 0 of reports
    outcomes: float  # tasks evaluated, each once an update
    rollouts: float  # of the outcomes
    successes: float  # of the outcomes
    effective_task_ratio: float  # share of the outcomes whose rewards were not all equal
    prediction: Accuracy  # posterior means before the update
    first_prediction: Accuracy  # the same of tasks that the run had not evaluated before
    implicit_prediction: Accuracy  # predictions that do not use the task's own outcomes
    calibration: tuple[CalibrationBin, ...]  # by `prediction`, in steps of 0.1
    mean_policy_lag: float  # policy steps between selection and report, each at most 10,000
    shadow: shadow.Shadow  # of the updates that have shadow tasks


def observe(evidence: Evidence, tried: Bools, predicted: Floats, without_own: Floats, policy_lag: int | None) -> Floats:
    """Returns `[SIZE]` the sums of one update.

    tried:       `[n]` whether the run evaluated the task before
    predicted:   `[n]` posterior means before the update
    without_own: `[n]` pass rates predicted before it without the task's own outcomes; NaN: none
    policy_lag:  policy steps between selection and report; None: not known
    """
    sums = np.zeros(SIZE)
    observed = evidence.successes / evidence.rollouts
    sums[UPDATES] = 1
    sums[ROLLOUTS] = np.add.reduce(evidence.rollouts)
    sums[SUCCESSES] = np.add.reduce(evidence.successes)
    sums[EFFECTIVE] = np.count_nonzero(evidence.spread())
    if policy_lag is not None:
        sums[POLICY_LAG] = min(policy_lag, MOST_POLICY_LAG)
        sums[POLICY_LAG_UPDATES] = 1
    bins = shadow.bins(predicted, CALIBRATION_BINS)
    weights = (None, predicted, observed)
    sums[CALIBRATION] = np.concatenate([np.bincount(bins, weight, CALIBRATION_BINS) for weight in weights])
    parts = [which.nonzero()[0] for which in (~tried, tried, ~np.isnan(without_own))]
    which = np.concatenate(parts)
    x = np.concatenate((predicted.take(which[: len(tried)]), without_own.take(parts[2])))
    y, successes, rollouts = (column.take(which) for column in (observed, evidence.successes, evidence.rollouts))
    error = x - y
    moments = np.array((np.ones(len(x)), np.abs(error), error * error, x, y, x * x, y * y, x * y))
    bins, end = shadow.bins(x, SCORE_BINS), 0
    blocks = sums[UNTRIED.start : WITHOUT_OWN.stop].reshape(3, _BLOCK)
    for number, part in enumerate(parts):
        of = slice(end, end + len(part))
        blocks[number, :8] = np.add.reduce(moments[:, of], axis=1)
        bins[of] += number * SCORE_BINS
        end += len(part)
    for at, counts in ((8, successes), (8 + SCORE_BINS, rollouts - successes)):
        blocks[:, at : at + SCORE_BINS] = np.bincount(bins, counts, 3 * SCORE_BINS).reshape(3, SCORE_BINS)
    return sums


def figures(sums: Floats) -> Figures:
    """Returns the figures of `[SIZE]` sums."""
    every = _accuracy(sums[UNTRIED] + sums[TRIED])
    counts, predicted, observed = sums[CALIBRATION].reshape(3, CALIBRATION_BINS).tolist()
    return Figures(
        updates=float(sums[UPDATES]),
        outcomes=every.outcomes,
        rollouts=float(sums[ROLLOUTS]),
        successes=float(sums[SUCCESSES]),
        effective_task_ratio=_ratio(sums[EFFECTIVE], every.outcomes),
        prediction=every,
        first_prediction=_accuracy(sums[UNTRIED]),
        implicit_prediction=_accuracy(sums[WITHOUT_OWN]),
        calibration=tuple(
            CalibrationBin(n, _ratio(x, n), _ratio(y, n)) for n, x, y in zip(counts, predicted, observed, strict=True)
        ),
        mean_policy_lag=_ratio(sums[POLICY_LAG], sums[POLICY_LAG_UPDATES]),
        shadow=shadow.figures(sums[SHADOW]),
    )


def mean_rollouts(sums: Floats) -> float:
    """Returns the mean rollouts of an outcome; NaN if there are none."""
    return _ratio(sums[ROLLOUTS], sums[UNTRIED.start] + sums[TRIED.start])


def errors(block: Floats) -> tuple[float, float, float]:
    """Returns the number of predictions of one block of sums, and mean and variance of observed less predicted."""
    n = float(block[0])
    if n == 0:
        return 0.0, np.nan, np.nan
    squared, predicted, observed = (block[2:5] / n).tolist()
    return n, observed - predicted, squared - (observed - predicted) ** 2


def _accuracy(block: Floats) -> Accuracy:
    n = float(block[0])
    absolute, squared, correlation = np.nan, np.nan, np.nan
    if n > 0:
        absolute, squared, x, y, xx, yy, xy = (block[1:8] / n).tolist()
        variances = (xx - x * x, yy - y * y)
        if min(variances) >= 1e-12:  # else x or y has one value and the rest is rounding
            correlation = (xy - x * y) / float(np.sqrt(variances[0] * variances[1]))
            correlation = min(max(correlation, -1.0), 1.0)
    successes, failures = block[8:].reshape(2, SCORE_BINS)
    failures_below = np.cumsum(failures) - failures
    wins = np.add.reduce(successes * (failures_below + failures / 2))
    return Accuracy(
        outcomes=n,
        absolute_error=absolute,
        brier_score=squared,
        correlation=correlation,
        auc=_ratio(wins, np.add.reduce(successes) * np.add.reduce(failures)),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else np.nan
