"""Shadow mode: a trainer's own selection, and how effective the run's selection in its place would have been.

The sums are by bin of the effectiveness that the posterior predicts before the update; what the estimate is and what it
assumes is said at `Shadow` in task_selection.proto.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln

from bots_server.core.arrays import Floats, Ints
from bots_server.core.evidence import Evidence

BINS = 10
SIZE = 4 * BINS  # by bin: outcomes, effective ones, shadow tasks, sum of their predictions


@dataclass(frozen=True, slots=True)
class ShadowBin:
    """One tenth of the predicted effectiveness. NaN: none."""

    outcomes: float  # of the trainer's tasks
    selected: float  # number of shadow tasks
    effective_task_ratio: float  # of the outcomes
    predicted: float  # mean prediction of the shadow tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """The comparison. NaN: not known."""

    outcomes: float  # of the trainer's tasks
    selected: float  # number of shadow tasks
    effective_task_ratio: float  # of the outcomes
    standard_error: float
    selected_effective_task_ratio: float  # of the shadow tasks, estimated
    selected_standard_error: float
    unsupported: float  # share of the shadow tasks in bins without outcomes
    bins: tuple[ShadowBin, ...]


def effectiveness(alpha: Floats, beta: Floats, rollouts: Floats | float) -> Floats:
    """Returns the chance that n rollouts neither all succeed nor all fail, 1 - E[p^n] - E[(1 - p)^n], p ~ Beta.

    E[p^n] = B(alpha + n, beta) / B(alpha, beta).
    """
    whole = betaln(alpha, beta)
    same = np.exp(betaln(alpha + rollouts, beta) - whole) + np.exp(betaln(alpha, beta + rollouts) - whole)
    return np.asarray(np.maximum(1 - same, 0.0))


def compare(evidence: Evidence, alpha: Floats, beta: Floats, shadow_alpha: Floats, shadow_beta: Floats) -> Floats:
    """Returns `[SIZE]` the sums of one update, from alpha and beta before it of its tasks and of its shadow tasks."""
    own = bins(effectiveness(alpha, beta, evidence.rollouts), BINS)
    predicted = effectiveness(shadow_alpha, shadow_beta, float(evidence.rollouts.mean()))
    theirs = bins(predicted, BINS)
    columns = (own, None), (own, evidence.spread()), (theirs, None), (theirs, predicted)
    return np.concatenate([np.bincount(numbers, weights, BINS) for numbers, weights in columns])


def figures(sums: Floats) -> Shadow:
    """Returns the figures of `[SIZE]` sums."""
    outcomes, effective, selected, predicted = sums.reshape(4, BINS)
    all_outcomes, all_selected = outcomes.sum(), selected.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio, share = effective.sum() / all_outcomes, selected / all_selected
        means, ratios = predicted / selected, effective / outcomes
    rate = (effective + np.where(selected > 0, means, 0.0)) / (outcomes + 1)
    estimate = float((share * rate).sum())
    # Of the rates, and of the bins that the shadow tasks happened to be in.
    variance = (share**2 * rate * (1 - rate) / (outcomes + 1)).sum()
    variance += (share * (rate - estimate) ** 2).sum() / max(all_selected, 1.0)
    rows = np.column_stack((outcomes, selected, ratios, means)).tolist()
    return Shadow(
        outcomes=float(all_outcomes),
        selected=float(all_selected),
        effective_task_ratio=float(ratio),
        standard_error=float(np.sqrt(ratio * (1 - ratio) / max(all_outcomes, 1.0))),
        selected_effective_task_ratio=estimate,
        selected_standard_error=float(np.sqrt(variance)),
        unsupported=float(share[outcomes == 0].sum()),
        bins=tuple(ShadowBin(*row) for row in rows),
    )


def bins(values: Floats, number: int) -> Ints:
    """Returns which of `number` equal bins of [0, 1] each value is in."""
    return np.minimum(values * number, number - 1).astype(np.int64)
