"""The demo's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bots.demo.training import Arm, Setting, Trace
from bots.replay.figures import Estimate, estimate

Traces = Sequence[Mapping[Arm, Trace]]


@dataclass(frozen=True)
class Outcome:
    """An arm over its seeds.

    accuracy  held-out accuracy at the end.
    gain      the same less the uniform arm's, seed by seed.
    steps     to the uniform arm's final held-out accuracy of the same seed; all steps if it was not reached.
    missed    seeds that did not reach it.
    ratio     effective task ratio, mean over steps.
    distinct  distinct tasks selected.
    """

    accuracy: Estimate
    gain: Estimate
    steps: Estimate
    missed: int
    ratio: Estimate
    distinct: Estimate


def outcome(traces: Traces, arm: Arm, setting: Setting) -> Outcome:
    """Returns the outcome of an arm, from the traces of all seeds."""
    accuracy = np.array([each[arm].accuracy[-1] for each in traces])
    baseline = np.array([each["uniform"].accuracy[-1] for each in traces])
    steps = np.array([steps_to(each[arm], goal, setting) for each, goal in zip(traces, baseline, strict=True)])
    return Outcome(
        accuracy=estimate(accuracy),
        gain=estimate(accuracy - baseline),
        steps=estimate(np.nan_to_num(steps, nan=setting.steps)),
        missed=int(np.isnan(steps).sum()),
        ratio=estimate([each[arm].ratio.mean() for each in traces]),
        distinct=estimate([np.unique(each[arm].tasks).size for each in traces]),
    )


def steps_to(trace: Trace, accuracy: float, setting: Setting) -> float:
    """Returns the first measured step with at least this held-out accuracy; NaN: never."""
    reached = np.flatnonzero(trace.accuracy >= accuracy)
    return float(setting.measured[reached[0]]) if reached.size else np.nan
