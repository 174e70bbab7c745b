"""The tasks that can be selected, in the factored form of the posterior: individuals and ranges."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bots_server.core.arrays import Floats, Ints, find, union
from bots_server.core.coverage import Coverage
from bots_server.core.draw.pool import Parts
from bots_server.core.models import MODULES
from bots_server.core.posterior import Posterior, individuals
from bots_server.core.state import all_individual, individual_tasks
from bots_server.core.tasks import Tasks

# Ranks of tasks: not resting, resting and first to come back, resting. A batch takes what it lacks from the next rank.
RANKS = 3


@dataclass(frozen=True, eq=False)
class Eligible:
    """The tasks of one rank that can be selected, in P parts (one for each quota, else one) that share no task.

    An entity is a set of tasks with one posterior: first the I individuals, each a task by itself, then the K ranges
    (the available tasks of a stratum, or of a cell).
    """

    posterior: Posterior
    tasks: Tasks
    own: Ints  # `[I]` tasks of the individuals, ascending
    place: Ints  # `[I]` their places among the posterior's individuals
    bounds: Ints  # `[n + 1]` positions in `tasks.members` between which the ranges lie
    range: Ints  # `[K]` range k is from bounds[range[k]] to bounds[range[k] + 1]
    free: Ints  # `[K]` available tasks of the range, >= 1
    group: Ints  # `[K]` place of the range in the posterior's baseline
    tag: Ints | None  # `[I + K]` of the entity; None: an entity may have several
    parts: Parts  # of the entities
    taken: Ints  # ascending, tasks that are in a range but not available there: individuals, excluded and retired ones
    coverage: Coverage | None  # what rests; None: nothing does
    rank: int  # of these tasks
    asked: Ints  # `[P]` tasks of the asked tags, of every rank
    excluded: Ints  # `[P]` of these, the excluded
    retired: Ints  # `[P]` of these and not excluded, the retired

    def __len__(self) -> int:
        return len(self.own) + len(self.free)

    def count(self) -> Ints:
        """Returns `[I + K]` available tasks of each entity."""
        return np.concatenate((np.ones(len(self.own), np.int64), self.free))

    def alpha_beta(self) -> tuple[Floats, Floats]:
        """Returns `[I + K]` alpha and `[I + K]` beta; slow if all tasks are individual."""
        if len(self.own) == 0:
            alpha, beta = MODULES[self.posterior.model].baseline(self.posterior.state.learned, self.tasks)
            return alpha.take(self.group), beta.take(self.group)
        of = individuals(self.posterior, self.tasks)
        return (
            np.concatenate((of.alpha.take(self.place), of.baseline_alpha.take(self.group))),
            np.concatenate((of.beta.take(self.place), of.baseline_beta.take(self.group))),
        )

    @cached_property
    def total(self) -> Ints:
        """Returns `[P]` the number of available tasks."""
        return self.parts.sum(self.count()).astype(np.int64)

    @property
    def available(self) -> Ints:
        """Returns `[P]` tasks that are neither excluded nor retired, of every rank."""
        return self.asked - self.excluded - self.retired


def eligible(
    posterior: Posterior,
    tasks: Tasks,
    excluded: Ints,
    tags: Sequence[Sequence[int]] | None,
    rank: int = 0,
    *,
    tagged: bool = False,
) -> Eligible:
    """Returns the tasks of one rank, of the asked tags, neither excluded nor retired.

    tags:     those of each part, no tag in two of them; None: one part of all tasks, with tags or without
    excluded: ascending, distinct
    tagged:   whether no entity may have tasks of two tags
    """
    if tags is not None and tasks.tag is None:
        raise ValueError("tags are asked of tasks that have none")
    every = all_individual(tasks, posterior.model)
    own = np.arange(len(tasks)) if every else individual_tasks(posterior.state)
    by_cell = MODULES[posterior.model].BY_CELL
    coverage = posterior.state.coverage if posterior.hyperparameters.rest > 0 else None
    retired = posterior.retired[~find(excluded, posterior.retired)[1]]
    blocked = union(excluded, retired) if len(retired) else excluded
    taken = blocked if every else union(own, blocked) if len(blocked) else own

    number = 1 if tags is None else len(tags)
    part_of_tag = np.full(max(len(tasks.tags), 1), 0 if tags is None else number)  # number: of no part
    for part, asked_tags in enumerate(tags or ()):
        part_of_tag[list(asked_tags)] = part

    def by_part(which: Ints) -> Ints:
        return np.bincount(part_of_tag.take(tasks.tag_of(which)), minlength=number + 1)[:number]

    if coverage is None:
        of_rank = np.full(len(own), rank == 0)
    else:
        of_rank = (coverage.ranks(len(tasks)) if every else coverage.rank(own)) == rank
    chosen = of_rank & ~find(blocked, own)[1]
    if tags is not None:
        chosen &= part_of_tag.take(tasks.tag_of(own)) < number
    available = chosen.nonzero()[0]
    own_tasks = available if every else own.take(available)

    cells = by_cell or tags is not None or tagged or tasks.tag is None
    bounds, kept, free = _ranges(tasks, coverage, rank, own[of_rank], blocked, cells=cells, none=every)
    if tags is not None:
        asked_for = part_of_tag.take(tasks.cell_tag.take(kept)) < number
        kept, free = kept[asked_for], free[asked_for]
    group = tasks.cell_stratum.take(kept) if cells and not by_cell else kept
    tag = None
    if tags is not None or tagged:
        tag = np.concatenate((tasks.tag_of(own_tasks), tasks.cell_tag.take(kept))).astype(np.int64)
    asked = np.array([len(tasks)])
    if tags is not None:
        asked = np.bincount(part_of_tag.take(tasks.cell_tag), tasks.cell_size, number + 1)[:number]
    return Eligible(
        posterior=posterior,
        tasks=tasks,
        own=own_tasks,
        place=available,
        bounds=bounds,
        range=kept,
        free=free,
        group=group,
        tag=tag,
        parts=Parts(np.empty(0, np.int64) if tag is None or tags is None else part_of_tag.take(tag), number),
        taken=taken,
        coverage=coverage,
        rank=rank,
        asked=asked.astype(np.int64),
        excluded=by_part(excluded),
        retired=by_part(retired),
    )


def _ranges(
    tasks: Tasks, coverage: Coverage | None, rank: int, own: Ints, blocked: Ints, *, cells: bool, none: bool
) -> tuple[Ints, Ints, Ints]:
    """Returns bounds, the ranges between them that have available tasks, and their number of these.

    own: individuals of this rank; blocked: excluded and retired tasks, of every rank
    """
    if none or (coverage is None and rank > 0):
        return tasks.cell_start, np.empty(0, np.int64), np.empty(0, np.int64)
    if coverage is None:
        free = tasks.cell_size
    elif rank == 0:
        free = tasks.cell_size - coverage.resting_by_cell
    elif rank == 1:
        free = (coverage.resting_by_cell - coverage.current_by_cell).astype(np.int64)
    else:
        free = coverage.current_by_cell.astype(np.int64)
    if coverage is not None and len(blocked):
        blocked = blocked[coverage.rank(blocked) == rank]
    taken = union(own, blocked) if len(blocked) else own
    free = free - np.bincount(tasks.cell_of(taken), minlength=len(free))
    bounds = tasks.cell_start
    if not cells:
        bounds = tasks.stratum_start
        free = np.bincount(tasks.cell_stratum, free, len(tasks.strata)).astype(np.int64)
    kept = free.nonzero()[0]
    return bounds, kept, free.take(kept)
