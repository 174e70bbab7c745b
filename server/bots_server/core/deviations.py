"""Deviations: what evaluated tasks have beyond the baseline of their stratum, and how an update changes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.hyperparameters import Hyperparameters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Deviations:
    """What their own outcomes added to the baseline of D evaluated tasks.

    tasks:       `[D]` int64, ascending, distinct, in [0, N)
    alpha:       `[D]` float64, pseudo-counts; may be negative
    beta:        `[D]` float64, pseudo-counts; may be negative
    last_update: `[D]` int64, number of the update in which the task was evaluated last, the run's first being 1
    """

    tasks: Ints
    alpha: Floats
    beta: Floats
    last_update: Ints

    def __len__(self) -> int:
        """Returns D."""
        return len(self.tasks)


def after_update(
    before: Deviations, parameters: Hyperparameters, update: int, evaluated: Ints, alpha: Floats, beta: Floats
) -> Deviations:
    """Returns the deviations after an update, given what it adds to those of the `[n]` evaluated tasks."""
    keep = 1 - parameters.forgetting
    decayed = Deviations(before.tasks, before.alpha * keep, before.beta * keep, before.last_update)
    after = plus(decayed, update, evaluated, alpha, beta)
    # A dropped task is wrong by less than the floor in this update, and of what it was wrong before (1 - forgetting) is
    # left. So with a floor of at most 100 * forgetting * tolerance it is never wrong by more than 100 * tolerance,
    # however often it is dropped.
    floor = parameters.tolerance * min(1.0, 100 * parameters.forgetting)
    size = np.abs(after.alpha)
    kept = np.maximum(size, np.abs(after.beta), out=size) >= floor
    kept |= after.last_update > update - parameters.cooldown
    return in_order(after, kept)


def plus(before: Deviations, update: int, evaluated: Ints, alpha: Floats, beta: Floats) -> Deviations:
    """Returns `before` with what `[n]` tasks evaluated in `update` add; new tasks come last, out of order."""
    if len(before):
        at, found = find(before.tasks, evaluated)
        again, new = at[found], ~found
    else:
        again, found, new = np.empty(0, np.int64), np.zeros(len(evaluated), np.bool_), np.ones(len(evaluated), np.bool_)
    after = Deviations(
        tasks=np.concatenate((before.tasks, evaluated[new])),
        alpha=np.concatenate((before.alpha, alpha[new])),
        beta=np.concatenate((before.beta, beta[new])),
        last_update=np.concatenate((before.last_update, np.full(len(evaluated) - len(again), update))),
    )
    if len(again):
        after.alpha[again] += alpha[found]
        after.beta[again] += beta[found]
        after.last_update[again] = update
    return after


def in_order(deviations: Deviations, kept: NDArray[np.bool_] | None = None) -> Deviations:
    """Returns the deviations (those that are `kept`) with tasks ascending, so that equal states are equal arrays."""
    order = deviations.tasks.argsort(kind="stable")  # merges the two runs that `plus` leaves
    if kept is not None:
        order = order[kept.take(order)]
    return Deviations(
        tasks=deviations.tasks.take(order),
        alpha=deviations.alpha.take(order),
        beta=deviations.beta.take(order),
        last_update=deviations.last_update.take(order),
    )


def find(ascending: Ints, tasks: NDArray[np.integer]) -> tuple[Ints, NDArray[np.bool_]]:
    """Returns where each task stands in `ascending` (not empty), and whether it does; else any position."""
    at = np.minimum(ascending.searchsorted(tasks), len(ascending) - 1)
    return at, ascending.take(at) == tasks
