"""Deviations: what evaluated tasks have beyond the baseline of their stratum, and how an update changes them."""

from dataclasses import dataclass

import numpy as np

from bots_server.core.arrays import Floats, Ints, find

# Pseudo-counts below which a deviation is dropped.
TOLERANCE = 1e-6

# Share of it that is dropped whatever the forgetting.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Deviations:
    """What their own outcomes added to the baseline of D evaluated tasks."""

    tasks: Ints  # `[D]` ascending, distinct, in [0, N)
    alpha: Floats  # `[D]` pseudo-counts; may be negative
    beta: Floats  # `[D]` pseudo-counts; may be negative

    def __len__(self) -> int:
        return len(self.tasks)


NO_DEVIATIONS = Deviations(np.empty(0, np.int64), np.empty(0), np.empty(0))


def after_update(before: Deviations, forgetting: float, evaluated: Ints, alpha: Floats, beta: Floats) -> Deviations:
    """Returns the deviations after an update, given what it adds to those of the `[n]` evaluated tasks."""
    keep = 1 - forgetting
    at, found = find(before.tasks, evaluated)
    new, at = ~found, at[found]
    tasks = np.concatenate((before.tasks, evaluated[new]))
    own_alpha = np.concatenate((before.alpha * keep, alpha[new]))
    own_beta = np.concatenate((before.beta * keep, beta[new]))
    own_alpha[at] += alpha[found]
    own_beta[at] += beta[found]
    # The error of a dropped task is below the floor in this update and decays by (1 - forgetting) in each later one.
    # With a floor of at most 100 * forgetting * tolerance, repeated drops never add up to more than 100 * tolerance.
    # With hardly any forgetting they add up to that only after 1e8 evaluations of the task, each followed by a drop.
    floor = TOLERANCE * min(1.0, max(100 * forgetting, LEAST_SHARE))
    kept = np.maximum(np.abs(own_alpha), np.abs(own_beta)) >= floor
    order = tasks.argsort(kind="stable")  # merges two ascending runs
    order = order[kept.take(order)]
    return Deviations(tasks.take(order), own_alpha.take(order), own_beta.take(order))
