"""Shadow mode: the trainer keeps its own selection, the service learns from its reports, and a summary says what BOTS
would have selected.

Each step, before its rollouts, the run is asked for a batch that is not trained on. How many of its tasks would have
been effective (their rollouts not all of one reward) is estimated in two parts:

 1. The run's posterior predicts the effectiveness of a task: 1 - E[p^G] - E[(1-p)^G] for G rollouts.
 2. The trainer's own tasks of the same step are predicted too, and then observed. Tasks are grouped by their prediction
    in tenths; BOTS's tasks count in each group as effective as the trainer's tasks of the group were. A prediction
    counts as one more observation, so it stands alone if the trainer had no task of the group.

This estimates the batches that BOTS would have selected given what the run had learned from the trainer's selection. A
training with BOTS differs: the run then learns from its own selections, and the policy from other tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import rewards as rewards_
from bots.columns import Column
from bots.errors import TemporaryError
from bots.run import Run
from bots.trainers.tasks import TaskRows

logger = logging.getLogger("bots")

Floats = npt.NDArray[np.float64]

GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class ShadowSummary:
    """What BOTS would have selected.

    steps                steps of the trainer that were compared.
    skipped_steps        steps that were not, because the service was away.
    effective_task_ratio, standard_error
                         of the trainer's tasks, observed; NaN: no step yet.
    bots_effective_task_ratio, bots_standard_error
                         of the tasks that BOTS would have selected, estimated.
    unsupported          share of BOTS's tasks whose group had no task of the trainer.
    """

    steps: int
    skipped_steps: int
    effective_task_ratio: float
    standard_error: float
    bots_effective_task_ratio: float
    bots_standard_error: float
    unsupported: float

    def __str__(self) -> str:
        own, own_error = self.effective_task_ratio, self.standard_error
        theirs, their_error = self.bots_effective_task_ratio, self.bots_standard_error
        return (
            f"effective task ratio {own:.3f} +- {own_error:.3f}; of what BOTS would have selected, an estimated "
            f"{theirs:.3f} +- {their_error:.3f} ({self.steps} steps, {self.unsupported:.0%} of it without comparison)"
        )


class Shadow:
    """Reports a trainer's own selection, and compares it with what BOTS would have selected.

    rows               the trainer's dataset as the run's tasks.
    rollouts           number of rollouts of each task.
    low, high, success  as in `Batch.report_rewards`.
    """

    def __init__(
        self, rows: TaskRows, rollouts: int, *, low: float = 0.0, high: float = 1.0, success: float | None = None
    ) -> None:
        self._rows = rows
        self._rollouts = rollouts
        self._range: dict[str, Any] = {"low": low, "high": high, "success": success}
        self._expected: Floats | None = None
        self._steps = self._skipped = 0
        self._observed = np.zeros(GROUPS)
        self._effective = np.zeros(GROUPS)
        self._selected = np.zeros(GROUPS)
        self._predicted = np.zeros(GROUPS)

    @property
    def run(self) -> Run:
        """The run that learns."""
        return self._rows.run

    def begin(self, ids: Sequence[str], policy_step: int | None = None) -> None:
        """Predicts the trainer's next tasks, and those that BOTS would select; call it before their rollouts."""
        self._expected = None
        try:
            batch = self._rows.select(len(ids), allow_fewer=True, policy_step=policy_step)
            if batch.fallback or batch.ids is None:
                return
            tasks = list(dict.fromkeys([*ids, *batch.ids]))
            alpha, beta = self.run.posteriors(tasks)
        except TemporaryError as error:
            logger.debug("shadow of run %s: a step is skipped: %s", self.run.name, error)
            return
        expected = dict(zip(tasks, effectiveness(alpha, beta, self._rollouts), strict=True))
        theirs = np.array([expected[task] for task in batch.ids])
        self._selected += np.bincount(_group(theirs), minlength=GROUPS)
        self._predicted += np.bincount(_group(theirs), weights=theirs, minlength=GROUPS)
        self._expected = np.array([expected[task] for task in ids])

    def report(self, ids: Sequence[str], rewards: Column, policy_step: int | None = None) -> None:
        """Reports the trainer's tasks with their `[tasks, rollouts]` rewards; None and NaN are left out."""
        counts = rewards_.counts(rewards, len(ids), **self._range)
        if self._expected is None:
            self._skipped += 1
        else:
            self._steps += 1
            group = _group(self._expected[counts.tasks])
            self._observed += np.bincount(group, minlength=GROUPS)
            self._effective += np.bincount(group, weights=counts.effective, minlength=GROUPS)
        self._expected = None
        if len(counts.tasks):
            self.run.report(
                [ids[task] for task in counts.tasks],
                counts.successes,
                counts.rollouts,
                effective=counts.effective,
                policy_step=policy_step,
            )

    def summary(self) -> ShadowSummary:
        """Returns the comparison so far."""
        observed, effective, selected = self._observed, self._effective, self._selected
        with np.errstate(invalid="ignore", divide="ignore"):
            own = effective.sum() / observed.sum()
            share = selected / selected.sum()
            prediction = np.where(selected > 0, self._predicted / selected, 0.0)
        rate = (effective + prediction) / (observed + 1)
        theirs = float((share * rate).sum())
        # Of the rates, and of which groups the selected tasks happened to be in.
        variance = (share**2 * rate * (1 - rate) / (observed + 1)).sum()
        variance += (share * (rate - theirs) ** 2).sum() / max(selected.sum(), 1)
        return ShadowSummary(
            steps=self._steps,
            skipped_steps=self._skipped,
            effective_task_ratio=float(own),
            standard_error=float(np.sqrt(own * (1 - own) / max(observed.sum(), 1))),
            bots_effective_task_ratio=theirs,
            bots_standard_error=float(np.sqrt(variance)),
            unsupported=float(share[observed == 0].sum()),
        )


def effectiveness(alpha: Floats, beta: Floats, rollouts: int) -> Floats:
    """Returns the probability that `rollouts` rollouts of a task do not all end alike, its pass rate being
    Beta(alpha, beta).
    """
    rollout = np.arange(rollouts)[:, None]
    total = alpha + beta + rollout
    return np.asarray(1 - ((alpha + rollout) / total).prod(0) - ((beta + rollout) / total).prod(0))


def _group(expected: Floats) -> npt.NDArray[np.int64]:
    return np.clip((expected * GROUPS).astype(np.int64), 0, GROUPS - 1)
