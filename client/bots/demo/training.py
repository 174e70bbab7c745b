"""One seed of the demo: pretraining, reference pass rates, then the same training once in each arm."""

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
from bots.features import from_text
from bots.replay.epochs import shuffled_epochs
from bots.run import Run

Arm = Literal["uniform", "interpolation", "item_response"]
EVALUATE_EVERY = 10  # steps between two measurements of held-out accuracy

ARMS: tuple[Arm, ...] = ("uniform", "interpolation", "item_response")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The size of the training.

    The learning rate is chosen for uniform selection, on 12 other seeds (100 to 111): its held-out accuracy there is
    0.15, 0.27, 0.33, 0.33, 0.33, 0.31, 0.25 and 0.13 with 0.7, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0 and 2.4.

    tasks, held_out      number of sums to train on, and to measure on.
    longest              digits of the longest numbers; lengths are uniform from 1 on.
    hidden               units of the network.
    shown_longest        digits of the longest numbers in pretraining.
    weak_steps           steps of pretraining with a poor teacher: the policy that all arms start from, and the weak
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

    def reference_cost(self, arm: Arm) -> int:
        """Returns the rollouts that an arm's reference pass rates cost, once for a dataset."""
        return 2 * self.tasks * self.reference_rollouts if arm == "interpolation" else 0


@dataclass(frozen=True, eq=False)
class Problem:
    """The common part of the arms of one seed.

    tasks, held_out  the sums to train on, and to measure on.
    start            the policy that all arms start from.
    weak, strong     `[tasks]` pass rates measured with rollouts of the start and of a better pretrained policy.
    """

    tasks: Sums
    held_out: Sums
    start: Policy
    weak: Floats
    strong: Floats


@dataclass(frozen=True, eq=False)
class Trace:
    """The record of one arm.

    accuracy  `[K]` mean probability of the right answer over held-out sums, each time that it is measured.
    ratio     `[steps]` effective task ratio: share of selected tasks with a pass rate observed strictly between 0
              and 1.
    tasks     `[steps, batch]` the selected sums.
    lengths   `[steps, batch]` their digits.
    """

    accuracy: Floats
    ratio: Floats
    tasks: npt.NDArray[np.int64]
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


def start_run(client: Client, dataset: str, arm: Arm, problem: Problem) -> Run | None:
    """Returns a fresh run by default hyperparameters, on a dataset of the arm; None: the uniform arm needs none."""
    if arm == "uniform":
        return None
    if arm == "interpolation":
        client.create_dataset(dataset, weak=problem.weak, strong=problem.strong)
    else:
        client.create_dataset(dataset, features=from_text(problem.tasks.texts))
    run: Run = client.create_run(dataset, "demo", model=arm)
    return run


def train(problem: Problem, setting: Setting, run: Run | None, seed: int, advance: Callable[[], object]) -> Trace:
    """Returns the trace of one arm.

    run      selects the tasks; None: shuffled epochs, as a trainer's data loader does.
    advance  called after each step.
    """
    rng = np.random.default_rng([seed, 1])
    epochs = shuffled_epochs(rng, len(problem.tasks), setting.batch)
    learning = learner(problem.start)
    accuracy, ratio, selected = [], [], []
    for step in range(setting.steps):
        if step % EVALUATE_EVERY == 0:
            accuracy.append(pass_rates(learning.policy, problem.held_out).mean())
        if run is None:
            tasks = next(epochs)
        else:
            batch = run.select(setting.batch, seed=int(rng.integers(2**62)), policy_step=step)
            tasks = batch.tasks
        rollouts = roll_out(rng, learning.policy, problem.tasks.take(tasks), setting.rollouts)
        if run is not None:
            batch.report(rollouts.successes, setting.rollouts, policy_step=step)
        learning = learning.ascend(grpo_gradient(learning.policy, rollouts), setting.learning_rate)
        ratio.append(np.mean((rollouts.successes > 0) & (rollouts.successes < setting.rollouts)))
        selected.append(tasks)
        advance()
    accuracy.append(pass_rates(learning.policy, problem.held_out).mean())
    return Trace(np.array(accuracy), np.array(ratio), np.array(selected), problem.tasks.lengths[np.array(selected)])
