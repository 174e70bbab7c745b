"""Implicit evidence: what the update's outcomes say about the tasks that it did not evaluate, by interpolation.

The capability kappa says where the policy stands between the weak (0) and the strong (1) reference model; a task's
implicit pass rate is its references' interpolation at kappa (arXiv 2510.26374, section 4, the plug-in estimator).
"""

import numpy as np
from numpy.typing import NDArray

from bots_server.core.strata import Strata

# Below this distance of the mean references an update says nothing about the capability.
MIN_SPAN = 1e-3


def capability(
    previous: float | None,
    smoothing: float,
    weak: NDArray[np.float32],
    strong: NDArray[np.float32],
    pass_rates: NDArray[np.float64],
) -> float | None:
    """Returns kappa after an update, from the references (NaN: none) and observed pass rates of its tasks, `[n]` each.

        kappa_hat = (mean(k_i / n_i) - mean(w_i)) / (mean(s_i) - mean(w_i))     over tasks with references
        kappa <- smoothing * kappa + (1 - smoothing) * kappa_hat                the first kappa_hat starts it

    kappa stays where no task has references or |mean(s) - mean(w)| < 1e-3.
    """
    known = weak == weak
    if not known.all():
        weak, strong, pass_rates = weak[known], strong[known], pass_rates[known]
    if len(weak) == 0:
        return previous
    low = np.add.reduce(weak, dtype=np.float64) / len(weak)
    span = np.add.reduce(strong, dtype=np.float64) / len(weak) - low
    if abs(span) < MIN_SPAN:
        return previous
    estimate = float((np.add.reduce(pass_rates) / len(weak) - low) / span)
    return estimate if previous is None else smoothing * previous + (1 - smoothing) * estimate


def implicit_pass_rates(
    capability: float | None, weak: NDArray[np.float32], strong: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns clip(w + kappa (s - w), 0, 1) in the shape of `weak`; NaN without references, or with no kappa yet."""
    if capability is None:
        return np.full(len(weak), np.nan)
    low = weak.astype(np.float64)
    rates = strong - low
    rates *= capability
    rates += low
    np.maximum(rates, 0.0, out=rates)
    return np.minimum(rates, 1.0, out=rates)


def implicit_evidence(
    capability: float | None, strata: Strata, rollouts: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns `[G]` pseudo-successes and `[G]` pseudo-failures that `rollouts` rollouts at the implicit pass rate add.

    Both are 0 for a stratum without references, and everywhere as long as there is no kappa.
    """
    if capability is None or rollouts == 0:
        return np.zeros(len(strata)), np.zeros(len(strata))
    rates = implicit_pass_rates(capability, strata.weak, strata.strong)
    failures = 1.0 - rates
    rates *= rollouts
    failures *= rollouts
    unknown = np.isnan(rates)
    if unknown.any():
        rates[unknown] = 0.0
        failures[unknown] = 0.0
    return rates, failures
