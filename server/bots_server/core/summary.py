"""A run at a glance, from the factored posterior: O(strata + cells + individual tasks), whatever the dataset's size."""

from dataclasses import dataclass

import numpy as np

from bots_server.core.arrays import Bools, Floats, Ints
from bots_server.core.models import MODULES, ModelSummary
from bots_server.core.posterior import Posterior, individuals
from bots_server.core.shadow import bins, effectiveness
from bots_server.core.state import Factored
from bots_server.core.statistics import Figures, figures, mean_rollouts
from bots_server.core.tasks import Tasks

BINS = 20
SOLVED = 0.9
TOO_HARD = 0.1
MOST_TAGS = 50


@dataclass(frozen=True, slots=True)
class TagSummary:
    """One tag: its tasks and their mean posterior pass rate."""

    tag: str
    tasks: int
    mean_pass_rate: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary:
    """A run at a glance. Shares are of the dataset's tasks, pending outcomes are counted in."""

    pass_rate_bins: Ints  # `[20]` tasks by posterior mean pass rate, in steps of 0.05
    mean_pass_rate: float  # mean of the posterior means
    solved: float  # share of tasks with a posterior mean above 0.9
    too_hard: float  # share of tasks with a posterior mean below 0.1
    in_reach: float  # share of the other tasks
    mean_evidence: float  # mean of alpha + beta beyond the prior
    epochs: float  # tasks evaluated, each once an update, by the number of tasks
    distinct_tasks: int  # tasks evaluated at least once
    coverage: float  # their share
    resting_tasks: int  # retired ones too
    retired_tasks: int
    uniform_effective_task_ratio: float  # expected of tasks drawn uniformly; NaN before the first report
    tags: tuple[TagSummary, ...]  # the 50 largest
    pending_rollouts: float  # rollouts that wait for `rollouts_per_update`
    deviating_tasks: int  # tasks with a posterior of their own
    total: Figures  # of all updates
    recent: Figures  # with weights that decay by 63/64 an update
    learned: ModelSummary


def summarise(posterior: Posterior, tasks: Tasks) -> Summary:
    own = individuals(posterior, tasks)
    state, coverage = posterior.state, posterior.state.coverage
    left = np.empty(0, np.int64)  # `[C]` tasks of each cell on the baseline; `[0]` if all are individuals
    if len(own.baseline_alpha):
        left = tasks.cell_size - np.bincount(tasks.cell_of(own.tasks), minlength=len(tasks.cell_stratum))
    # One row for the tasks of each cell, or stratum, on the baseline; then one for each individual.
    count, stratum = left, tasks.cell_stratum[: len(left)]
    if not own.by_cell:
        count, stratum = np.bincount(stratum, left, len(tasks.strata)), np.arange(len(tasks.strata))
    count = np.concatenate((count, np.ones(len(own))))
    stratum = np.concatenate((stratum, tasks.stratum.take(own.tasks)))
    alpha = np.concatenate((own.baseline_alpha, own.alpha))
    beta = np.concatenate((own.baseline_beta, own.beta))
    prior = (tasks.strata.prior_alpha + tasks.strata.prior_beta).take(stratum)
    means = alpha / (alpha + beta)

    def over_tasks(values: Floats | Bools) -> float:
        return float(np.add.reduce(values * count) / len(tasks))

    return Summary(
        pass_rate_bins=np.bincount(bins(means, BINS), count, BINS).astype(np.int64),
        mean_pass_rate=over_tasks(means),
        solved=over_tasks(means > SOLVED),
        too_hard=over_tasks(means < TOO_HARD),
        in_reach=over_tasks((means >= TOO_HARD) & (means <= SOLVED)),
        mean_evidence=over_tasks(alpha + beta - prior),
        epochs=coverage.evaluations / len(tasks),
        distinct_tasks=len(coverage.ever),
        coverage=len(coverage.ever) / len(tasks),
        resting_tasks=coverage.resting if posterior.hyperparameters.rest > 0 else 0,
        retired_tasks=len(posterior.retired),
        uniform_effective_task_ratio=over_tasks(effectiveness(alpha, beta, mean_rollouts(state.recent))),
        tags=_by_tag(tasks, own, left, means),
        pending_rollouts=float(np.add.reduce(state.pending.rollouts)),
        deviating_tasks=len(own),
        total=figures(state.total),
        recent=figures(state.recent),
        learned=MODULES[posterior.model].summarise(state.learned, tasks),
    )


def _by_tag(tasks: Tasks, own: Factored, left: Ints, means: Floats) -> tuple[TagSummary, ...]:
    """Returns the largest tags, given the means of the baseline and then of the individuals."""
    if tasks.tag is None:
        return ()
    number = len(tasks.tags)
    tagged = np.bincount(tasks.cell_tag, tasks.cell_size, number)
    of_baseline, of_individual = np.split(means, [len(own.baseline_alpha)])
    total = np.bincount(tasks.tag.take(own.tasks), of_individual, number).astype(np.float64)
    if len(of_baseline):
        of_cell = of_baseline if own.by_cell else of_baseline.take(tasks.cell_stratum)
        total += np.bincount(tasks.cell_tag, left * of_cell, number)
    largest = np.argsort(-tagged, kind="stable")[:MOST_TAGS].tolist()
    return tuple(
        TagSummary(tasks.tags[tag], int(tagged[tag]), float(total[tag] / tagged[tag])) for tag in largest if tagged[tag]
    )
