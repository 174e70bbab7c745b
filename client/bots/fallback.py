"""What a trainer goes on with while the service is away.

Promise: A trainer never waits on the service longer than its deadline, and never stops because the service is away.
The first half is held for every call (`bots.channel`). The second half needs to know the tasks, so it is on for the
runs that are opened with a `Fallback`:

 * `select` returns a uniformly random batch, marked `Batch.fallback`, where the service gives none within the deadline.
 * `report` keeps what it cannot deliver and returns None; the next calls of the run deliver it first (`bots.outbox`),
   with its first request_id, so that it is applied once. At most `pending_reports` are kept: beyond, the oldest is
   dropped; and so is one that will never be accepted. Both are logged and counted in `Run.dropped_reports`.
 * After a call that found nobody, the service is asked again at the earliest when the client's timeout has passed:
   until then calls fall back at once, so that a trainer with many small calls keeps its pace.
 * `state_dict` says the newest version that it saw.

Only a `TemporaryError` is bridged so: a call that must be fixed, or a service that is broken, is an error as ever. A
process that ends loses what it has pending: `Run.flush` before that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bots.batch import Batch
from bots.columns import Tasks, indices_and_ids
from bots.errors import FailedPreconditionError

if TYPE_CHECKING:
    from bots.run import Run


@dataclass(frozen=True, eq=False)
class Fallback:
    """What must be known of a dataset to pick tasks without the service.

    size             number of tasks.
    ids              `[size]` their ids, where batches are used by id.
    tags             `[size]` their tags, where selections ask for tags.
    pending_reports  most reports to keep while the service is away.
    """

    size: int
    ids: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    pending_reports: int = 1_000

    def __post_init__(self) -> None:
        for name, column in (("ids", self.ids), ("tags", self.tags)):
            if column is not None and len(column) != self.size:
                raise ValueError(f"Fallback.{name}: {len(column)} entries, must be {self.size}")


@dataclass(frozen=True)
class Wish:
    """What a selection asks for, as far as a uniform one can heed it. At most one of tags, quotas and weights is
    set.
    """

    batch_size: int
    exclude: Tasks = ()
    tags: Collection[str] = ()
    quotas: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def check(self, fallback: Fallback) -> None:
        """ValueError: a uniform selection could not heed this. Said always, so that it shows before the service is
        away.
        """
        if (self.tags or self.quotas or self.weights) and fallback.tags is None:
            raise ValueError("tags: this run has a Fallback without tags, so it could not heed them")
        if indices_and_ids(self.exclude)[1] and fallback.ids is None:
            raise ValueError("exclude: this run has a Fallback without ids, so it could not heed them")


def uniform_batch(
    run: Run, fallback: Fallback, wish: Wish, *, allow_fewer: bool, seed: int | None, policy_step: int | None
) -> Batch:
    """Returns a batch without the service. FailedPreconditionError (TOO_FEW_ELIGIBLE): the wish leaves fewer tasks
    than it asks for, and not `allow_fewer`.
    """
    tasks = uniform(np.random.default_rng(seed), fallback, wish)
    if len(tasks) < wish.batch_size and not allow_fewer:
        raise FailedPreconditionError(
            f"batch_size: {wish.batch_size}, must be at most the {len(tasks)} tasks that are left (service away)",
            code="FAILED_PRECONDITION",
            reason="TOO_FEW_ELIGIBLE",
        )
    unknown = np.full(len(tasks), np.nan)
    return Batch(
        tasks=tasks,
        ids=None if fallback.ids is None else [fallback.ids[task] for task in tasks],
        means=unknown,
        draws=unknown,
        version=None,
        run_uid=run.uid,
        selection_id="",
        lease_expire_time=None,
        policy_step=policy_step,
        fallback=True,
        run=run,
    )


def uniform(rng: np.random.Generator, fallback: Fallback, wish: Wish) -> npt.NDArray[np.int64]:
    """Returns distinct tasks, drawn uniformly from what the wish leaves; fewer than asked where there are not
    enough.
    """
    open_ = np.ones(fallback.size, dtype=bool)
    indices, ids = indices_and_ids(wish.exclude)
    if ids and fallback.ids is not None:
        number = {task_id: index for index, task_id in enumerate(fallback.ids)}
        indices = [number[task_id] for task_id in ids if task_id in number]
    open_[np.array(indices, dtype=np.int64)] = False
    if not (wish.tags or wish.quotas or wish.weights):
        return _pick(rng, open_, wish.batch_size)
    tag_of_task = np.asarray(fallback.tags)
    if wish.tags:
        return _pick(rng, open_ & np.isin(tag_of_task, list(wish.tags)), wish.batch_size)
    quotas = dict(wish.quotas)
    if wish.weights:
        shares = np.array(list(wish.weights.values()))
        drawn = rng.multinomial(wish.batch_size, shares / shares.sum())
        quotas = dict(zip(wish.weights, drawn.tolist(), strict=True))
    return np.concatenate([_pick(rng, open_ & (tag_of_task == tag), quota) for tag, quota in quotas.items()])


def _pick(rng: np.random.Generator, eligible: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.int64]:
    tasks = np.flatnonzero(eligible)
    return rng.choice(tasks, size=min(count, len(tasks)), replace=False)
