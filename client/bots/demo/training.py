"""One seed of the demo: pretraining, reference pass rates, then the same training once with each way to select."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bots.client import Client
from bots.demo.learning import grpo_gradient, learner, pretrain, roll_out
from bots.demo.policy import Policy, initial_policy, pass_rates
from bots.demo.sums import Sums, draw_sums
from bots.run import Run

Arm = Literal["uniform", "BOTS"]
EVALUATE_EVERY = 10  # steps between two measurements of held-out accuracy

ARMS: tuple[Arm, ...] = ("uniform", "BOTS")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained.

    The learning rate is the one with which uniform selection does best: over six seeds its held-out accuracy is 0.19,
    0.33, 0.38, 0.35 and 0.12 with 0.7, 1.0, 1.2, 1.6 and 2.4 (that of BOTS is 0.62, 0.70, 0.70, 0.50 and 0.13).

    tasks, held_out      number of sums to train on, and to measure on.
    longest              digits of the longest numbers; lengths are uniform from 1 on.
    hidden               units of the network.
    shown_longest        digits of the longest numbers in pretraining.
    weak_steps           steps of pretraining with a poor teacher: the policy that both arms start from, and the weak
                         reference.
    strong_steps         further steps with a good one: the strong reference.
    weak_noise, strong_noise  share of digits that the teachers get at random.
    reference_rollouts   rollouts of each task by each reference.
    batch, rollouts      tasks a step, rollouts a task.
    steps                steps of training in each arm.
    learning_rate        of the training; pretraining_rate of the pretraining.
    """

    tasks: int = 1000
    held_out: int = 500
    longest: int = 20
    hidden: int = 256
    shown_longest: int = 4
    weak_steps: int = 1500
    strong_steps: int = 750
    weak_noise: float = 0.6
    strong_noise: float = 0.1
    reference_rollouts: int = 8
    batch: int = 8
    rollouts: int = 8
    steps: int = 400
    learning_rate: float = 1.2
    pretraining_rate: float = 1.2

    @property
    def measured(self) -> npt.NDArray[np.int64]:
        """`[K]` steps before which held-out accuracy is measured, and at last the number of steps: after the end."""
        return np.append(np.arange(0, self.steps, EVALUATE_EVERY), self.steps)

    @property
    def budget(self) -> int:
        """Rollouts that each arm trains on."""
        return self.steps * self.batch * self.rollouts

    @property
    def reference_cost(self) -> int:
        """Rollouts that the reference pass rates cost, once for a dataset."""
        return 2 * self.tasks * self.reference_rollouts


@dataclass(frozen=True, eq=False)
class Problem:
    """What the arms of one seed have in common.

    tasks, held_out  the sums to train on, and to measure on.
    start            the policy that both arms start from.
    weak, strong     `[tasks]` pass rates measured with rollouts of the start and of a better pretrained policy.
    """

    tasks: Sums
    held_out: Sums
    start: Policy
    weak: Floats
    strong: Floats


@dataclass(frozen=True, eq=False)
class Trace:
    """What came of one arm.

    accuracy  `[K]` mean probability of the right answer over held-out sums, each time that it is measured.
    ratio     `[steps]` effective task ratio: share of selected tasks with a pass rate observed strictly between 0
              and 1.
    lengths   `[steps, batch]` digits of the selected sums.
    """

    accuracy: Floats
    ratio: Floats
    lengths: npt.NDArray[np.int64]


def prepare(setting: Setting, seed: int) -> Problem:
    """Returns the problem of a seed."""
    rng = np.random.default_rng(seed)
    tasks, held_out = (draw_sums(rng, count, setting.longest) for count in (setting.tasks, setting.held_out))
    shown = draw_sums(rng, 4 * setting.tasks, setting.shown_longest)
    policy = initial_policy(rng, setting.hidden)
    references = []
    for steps, noise in ((setting.weak_steps, setting.weak_noise), (setting.strong_steps, setting.strong_noise)):
        policy = pretrain(
            rng, policy, shown, steps=steps, batch=64, noise=noise, learning_rate=setting.pretraining_rate
        )
        references.append(policy)
    weak, strong = (
        roll_out(rng, reference, tasks, setting.reference_rollouts).successes / setting.reference_rollouts
        for reference in references
    )
    return Problem(tasks, held_out, references[0], weak, strong)


def start_run(client: Client, dataset: str, arm: Arm) -> Run:
    """Returns a fresh run for an arm: the same service for both, by default hyperparameters for BOTS."""
    return client.create_run(dataset, arm.lower(), uniform_fraction=1.0 if arm == "uniform" else 0.0)


def train(problem: Problem, setting: Setting, run: Run, seed: int, advance: Callable[[], object]) -> Trace:
    """Returns the trace of one arm, whose run selects its tasks; `advance` is called after each step."""
    rng = np.random.default_rng([seed, 1])
    learning = learner(problem.start)
    accuracy, ratio, lengths = [], [], []
    for step in range(setting.steps):
        if step % EVALUATE_EVERY == 0:
            accuracy.append(pass_rates(learning.policy, problem.held_out).mean())
        batch = run.select(setting.batch, seed=int(rng.integers(2**62)), policy_step=step)
        sums = problem.tasks.take(batch.tasks)
        rollouts = roll_out(rng, learning.policy, sums, setting.rollouts)
        batch.report(rollouts.successes, setting.rollouts, policy_step=step)
        learning = learning.ascend(grpo_gradient(learning.policy, rollouts), setting.learning_rate)
        ratio.append(np.mean((rollouts.successes > 0) & (rollouts.successes < setting.rollouts)))
        lengths.append(sums.lengths)
        advance()
    accuracy.append(pass_rates(learning.policy, problem.held_out).mean())
    return Trace(np.array(accuracy), np.array(ratio), np.array(lengths))
