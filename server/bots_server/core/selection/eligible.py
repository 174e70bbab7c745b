"""The tasks that can be selected, in the factored form of the posterior: individuals and ranges."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.posterior import Posterior, individuals
from bots_server.core.selection.parts import Parts
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Eligible:
    """What can be selected, in P parts (one a quota, else one) that share no task.

    An entity is a set of tasks with one posterior: first the I eligible individuals (deviating or pending tasks, each
    by itself), then the K ranges (what is free of a stratum, or of a stratum and tag where tags are asked).

    own:      `[I]` tasks of the individuals, ascending
    bounds:   `[n + 1]` positions in `tasks.members`, where ranges begin and end
    range:    `[K]` range k is from bounds[range[k]] to bounds[range[k] + 1]
    free:     `[K]` eligible tasks of the range, >= 1
    alpha:    `[I + K]`
    beta:     `[I + K]`
    parts:    of the entities
    taken:    ascending, the tasks that are in a range but not free there: individuals and excluded ones
    asked:    `[P]` tasks of the asked tags
    excluded: `[P]` of these, the excluded
    cooling:  `[P]` of these and not excluded, the cooling
    """

    own: Ints
    bounds: Ints
    range: Ints
    free: Ints
    alpha: Floats
    beta: Floats
    parts: Parts
    taken: Ints
    asked: Ints
    excluded: Ints
    cooling: Ints

    @property
    def total(self) -> Ints:
        """Returns `[P]` the number of eligible tasks."""
        return self.asked - self.excluded - self.cooling

    def count(self) -> Ints:
        """Returns `[I + K]` eligible tasks of each entity."""
        return np.concatenate((np.ones(len(self.own), np.int64), self.free))


def eligible(posterior: Posterior, tasks: Tasks, excluded: Ints, tags: Sequence[Sequence[int]] | None) -> Eligible:
    """Returns what is eligible: of the asked tags, not excluded, not evaluated in the last `cooldown` updates.

    `tags` are those of each part, no tag in two of them; None is one part of all tasks, with tags or without.
    `excluded` may be in any order and may hold a task twice.
    """
    own = individuals(posterior, tasks)
    taken, shut = own.tasks, np.zeros(len(own), np.bool_)
    if len(excluded):
        excluded = np.unique(excluded)
        shut = contains(excluded, own.tasks)
        taken = np.union1d(own.tasks, excluded)
    cooling = own.cooling & ~shut
    shut |= own.cooling

    if tags is None:
        bounds = tasks.stratum_start
        free = np.diff(bounds) - np.bincount(tasks.stratum.take(taken), minlength=len(bounds) - 1)
        kept = np.flatnonzero(free)
        stratum = kept
        open_ = np.flatnonzero(~shut)
        parts = Parts(np.empty(0, np.int64), 1)
        asked = np.array([len(tasks)])
        by_part = np.array([[len(excluded)], [np.count_nonzero(cooling)]])
    else:
        if tasks.tag is None:
            raise ValueError("tags are asked of tasks that have none")
        number = len(tags)
        part_of_tag = np.full(len(tasks.tags), number)  # the last: of no part
        for part, asked_tags in enumerate(tags):
            part_of_tag[list(asked_tags)] = part
        bounds = tasks.cell_start
        size = np.diff(bounds)
        cell = tasks.cell_stratum * len(tasks.tags) + tasks.cell_tag
        of_taken = tasks.stratum.take(taken).astype(np.int64) * len(tasks.tags) + tasks.tag.take(taken)
        free = size - np.bincount(cell.searchsorted(of_taken), minlength=len(size))
        cell_part = part_of_tag.take(tasks.cell_tag)
        own_part, excluded_part = (part_of_tag.take(tasks.tag.take(which)) for which in (own.tasks, excluded))
        kept = np.flatnonzero((free > 0) & (cell_part < number))
        stratum = tasks.cell_stratum.take(kept)
        open_ = np.flatnonzero(~shut & (own_part < number))
        parts = Parts(np.concatenate((own_part.take(open_), cell_part.take(kept))), number)
        asked = np.bincount(cell_part, size, number + 1)[:number].astype(np.int64)
        by_part = np.stack(
            [np.bincount(of, minlength=number + 1)[:number] for of in (excluded_part, own_part[cooling])]
        )

    return Eligible(
        own=own.tasks.take(open_),
        bounds=bounds,
        range=kept,
        free=free.take(kept),
        alpha=_join(own.alpha.take(open_), posterior.baseline_alpha, stratum),
        beta=_join(own.beta.take(open_), posterior.baseline_beta, stratum),
        parts=parts,
        taken=taken,
        asked=asked,
        excluded=by_part[0],
        cooling=by_part[1],
    )


def contains(ascending: Ints, tasks: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Returns whether each task (of an array of any shape) is in `ascending`."""
    if len(ascending) == 0:
        return np.zeros(tasks.shape, np.bool_)
    found = ascending.take(ascending.searchsorted(tasks), mode="clip")
    return np.asarray(found == tasks)


def _join(own: Floats, baseline: Floats, stratum: Ints) -> Floats:
    joined = np.empty(len(own) + len(stratum))
    joined[: len(own)] = own
    baseline.take(stratum, out=joined[len(own) :], mode="clip")  # the other modes buffer
    return joined
