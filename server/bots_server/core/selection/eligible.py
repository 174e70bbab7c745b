"""The tasks that can be selected, in the factored form of the posterior: individuals and ranges."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.posterior import Posterior, individuals
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Eligible:
    """What can be selected, in P parts (one a quota, else one) that share no task.

    An entity is a set of tasks with one posterior: first the I eligible individuals (deviating or pending tasks, each
    by itself), then the K ranges (what is free of a stratum, or of a stratum and tag where tags are asked).

    own:      `[I]` tasks of the individuals, ascending
    start:    `[K]` first position of the range in `tasks.members`
    size:     `[K]` number of positions
    alpha:    `[I + K]`
    beta:     `[I + K]`
    count:    `[I + K]` eligible tasks of the entity, >= 1
    part:     `[I + K]` in [0, P)
    taken:    ascending, the tasks that are in a range but not free there: individuals and excluded ones
    asked:    `[P]` tasks of the asked tags
    excluded: `[P]` of these, the excluded
    cooling:  `[P]` of these and not excluded, the cooling
    """

    own: Ints
    start: Ints
    size: Ints
    alpha: Floats
    beta: Floats
    count: Ints
    part: Ints
    taken: Ints
    asked: Ints
    excluded: Ints
    cooling: Ints

    @property
    def total(self) -> Ints:
        """Returns `[P]` the number of eligible tasks."""
        return self.asked - self.excluded - self.cooling


def eligible(posterior: Posterior, tasks: Tasks, excluded: Ints, parts: Sequence[Sequence[int]] | None) -> Eligible:
    """Returns what is eligible: of the asked tags, not excluded, not evaluated in the last `cooldown` updates.

    `parts` has the tags of each part, no tag in two of them; None is one part of all tasks, with tags or without.
    `excluded` may be in any order and may hold a task twice.
    """
    own = individuals(posterior, tasks)
    taken = own.tasks
    shut = np.zeros(len(own), np.bool_)
    if len(excluded):
        excluded = np.unique(excluded)
        shut = contains(excluded, own.tasks)
        taken = np.union1d(own.tasks, excluded)

    if parts is None:
        number = 1
        size = np.diff(tasks.stratum_start)
        start, stratum = tasks.stratum_start[:-1], np.arange(len(size))
        part = np.zeros(len(size), np.int64)
        own_part = np.zeros(len(own), np.int64)
        out_part = np.zeros(len(excluded), np.int64)
        holder = tasks.stratum.take(taken).astype(np.int64)
    else:
        number = len(parts)
        part_of_tag = np.full(len(tasks.tags), -1)
        for k, asked_tags in enumerate(parts):
            part_of_tag[list(asked_tags)] = k
        tag = tasks.tag
        if tag is None:
            raise ValueError("tags are asked of tasks that have none")
        size = np.diff(tasks.cell_start)
        start, stratum = tasks.cell_start[:-1], tasks.cell_stratum
        part = part_of_tag.take(tasks.cell_tag)
        own_part, out_part = part_of_tag.take(tag.take(own.tasks)), part_of_tag.take(tag.take(excluded))
        key = tasks.cell_stratum * len(tasks.tags) + tasks.cell_tag
        holder = key.searchsorted(tasks.stratum.take(taken).astype(np.int64) * len(tasks.tags) + tag.take(taken))

    free = size - np.bincount(holder, minlength=len(size))
    asked = part >= 0
    kept = np.flatnonzero(asked & (free > 0))
    wanted = own_part >= 0
    open_ = np.flatnonzero(wanted & ~shut & ~own.cooling)
    return Eligible(
        own=own.tasks.take(open_),
        start=start.take(kept),
        size=size.take(kept),
        alpha=np.concatenate((own.alpha.take(open_), posterior.baseline_alpha.take(stratum.take(kept)))),
        beta=np.concatenate((own.beta.take(open_), posterior.baseline_beta.take(stratum.take(kept)))),
        count=np.concatenate((np.ones(len(open_), np.int64), free.take(kept))),
        part=np.concatenate((own_part.take(open_), part.take(kept))),
        taken=taken,
        asked=_tally(part[asked], number, size[asked]),
        excluded=_tally(out_part[out_part >= 0], number),
        cooling=_tally(own_part[wanted & own.cooling & ~shut], number),
    )


def contains(ascending: Ints, tasks: Ints) -> NDArray[np.bool_]:
    """Returns whether each task is in `ascending`."""
    if len(ascending) == 0:
        return np.zeros(len(tasks), np.bool_)
    return np.equal(ascending.take(ascending.searchsorted(tasks), mode="clip"), tasks)


def _tally(part: Ints, number: int, weight: Ints | None = None) -> Ints:
    return np.bincount(part, weight, number).astype(np.int64)
