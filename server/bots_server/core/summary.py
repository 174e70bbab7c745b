"""A run at a glance, from the factored posterior: O(strata + cells + deviating tasks), whatever the dataset's size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from bots_server.core import distinct, statistics
from bots_server.core.posterior import Individuals, Posterior, individuals
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]

BINS = 20
SOLVED = 0.9
UNSOLVABLE = 0.1
MOST_TAGS = 50


@dataclass(frozen=True, slots=True)
class TagSummary:
    """The fields of `bots.v1.TagSummary`."""

    tag: str
    tasks: int
    mean_pass_rate: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary:
    """What `bots.v1.RunSummary` has beyond the posterior's own fields; the proto says what each one is."""

    pass_rate_bins: NDArray[np.int64]
    mean_pass_rate: float
    solved: float
    unsolvable: float
    in_reach: float
    mean_evidence: float
    tried_tasks: float
    uniform_effective_task_ratio: float
    tags: tuple[TagSummary, ...]


def summarise(posterior: Posterior, tasks: Tasks) -> Summary:
    """Returns the summary of a posterior, pending outcomes counted in."""
    own = individuals(posterior, tasks)
    stratum = tasks.stratum.take(own.tasks).astype(np.int64)
    # One row for what is left of each stratum on its baseline, then one for each individual task.
    left = np.diff(tasks.stratum_start) - np.bincount(stratum, minlength=len(tasks.strata))
    count = np.concatenate((left, np.ones(len(own)))).astype(np.float64)
    alpha = np.concatenate((posterior.baseline_alpha, own.alpha))
    beta = np.concatenate((posterior.baseline_beta, own.beta))
    prior = tasks.strata.prior_alpha + tasks.strata.prior_beta
    evidence = alpha + beta - np.concatenate((prior, prior[stratum]))
    means = alpha / (alpha + beta)

    def over_tasks(values: Floats | NDArray[np.bool_]) -> float:
        return float(np.add.reduce(values * count) / len(tasks))

    bins = np.minimum(means * BINS, BINS - 1).astype(np.int64)
    recent_rollouts, recent_outcomes = posterior.recent[statistics.ROLLOUTS], posterior.recent[statistics.OUTCOMES]
    rollouts = recent_rollouts / recent_outcomes if recent_outcomes else np.nan
    return Summary(
        pass_rate_bins=np.bincount(bins, count, BINS).astype(np.int64),
        mean_pass_rate=over_tasks(means),
        solved=over_tasks(means > SOLVED),
        unsolvable=over_tasks(means < UNSOLVABLE),
        in_reach=over_tasks((means >= UNSOLVABLE) & (means <= SOLVED)),
        mean_evidence=over_tasks(evidence),
        tried_tasks=min(distinct.estimate(posterior.tried), float(len(tasks))),
        uniform_effective_task_ratio=over_tasks(_effective(alpha, beta, rollouts)),
        tags=_by_tag(tasks, means[: len(tasks.strata)], own, means[len(tasks.strata) :] - means[stratum]),
    )


def _effective(alpha: Floats, beta: Floats, n: float) -> Floats:
    """Returns the chance that n rollouts neither all succeed nor all fail, 1 - E[p^n] - E[(1 - p)^n], p ~ Beta.

    E[p^n] = B(alpha + n, beta) / B(alpha, beta).
    """
    whole = betaln(alpha, beta)
    same = np.exp(betaln(alpha + n, beta) - whole) + np.exp(betaln(alpha, beta + n) - whole)
    return np.asarray(np.maximum(1 - same, 0.0))


def _by_tag(tasks: Tasks, baseline: Floats, own: Individuals, beyond: Floats) -> tuple[TagSummary, ...]:
    """Returns the largest tags, from `[G]` means of the strata and what `[I]` individuals' means are beyond those."""
    if tasks.tag is None:
        return ()
    size = np.diff(tasks.cell_start)
    tagged = np.bincount(tasks.cell_tag, size, len(tasks.tags))
    total = np.bincount(tasks.cell_tag, size * baseline[tasks.cell_stratum], len(tasks.tags))
    total += np.bincount(tasks.tag.take(own.tasks), beyond, len(tasks.tags))
    largest = np.argsort(-tagged, kind="stable")[:MOST_TAGS].tolist()
    return tuple(
        TagSummary(tasks.tags[tag], int(tagged[tag]), float(total[tag] / tagged[tag])) for tag in largest if tagged[tag]
    )
