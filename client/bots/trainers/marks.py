"""Marks on rows: which selection chose a row, as one string that survives collating, pickling and JSON."""

from __future__ import annotations

import numpy as np

from bots.errors import invalid
from bots.run import Batch, Run

MARK = "bots"  # the key of a row that has its mark


def marks(batch: Batch) -> list[str]:
    """Returns the mark of each task of a batch."""
    step = "" if batch.policy_step is None else batch.policy_step
    places = zip(batch.positions.tolist(), batch.tasks.tolist(), strict=True)
    return [f"{batch.selection_id}:{batch.size}:{step}:{position}:{task}" for position, task in places]


def batch_of(run: Run, mark: str) -> Batch:
    """Returns the batch of one task that a mark stands for, in any process: to report it, or for a Collector.

    InvalidArgumentError: it is not a mark.
    """
    parts = str(mark).split(":")
    if len(parts) != 5 or not all(part.isdecimal() for part in (parts[1], *parts[3:])):
        raise invalid("mark", repr(mark), "must be a mark of bots.trainers")
    selection_id, size, step, position, task = parts
    unknown = np.full(1, np.nan)
    return Batch(
        tasks=np.array([int(task)]),
        ids=None,
        means=unknown,
        draws=unknown,
        version=None,
        run_uid=run.uid,
        selection_id=selection_id,
        lease_expire_time=None,
        resting_tasks=0,
        policy_step=int(step) if step else None,
        fallback=False,
        positions=np.array([int(position)]),
        size=int(size),
        run=run,
    )
