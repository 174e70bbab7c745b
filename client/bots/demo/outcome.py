"""What came of the demo, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bots.demo.training import Arm, Setting, Trace


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error; NaN where a single seed has none."""

    mean: float
    error: float

    def __str__(self) -> str:
        digits = 3 if abs(self.mean) < 10 else 0
        error = "" if np.isnan(self.error) else f" ± {self.error:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}"


@dataclass(frozen=True)
class Outcome:
    """An arm over its seeds.

    ratio     effective task ratio, mean over steps.
    accuracy  held-out accuracy at the end.
    steps     until the uniform arm's final held-out accuracy of the same seed, over the seeds that got there.
    reached   seeds that got there.
    seeds     all seeds.
    """

    ratio: Estimate
    accuracy: Estimate
    steps: Estimate
    reached: int
    seeds: int


def outcome(traces: Sequence[Mapping[Arm, Trace]], arm: Arm, setting: Setting) -> Outcome:
    """Returns the outcome of an arm, from the traces of all seeds."""
    steps = np.array([steps_to(each[arm], each["uniform"].accuracy[-1], setting) for each in traces])
    return Outcome(
        ratio=estimate([each[arm].ratio.mean() for each in traces]),
        accuracy=estimate([each[arm].accuracy[-1] for each in traces]),
        steps=estimate(steps[~np.isnan(steps)]),
        reached=int(np.sum(~np.isnan(steps))),
        seeds=len(steps),
    )


def gain(traces: Sequence[Mapping[Arm, Trace]]) -> Estimate:
    """Returns the final held-out accuracy of BOTS less that of uniform selection, over pairs of the same seed."""
    return estimate([each["BOTS"].accuracy[-1] - each["uniform"].accuracy[-1] for each in traces])


def steps_to(trace: Trace, accuracy: float, setting: Setting) -> float:
    """Returns the first measured step with at least this held-out accuracy; NaN: never."""
    there = np.flatnonzero(trace.accuracy >= accuracy)
    return float(setting.measured[there[0]]) if there.size else np.nan


def estimate(values: npt.ArrayLike) -> Estimate:
    """Returns the mean of values, one for each seed, and its standard error."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return Estimate(np.nan, np.nan)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return Estimate(float(values.mean()), float(error))
