"""Figures over seeds: means with their standard errors, and the rows of the replay's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bots.replay.simulation import Trace


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error; NaN: not known."""

    mean: float
    error: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "-"
        digits = 3 if abs(self.mean) < 10 else 0
        error = "" if np.isnan(self.error) else f" ± {self.error:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}"


def estimate(values: npt.ArrayLike) -> Estimate:
    """Returns the mean and the standard error of values, one for each seed, without the NaN among them."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not known.size:
        return Estimate(np.nan, np.nan)
    error = known.std(ddof=1) / np.sqrt(known.size) if known.size > 1 else np.nan
    return Estimate(float(known.mean()), float(error))


@dataclass(frozen=True)
class Figures:
    """One arm over its seeds.

    ratio        effective task ratio, mean over steps.
    distinct     distinct tasks evaluated.
    coverage     their share of the dataset.
    correlation  of posterior mean and true pass rate over all tasks, mean over the looks that have one.
    """

    ratio: Estimate
    distinct: Estimate
    coverage: Estimate
    correlation: Estimate


def figures(traces: Sequence[Trace], size: int) -> Figures:
    """Returns the figures of one arm on a dataset of `size` tasks, from its traces, one for each seed."""
    distinct = np.array([trace.distinct[-1] for trace in traces])
    known = [trace.correlation[~np.isnan(trace.correlation)] for trace in traces]
    return Figures(
        ratio=estimate([trace.ratio.mean() for trace in traces]),
        distinct=estimate(distinct),
        coverage=estimate(distinct / size),
        correlation=estimate([values.mean() if values.size else np.nan for values in known]),
    )
