"""Figures over seeds, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its bootstrap interval of CONFIDENCE; NaN: not known."""

    mean: float
    low: float
    high: float

    def written(self, digits: int = 3, *, sign: bool = False) -> str:
        """Returns the interval as text, such as ".551 [.540, .562]"; a dash if it is not known."""
        if np.isnan(self.mean):
            return "-"
        mean, low, high = (_short(value, digits, sign) for value in (self.mean, self.low, self.high))
        return mean if np.isnan(self.low) else f"{mean} [{low}, {high}]"


def _short(value: float, digits: int, sign: bool) -> str:
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits else text


def interval(values: npt.ArrayLike) -> Interval:
    """Returns the mean of `[seeds]` values and its percentile bootstrap interval (Efron, 1979); equal values give an
    equal interval. NaN are left out; a single value has no interval.
    """
    given: Floats = np.asarray(values, dtype=np.float64)
    known = given[~np.isnan(given)]
    if not known.size:
        return Interval(np.nan, np.nan, np.nan)
    if known.size == 1:
        return Interval(float(known[0]), np.nan, np.nan)
    chosen = np.random.default_rng(0).integers(0, known.size, (RESAMPLES, known.size))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known[chosen].mean(axis=1), [tail, 1 - tail])
    return Interval(float(known.mean()), float(low), float(high))


def best_so_far(accuracy: npt.ArrayLike) -> Floats:
    """Returns `[K]` the largest of the `[K]` accuracies up to each."""
    return np.maximum.accumulate(np.asarray(accuracy, dtype=np.float64))


def time_to_baseline(accuracy: npt.ArrayLike, baseline: npt.ArrayLike, measured: npt.ArrayLike) -> float:
    """Returns the time at which the best accuracy so far reaches the baseline's best, as a share of the time at which
    the baseline does (arXiv 2510.26374, section 5); NaN: it never does, the figure is censored at the end.

    The time is interpolated linearly between two measurements.

    accuracy, baseline  `[K]` accuracies of an arm and of the baseline of the same seed.
    measured            `[K]` times of the measurements.
    """
    goal = best_so_far(baseline)[-1]
    reached, needed = (_first_time(values, goal, measured) for values in (accuracy, baseline))
    return reached / needed if needed > 0 else np.nan


def _first_time(accuracy: npt.ArrayLike, goal: float, measured: npt.ArrayLike) -> float:
    best, times = best_so_far(accuracy), np.asarray(measured, dtype=np.float64)
    there = np.flatnonzero(best >= goal)
    if not there.size:
        return np.nan
    place = int(there[0])
    if place == 0:
        return float(times[0])
    share = (goal - best[place - 1]) / (best[place] - best[place - 1])
    return float(times[place - 1] + share * (times[place] - times[place - 1]))


def effective_ratio(successes: npt.ArrayLike, rollouts: int) -> Floats:
    """Returns `[S]` the share of the tasks of each round whose rollouts did not all get the same reward."""
    counts = np.asarray(successes, dtype=np.float64)
    return np.asarray(((counts > 0) & (counts < rollouts)).mean(axis=1))


def correlation_and_auc(predicted: npt.ArrayLike, successes: npt.ArrayLike, rollouts: int) -> tuple[float, float]:
    """Returns the Pearson correlation of predicted and observed pass rates, and the area under the ROC curve of the
    predicted pass rate as a classifier of single rollouts; NaN if one side is constant.
    """
    expected = np.asarray(predicted, dtype=np.float64).ravel()
    counts = np.asarray(successes, dtype=np.float64).ravel()
    if np.ptp(expected) == 0 or np.ptp(counts) == 0:
        return np.nan, np.nan
    pearson = float(np.corrcoef(expected, counts / rollouts)[0, 1])
    _, place = np.unique(expected, return_inverse=True)
    right, wrong = np.bincount(place, counts), np.bincount(place, rollouts - counts)
    below = np.cumsum(wrong) - wrong
    return pearson, float((right * (below + wrong / 2)).sum() / (right.sum() * wrong.sum()))
