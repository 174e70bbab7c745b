"""What a selection returns: frozen columns that can be sliced. `bots.run` and `bots.aio` add reports to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bots.errors import invalid
from bots.handle import RunHandle
from bots.request_ids import derived_request_id

B = TypeVar("B", bound="BatchData")


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchData:
    """Tasks to train on next, columns of equal length n.

    tasks              `[n]` int64 row numbers in the dataset.
    ids                `[n]` their ids; None: the dataset has none.
    means              `[n]` float64 posterior means; NaN: the service was away.
    draws              `[n]` float64 drawn pass rates; NaN: none decided.
    version            version of the run that the selection saw; None: the service was away.
    run_uid            uid of that run; empty: never known.
    selection_id       names the selection in reports.
    lease_expire_time  until when no other selection gets these tasks; None: no lease.
    resting_tasks      number of tasks of the whole selection that were still resting.
    policy_step        the policy's training step, as given to `select`.
    fallback           the service was away, and the tasks are drawn uniformly.
    positions          `[n]` int64 places in the whole selection.
    size               number of tasks of the whole selection.
    run                the run that selected.
    """

    tasks: npt.NDArray[np.int64]
    ids: list[str] | None
    means: npt.NDArray[np.float64]
    draws: npt.NDArray[np.float64]
    version: int | None
    run_uid: str
    selection_id: str
    lease_expire_time: datetime | None
    resting_tasks: int
    policy_step: int | None
    fallback: bool
    positions: npt.NDArray[np.int64]
    size: int
    run: RunHandle = field(repr=False)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self: B) -> Iterator[B]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self: B, which: Any) -> B:
        """Returns a part of the batch: `batch[rank::world]`, `batch[3]` (a batch of one task), `batch[mask]`.

        A part reports and releases only its tasks.
        """
        rows = np.atleast_1d(np.arange(len(self))[which])
        return dataclasses.replace(
            self,
            tasks=self.tasks[rows],
            ids=None if self.ids is None else [self.ids[row] for row in rows],
            means=self.means[rows],
            draws=self.draws[rows],
            positions=self.positions[rows],
        )

    @property
    def whole(self) -> bool:
        """Whether this is the whole selection, in its order."""
        return np.array_equal(self.positions, np.arange(self.size))

    def rows(self, *, repeat: int = 1, rank: int = 0, world: int = 1) -> npt.NDArray[np.int64]:
        """Returns the row numbers of this rank's rollouts: each task `repeat` times in a row, cut into `world` equal
        blocks, of which this is block `rank`.

        InvalidArgumentError: the rollouts cannot be cut into `world` equal blocks.
        """
        rollouts = np.repeat(self.tasks, repeat)
        if not 0 <= rank < world:
            raise invalid("rank", rank, f"must be between 0 and {world - 1}")
        if len(rollouts) % world:
            raise invalid("world", world, f"must divide the number of rollouts ({len(rollouts)})")
        block: npt.NDArray[np.int64] = rollouts.reshape(world, -1)[rank]
        return block

    def report_id(self, part: object = "") -> str:
        """Returns the request id of the report of these tasks: equal for all copies of the batch."""
        where = "whole" if self.whole else self.positions.tolist()
        return derived_request_id("report", self.selection_id, where, part)


def joined(parts: Sequence[B]) -> B:
    """Returns parts of one selection as one part, in the order of the selection."""
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions)
    ids = [task_id for part in parts for task_id in part.ids or ()]
    return dataclasses.replace(
        parts[0],
        tasks=np.concatenate([part.tasks for part in parts])[order],
        ids=[ids[row] for row in order] if ids else None,
        means=np.concatenate([part.means for part in parts])[order],
        draws=np.concatenate([part.draws for part in parts])[order],
        positions=positions[order],
    )
