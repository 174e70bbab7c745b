"""Whether a report is far outside what a run has seen.

The rule for pass rates is Shewhart's control chart (Montgomery, Introduction to Statistical Quality Control): the mean
error of the report's predictions is compared with the run's recent errors, and not with the predicted Betas, because
errors have a bias of their own while the run knows little, for instance for tasks that it has not evaluated.
"""

from dataclasses import dataclass

import numpy as np

from bots_server.core import statistics
from bots_server.core.evidence import Evidence
from bots_server.core.state import State, some_alpha_beta
from bots_server.core.tasks import Tasks

MOST_DEVIATION = 6.0  # standard deviations
MOST_ROLLOUTS_RATIO = 100.0

LEAST_UPDATES = 16  # before which nothing is usual
LEAST_OUTCOMES = 64  # recent ones, with whose errors the report's are compared

# Standard deviation of the movement of a policy's mean pass rate between reports, and least variance of an outcome's
# error. Without them a large report would be an outlier for a change that does not matter.
DRIFT = 0.05
LEAST_VARIANCE = 0.01


@dataclass(frozen=True, slots=True)
class Outlier:
    """How far a report is outside what the run had seen.

    deviation:      of its mean prediction error from the recent mean error, in standard deviations; NaN: not known
    rollouts_ratio: the largest number of rollouts of a task, divided by the recent mean
    """

    deviation: float
    rollouts_ratio: float


def outlier(state: State, tasks: Tasks, model: str, evidence: Evidence) -> Outlier | None:
    """Returns how far outcomes are outside what the run has seen; None if they are not. O(outcomes)."""
    if state.total[statistics.UPDATES] < LEAST_UPDATES:
        return None
    found = Outlier(
        deviation=_deviation(state, tasks, model, evidence),
        rollouts_ratio=float(evidence.rollouts.max() / statistics.mean_rollouts(state.recent)),
    )
    return found if abs(found.deviation) > MOST_DEVIATION or found.rollouts_ratio >= MOST_ROLLOUTS_RATIO else None


def _deviation(state: State, tasks: Tasks, model: str, evidence: Evidence) -> float:
    """Returns the deviation of the errors from those of recent outcomes of tasks evaluated before, or not before."""
    alpha, beta = some_alpha_beta(state, tasks, model, evidence.tasks)
    errors = evidence.successes / evidence.rollouts - alpha / (alpha + beta)
    tried = state.coverage.ever.has(evidence.tasks)
    excess, variance, judged = 0.0, 0.0, 0
    for which, block in ((~tried, statistics.UNTRIED), (tried, statistics.TRIED)):
        outcomes, mean_error, error_variance = statistics.errors(state.recent[block])
        count = int(np.count_nonzero(which))
        if outcomes >= LEAST_OUTCOMES and count:
            excess += float(np.add.reduce(errors[which])) - count * mean_error
            variance += count * max(error_variance, LEAST_VARIANCE)
            judged += count
    return excess / float(np.sqrt(variance + (DRIFT * judged) ** 2)) if judged else np.nan
