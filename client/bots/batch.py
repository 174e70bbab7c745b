"""What a selection returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bots.records import utc
from bots.v1 import task_selection_pb2 as pb

if TYPE_CHECKING:
    from bots.run import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Tasks to train on next, columns of equal length n.

    tasks              `[n]` int64 task indices.
    ids                `[n]` their ids, or None where the dataset has none.
    means              `[n]` float64 posterior means; NaN where the service was away.
    draws              `[n]` float64 drawn pass rates; NaN where none decided (drawn uniformly, or greedy).
    version            version of the run that the selection saw; None: the service was away.
    run_uid            uid of that run; empty: the service was away before it was ever known.
    selection_id       names the selection in reports; empty: the service was away.
    lease_expire_time  until when no other selection gets these tasks; None: no lease.
    policy_step        the policy's training step, as given to `select`.
    fallback           the service was away, and the tasks are drawn uniformly.
    """

    tasks: npt.NDArray[np.int64]
    ids: list[str] | None
    means: npt.NDArray[np.float64]
    draws: npt.NDArray[np.float64]
    version: int | None
    run_uid: str
    selection_id: str
    lease_expire_time: datetime | None
    policy_step: int | None
    fallback: bool
    run: Run = field(repr=False)

    @classmethod
    def of(cls, message: pb.SelectBatchResponse, run: Run, policy_step: int | None) -> Batch:
        """Returns what the message says."""
        return cls(
            tasks=np.fromiter(message.tasks, np.int64, len(message.tasks)),
            ids=list(message.ids) or None,
            means=np.fromiter(message.means, np.float64, len(message.means)),
            draws=np.fromiter(message.draws, np.float64, len(message.draws)),
            version=message.version,
            run_uid=message.run_uid,
            selection_id=message.selection_id,
            lease_expire_time=utc(message.lease_expire_time) if message.HasField("lease_expire_time") else None,
            policy_step=policy_step,
            fallback=False,
            run=run,
        )

    def __len__(self) -> int:
        return len(self.tasks)

    def report(
        self,
        successes: npt.ArrayLike,
        rollouts: npt.ArrayLike,
        *,
        complete: bool = True,
        policy_step: int | None = None,
        request_id: str | None = None,
    ) -> int | None:
        """Reports the outcomes of the whole batch; see `Run.report`. For a part of it use that, with `selection_id`."""
        return self.run.report(
            self.tasks,
            successes,
            rollouts,
            selection_id=self.selection_id,
            complete=complete,
            policy_step=policy_step,
            selection_policy_step=self.policy_step,
            request_id=request_id,
        )

    def release(self) -> int:
        """Gives the leases back where the batch will not be reported; returns how many tasks that frees."""
        return self.run.release(self.selection_id) if self.selection_id else 0
