"""One training: rounds of selection, rollouts, report, and a step of GRPO."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bots.replay.epochs import shuffled_epochs
from bots.run import Batch, Run
from tests.finetune.learning import Group, Learner, grpo_loss, roll_out
from tests.finetune.measuring import SAMPLE, calibration, measure
from tests.finetune.setting import Arm, Setting
from tests.finetune.start import Problem, load
from tests.finetune.trace import Floats, Ints, Trace


class Training:
    """A training that goes on round by round, so that two can share a run.

    run     selects the tasks; None: shuffled epochs.
    seed    of the rollouts and of the selections.
    leased  tasks are leased, as another training selects from the same run.
    """

    def __init__(
        self, problem: Problem, setting: Setting, arm: Arm, run: Run | None, seed: int, *, leased: bool = False
    ) -> None:
        self.problem, self.setting, self.arm, self.run = problem, setting, arm, run
        self.lease_seconds = 600.0 if leased else None
        self.learner = Learner(load(problem.start), setting.learning_rate)
        self._generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        self._rng = np.random.default_rng([seed, 2])
        self._epochs = shuffled_epochs(self._rng, len(problem.tasks), setting.batch)
        self._kept: list[Group] = []  # dynamic sampling: effective groups of the next step
        self._updates = 0
        self._rounds: list[tuple[Ints, Floats, Floats]] = []
        self._measured: list[dict[str, Any]] = []
        self._seconds = {"select": 0.0, "report": 0.0, "all": 0.0}
        self._measure()

    def round(self) -> None:
        """Selects, rolls out, reports and learns; then measures, if it is time."""
        began = time.perf_counter()
        with self._timed("select"):
            batch, tasks, predicted = self._selected()
        groups = roll_out(
            self.learner.policy,
            [self.problem.tasks[task] for task in tasks],
            self.setting.rollouts,
            self._generator,
        )
        successes = np.array([group.rewards.sum() for group in groups])
        if batch is not None:
            with self._timed("report"):
                batch.report_rewards([group.rewards for group in groups], policy_step=len(self._rounds))
        self._learn(groups)
        self._rounds.append((tasks, successes, predicted))
        self._seconds["all"] += time.perf_counter() - began
        if len(self._rounds) in self.setting.measured:
            self._measure()

    def trace(self) -> Trace:
        """Returns the record of the training so far."""
        tasks, successes, predicted = (np.array(column) for column in zip(*self._rounds, strict=True))
        measured = {name: np.array([each[name] for each in self._measured]) for name in self._measured[0]}
        return Trace(
            measured=self.setting.measured[: len(self._measured)],
            tasks=tasks,
            successes=successes,
            predicted=predicted,
            calibration=calibration(self.run),
            select_seconds=self._seconds["select"],
            report_seconds=self._seconds["report"],
            seconds=self._seconds["all"],
            **measured,
        )

    def _selected(self) -> tuple[Batch | None, Ints, Floats]:
        if self.run is None:
            return None, next(self._epochs), np.full(self.setting.batch, np.nan)
        batch = self.run.select(
            self.setting.batch,
            seed=int(self._rng.integers(2**62)),
            policy_step=len(self._rounds),
            lease_seconds=self.lease_seconds,
        )
        return batch, batch.tasks, batch.means

    def _learn(self, groups: Sequence[Group]) -> None:
        if self.arm.way == "dynamic":
            # As DAPO: drawn until a batch of effective groups is there; those above it are dropped.
            self._kept += [group for group in groups if group.effective]
            if len(self._kept) < self.setting.batch:
                return
            groups, self._kept = self._kept[: self.setting.batch], []
        if any(group.effective for group in groups):
            self.learner.step(grpo_loss(self.learner.policy, groups))
        self._updates += 1

    def _measure(self) -> None:
        rows = np.arange(SAMPLE)
        self._measured.append(measure(self.learner.policy, self.problem, self.setting, self._updates, self.run, rows))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began
