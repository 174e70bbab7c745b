"""What came of a replay, in numbers: the rows of the table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bots.replay.simulation import Trace


@dataclass(frozen=True)
class Figures:
    """An arm over its seeds.

    ratio           mean effective task ratio over steps and seeds.
    ratio_error     standard error of that mean over seeds; NaN for a single seed.
    absolute_error  mean over looks and seeds; NaN for the oracle.
    correlation     mean over the looks and seeds that have one; NaN for the oracle.
    """

    ratio: float
    ratio_error: float
    absolute_error: float
    correlation: float


def figures(traces: Sequence[Trace]) -> Figures:
    """Returns the figures of one arm's traces, one for each seed."""
    ratios = np.array([trace.ratio.mean() for trace in traces])
    correlations = np.concatenate([trace.correlation for trace in traces])
    known = correlations[~np.isnan(correlations)]
    errors = np.concatenate([trace.absolute_error for trace in traces])
    return Figures(
        ratio=float(ratios.mean()),
        ratio_error=float(ratios.std(ddof=1) / np.sqrt(len(ratios))) if len(ratios) > 1 else np.nan,
        absolute_error=float(errors.mean()) if errors.size else np.nan,
        correlation=float(known.mean()) if known.size else np.nan,
    )
