"""Outcomes of distinct tasks, as an update takes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Bools, Floats, Ints, distinct

# A task's rollouts in one update count as at most this many, so that no report can freeze a run.
MOST_ROLLOUTS = 1024.0

# Pass rates of two parts of a group that differ by less are equal: rounding alone.
_SAME_RATE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Outcomes of n distinct tasks."""

    tasks: Ints  # `[n]` ascending, distinct, in [0, N)
    successes: Floats  # `[n]` in [0, rollouts]
    rollouts: Floats  # `[n]` whole numbers above 0
    effective: Bools | None = None  # `[n]` the rewards of the task's rollouts were not all equal; None: successes tell

    def __len__(self) -> int:
        return len(self.tasks)

    def spread(self) -> Bools:
        """Returns `[n]` `effective`, or what the successes tell of it: neither none nor all."""
        if self.effective is not None:
            return self.effective
        return np.asarray((self.successes > 0) & (self.successes < self.rollouts))


NOTHING = Evidence(np.empty(0, np.int64), np.empty(0), np.empty(0))


def gather(
    tasks: NDArray[np.integer],
    successes: Floats,
    rollouts: NDArray[np.float64 | np.int64],
    effective: Bools | None = None,
) -> Evidence:
    """Returns the evidence of outcomes in any order, several outcomes of one task summed.

    `effective` of a summed task is true if it is for one of its outcomes, or if their pass rates differ.
    """
    own = distinct(np.asarray(tasks, np.int64))
    inverse = own.searchsorted(tasks)
    spread = None
    if effective is not None:
        rates = successes / rollouts
        lowest, highest = np.full(len(own), np.inf), np.full(len(own), -np.inf)
        np.minimum.at(lowest, inverse, rates)
        np.maximum.at(highest, inverse, rates)
        spread = highest - lowest > _SAME_RATE
        np.logical_or.at(spread, inverse, effective)
    return Evidence(
        tasks=own,
        successes=np.asarray(np.bincount(inverse, successes, len(own)), np.float64),
        rollouts=np.asarray(np.bincount(inverse, rollouts, len(own)), np.float64),
        effective=spread,
    )


def merge(first: Evidence, second: Evidence) -> Evidence:
    """Returns the evidence of two reports together."""
    if len(first) == 0 or len(second) == 0:
        return second if len(first) == 0 else first
    given = first.effective is not None or second.effective is not None
    return gather(
        np.concatenate((first.tasks, second.tasks)),
        np.concatenate((first.successes, second.successes)),
        np.concatenate((first.rollouts, second.rollouts)),
        np.concatenate((first.spread(), second.spread())) if given else None,
    )


def capped(evidence: Evidence) -> Evidence:
    """Returns the evidence with tasks of more than 1024 rollouts at 1024 rollouts and the same pass rate."""
    if len(evidence) == 0 or evidence.rollouts.max() <= MOST_ROLLOUTS:
        return evidence
    rollouts = np.minimum(evidence.rollouts, MOST_ROLLOUTS)
    scaled = evidence.successes / evidence.rollouts * rollouts
    successes = np.where(evidence.rollouts > MOST_ROLLOUTS, np.minimum(scaled, rollouts), evidence.successes)
    return Evidence(evidence.tasks, successes, rollouts, evidence.effective)
