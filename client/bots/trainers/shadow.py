"""Shadow mode: the trainer keeps its own selection, and the service learns from its reports.

Each step, before its rollouts, the run is asked for a batch that is not trained on; the report names its tasks. So the
run's summary (`Summary.total.shadow`, `bots run show`, the dashboard) says what BOTS would have selected, and what the
effective task ratio would have been: `Shadow` in task_selection.proto has the estimate and its assumption.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from bots import rewards as rewards_
from bots.columns import Column
from bots.errors import TemporaryError
from bots.run import Batch, Run
from bots.trainers.tasks import TaskRows

logger = logging.getLogger("bots")


class ShadowReports:
    """Reports a trainer's own selection, with what the run would have selected in its place.

    rows                the trainer's dataset as the run's tasks.
    low, high, success  as in `Batch.report_rewards`.
    """

    def __init__(self, rows: TaskRows, **mapping: Any) -> None:
        self._rows = rows
        self._mapping = mapping
        self._batch: Batch | None = None

    @property
    def run(self) -> Run:
        """The run that learns."""
        return self._rows.run

    def begin(self, tasks: int, policy_step: int | None = None) -> None:
        """Notes what the run would select in place of the trainer's next `tasks`; call it before their rollouts."""
        try:
            self._batch = self._rows.select(tasks, allow_fewer=True, policy_step=policy_step)
        except TemporaryError as error:
            self._batch = None
            logger.info("run %s: a step is not compared: %s", self.run.name, error)

    def report(self, ids: Sequence[str], rewards: Column, policy_step: int | None = None) -> None:
        """Reports the trainer's tasks with their `[tasks, rollouts]` rewards; None and NaN are left out.

        If the service was away at `begin`, the report has nothing to compare with.
        """
        counts = rewards_.counts(rewards, len(ids), **self._mapping)
        batch, self._batch = self._batch, None
        if len(counts.tasks):
            self.run.report(
                [ids[task] for task in counts.tasks],
                counts.successes,
                counts.rollouts,
                effective=counts.effective,
                policy_step=policy_step,
                shadow=batch,
            )
