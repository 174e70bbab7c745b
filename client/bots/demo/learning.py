"""How the policy learns: supervised (pretraining), and by reinforcement from its own rollouts (GRPO)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bots.demo.policy import Floats, Policy, gradient, seen, write
from bots.demo.sums import Digits, Sums

MOMENTUM = 0.9


@dataclass(frozen=True, eq=False)
class Learner:
    """A policy and the running mean of its gradients."""

    policy: Policy
    momentum: Policy

    def ascend(self, step: Policy, learning_rate: float) -> Learner:
        """Returns the learner after one step of gradient ascent with momentum."""
        momentum = self.momentum.scaled(MOMENTUM).plus(step.scaled(1 - MOMENTUM))
        return Learner(self.policy.plus(momentum.scaled(learning_rate)), momentum)


def learner(policy: Policy) -> Learner:
    """Returns a learner without momentum."""
    return Learner(policy, policy.scaled(0.0))


@dataclass(frozen=True, eq=False)
class Rollouts:
    """`n` rollouts of each of `G` tasks.

    sums     the tasks, each repeated n times: `G * n` of them.
    written  `[G * n, P]` digits that the policy wrote.
    correct  `[G, n]` bool, whether the whole answer is right: the verifiable reward.
    """

    sums: Sums
    written: Digits
    correct: npt.NDArray[np.bool_]

    @property
    def successes(self) -> npt.NDArray[np.int64]:
        """`[G]` right answers of each task."""
        return np.asarray(self.correct.sum(axis=1))


def roll_out(rng: np.random.Generator, policy: Policy, sums: Sums, rollouts: int) -> Rollouts:
    """Returns rollouts of each of the sums."""
    repeated = sums.take(np.repeat(np.arange(len(sums)), rollouts))
    written = write(rng, policy, repeated)
    correct = ((written == repeated.answer) | ~repeated.used).all(axis=1)
    return Rollouts(repeated, written, correct.reshape(len(sums), rollouts))


def advantages(rewards: npt.ArrayLike) -> Floats:
    """Returns `[G, n]` (reward - mean) / standard deviation within each group of `[G, n]` rewards; 0 if all of
    a group are equal (DeepSeekMath, arXiv 2402.03300, outcome supervision).
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    spread = rewards.std(axis=1, keepdims=True)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0))


def grpo_gradient(policy: Policy, rollouts: Rollouts) -> Policy:
    """Returns the gradient of the mean over rollouts of advantage * log p(written digits).

    It is GRPO's gradient for one step on fresh rollouts (the ratios are 1 and nothing is clipped), without a KL term.
    """
    advantage = advantages(rollouts.correct).ravel()
    teaching = advantage != 0
    sums = rollouts.sums.take(np.flatnonzero(teaching))
    written = rollouts.written[teaching]
    inputs = seen(sums.left, sums.right, written)[sums.used]
    weights = np.repeat(advantage[teaching] / len(advantage), sums.used.sum(axis=1))
    return gradient(policy, inputs, written[sums.used], weights.astype(inputs.dtype))


def pretrain(
    rng: np.random.Generator, policy: Policy, sums: Sums, *, steps: int, batch: int, noise: float, learning_rate: float
) -> Policy:
    """Returns the policy after supervised steps on right answers, a share `noise` of their digits replaced at random.

    The noise keeps its probabilities of right answers well below 1.
    """
    learning = learner(policy)
    for _ in range(steps):
        shown = sums.take(rng.integers(0, len(sums), batch))
        guess = rng.integers(0, 10, shown.answer.shape, dtype=np.int8)
        taught = np.where(rng.random(shown.answer.shape) < noise, guess, shown.answer)[shown.used]
        inputs = seen(shown.left, shown.right, shown.answer)[shown.used]
        weights = np.full(len(taught), 1 / batch, dtype=inputs.dtype)
        learning = learning.ascend(gradient(learning.policy, inputs, taught, weights), learning_rate)
    return learning.policy
