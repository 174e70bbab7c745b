"""Reports of rewards: what they leave out, and the tasks without any."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import rewards as rewards_
from bots.batch import BatchData
from bots.calls import Steps
from bots.columns import Column
from bots.leasing import release_batch
from bots.reporting import batch_fields, keep_report, report_request, send_report
from bots.v1 import task_selection_pb2 as pb

logger = logging.getLogger("bots")


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardsReported:
    """What `Batch.report_rewards` reported.

    version       the version that the report made; None: it waits for the service, or there was nothing to report.
    rollouts      number of rewards reported.
    left_out      number of rewards left out (None or NaN).
    empty_tasks   row numbers of the tasks without any reward; their leases end.
    """

    version: int | None
    rollouts: int
    left_out: int
    empty_tasks: npt.NDArray[np.int64]


def report_rewards(
    batch: BatchData,
    rewards: Column,
    *,
    low: float = 0.0,
    high: float = 1.0,
    success: float | None = None,
    part: object = "",
    policy_step: int | None = None,
) -> Steps[RewardsReported]:
    """Reports the rewards of these tasks' rollouts, and says what was left out.

    rewards    `[tasks, rollouts]`, anything array-like; rows may have different lengths. None and NaN are left out; a
               task without any reward is not reported, and its lease ends.
    low, high  the range of rewards, mapped to 0..1.
    success    None: rewards are fractions of a success; else a reward of at least this is a success.
    part, policy_step  as in `report`.
    """
    counts = rewards_.counts(rewards, len(batch), low=low, high=high, success=success)
    version = None
    if len(counts.tasks):
        version = yield from send_report(batch.run, **_fields(batch, counts, part, policy_step))
    empty = _unrewarded(batch, counts)
    if len(empty) and batch.lease_expire_time is not None:
        yield from release_batch(empty)
    return _reported(batch, counts, empty, version)


def keep_rewards(batch: BatchData, rewards: Column, *, part: object = "", **mapping: Any) -> RewardsReported:
    """Does as `report_rewards`, without waiting for the service: the report is delivered in the background."""
    counts = rewards_.counts(rewards, len(batch), **mapping)
    session = batch.run.session
    if len(counts.tasks):
        keep_report(batch.run, report_request(batch.run, **_fields(batch, counts, part, None)), "report")
    empty = _unrewarded(batch, counts)
    if len(empty) and batch.lease_expire_time is not None:
        request = pb.ReleaseSelectionRequest(
            run=batch.run.ref(), selection_id=batch.selection_id, tasks=empty.tasks.tolist()
        )
        session.outbox.add(batch.run.lane, "release", request.SerializeToString())
    session.wake()
    return _reported(batch, counts, empty, None)


def _unrewarded(batch: BatchData, counts: rewards_.Counts) -> BatchData:
    """Returns the part of a batch whose tasks have no reward."""
    return batch[np.setdiff1d(np.arange(len(batch)), counts.tasks)]


def _fields(batch: BatchData, counts: rewards_.Counts, part: object, policy_step: int | None) -> dict[str, Any]:
    """Returns the fields of a report of the counts."""
    return {
        "rows": batch.tasks[counts.tasks].tolist(),
        "ids": [],
        "successes": counts.successes,
        "rollouts": counts.rollouts,
        "effective": counts.effective,
        # The id is of all tasks, so that a repeat in which a late reward came in is refused, not added.
        **batch_fields(batch, part, policy_step),
    }


def _reported(batch: BatchData, counts: rewards_.Counts, empty: BatchData, version: int | None) -> RewardsReported:
    if counts.left_out or len(empty):
        logger.info(
            "run %s/%s: %d rewards are None or NaN, %d tasks have none", *batch.run.lane, counts.left_out, len(empty)
        )
    return RewardsReported(
        version=version, rollouts=sum(counts.rollouts), left_out=counts.left_out, empty_tasks=empty.tasks
    )
