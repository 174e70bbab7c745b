"""How the policy writes answers and learns: by imitation (pretraining), and from its own rollouts (GRPO)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tests.finetune.model import Policy, repeated
from tests.finetune.tasks import END, LONGEST_ANSWER, PAD, Task, decode, draw_easy, encode

LONGEST_QUESTION = 16
CHUNK = 125  # sequences evaluated at once

Floats = npt.NDArray[np.float64]
P = ParamSpec("P")
T = TypeVar("T")


def no_gradient(function: Callable[P, T]) -> Callable[P, T]:
    """Returns the function, computed without what a gradient needs; `torch.no_grad` has no types where mypy runs."""
    return cast(Callable[P, T], torch.no_grad()(function))


@dataclass(frozen=True, eq=False)
class Group:
    """The rollouts of one task.

    question  the text.
    written   `[n, L]` int64 codes that the policy wrote, PAD after END.
    rewards   `[n]`.
    """

    question: str
    written: npt.NDArray[np.int64]
    rewards: Floats

    @property
    def effective(self) -> bool:
        """Whether the rewards differ, so that the advantages are not all zero."""
        return bool(np.ptp(self.rewards) > 0)


@no_gradient
def roll_out(policy: Policy, tasks: Sequence[Task], rollouts: int, generator: torch.Generator) -> list[Group]:
    """Returns a group of rollouts of each task, sampled at temperature 1."""
    questions = torch.from_numpy(encode([task.question for task in tasks], LONGEST_QUESTION, left=True))
    present = questions != PAD
    logits, cache = policy(questions, present)
    cache, present = repeated(cache, rollouts), present.repeat_interleave(rollouts, 0)
    following = logits[:, -1].repeat_interleave(rollouts, 0)
    ended = torch.zeros(len(present), dtype=torch.bool)
    written: list[Tensor] = []
    while len(written) < LONGEST_ANSWER and not ended.all():
        codes = torch.multinomial(following.softmax(-1), 1, generator=generator)[:, 0].masked_fill(ended, PAD)
        written.append(codes)
        ended = ended | (codes == END)
        present = torch.cat((present, torch.ones(len(present), 1, dtype=torch.bool)), dim=1)
        logits, cache = policy(codes[:, None], present, cache)
        following = logits[:, 0]
    answers = torch.stack(written, dim=1).numpy().reshape(len(tasks), rollouts, -1)
    return [
        Group(task.question, codes, np.array([task.score(text) for text in decode(codes)]))
        for task, codes in zip(tasks, answers, strict=True)
    ]


def advantages(rewards: npt.ArrayLike) -> Floats:
    """Returns `[n]` the advantages of the `[n]` rewards of one group, as TRL's GRPOTrainer computes them:
    (reward - mean) / (standard deviation + 1e-4), with n - 1 in the deviation (DeepSeekMath, arXiv 2402.03300).
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    return np.asarray((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4))


def grpo_loss(policy: Policy, groups: Sequence[Group]) -> Tensor:
    """Returns GRPO's loss for one step on fresh rollouts, without a KL term: the ratios are 1, so it is minus the mean
    over rollouts of advantage * mean over characters of log p(character).

    Groups without an advantage count in the mean; they are not computed, as their part is 0. The question of a group
    is computed once.
    """
    teaching = [group for group in groups if group.effective]
    count = sum(len(group.rewards) for group in groups)
    questions = torch.from_numpy(encode([group.question for group in teaching], LONGEST_QUESTION, left=True))
    longest = max(group.written.shape[1] for group in teaching)
    padded = [np.pad(group.written, ((0, 0), (0, longest - group.written.shape[1]))) for group in teaching]
    written = torch.from_numpy(np.concatenate(padded))  # PAD is 0
    weights = torch.from_numpy(np.concatenate([advantages(group.rewards) for group in teaching])).float()
    chances = log_chances(answer_logits(policy, questions, written, len(teaching[0].rewards)), written)
    lengths = (written != PAD).sum(1)
    return -(weights * chances.sum(1) / lengths).sum() / count


def answer_logits(policy: Policy, questions: Tensor, written: Tensor, times: int = 1) -> Tensor:
    """Returns `[B * times, L, vocabulary]` logits of each code of the answers `[B * times, L]`; `times` answers follow
    each of the questions `[B, P]`.
    """
    present = questions != PAD
    logits, cache = policy(questions, present)
    if times > 1:
        cache, present = repeated(cache, times), present.repeat_interleave(times, 0)
    following = logits[:, -1:].repeat_interleave(times, 0)
    if written.shape[1] == 1:
        return following
    inputs = written[:, :-1]
    logits, _ = policy(inputs, torch.cat((present, torch.ones_like(inputs, dtype=torch.bool)), dim=1), cache)
    return torch.cat((following, logits), dim=1)


def log_chances(logits: Tensor, written: Tensor) -> Tensor:
    """Returns `[B, L]` log p of each of the codes `[B, L]`, 0 for padding."""
    losses = functional.cross_entropy(logits.flatten(0, 1), written.flatten(), reduction="none", ignore_index=PAD)
    return -losses.view_as(written)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How a policy does on N tasks.

    sampled  `[N]` pass rates at temperature 1. They are exact: a task has one right answer, so its pass rate is the
             probability that the policy writes that.
    greedy   `[N]` bool, whether the likeliest character is right at every place.
    """

    sampled: Floats
    greedy: npt.NDArray[np.bool_]


@no_gradient
def evaluate(policy: Policy, tasks: Sequence[Task]) -> Accuracy:
    """Returns how the policy does on the tasks."""
    sampled, greedy = np.empty(len(tasks)), np.empty(len(tasks), dtype=bool)
    order = np.argsort([len(task.question) for task in tasks], kind="stable")  # a chunk then has little padding
    for rows in np.array_split(order, -(-len(tasks) // CHUNK)):
        questions, answers = encoded([tasks[row] for row in rows])
        logits = answer_logits(policy, questions[:, (questions != PAD).any(0)], answers)
        sampled[rows] = log_chances(logits, answers).sum(1).exp()
        greedy[rows] = ((logits.argmax(-1) == answers) | (answers == PAD)).all(1)
    return Accuracy(sampled, greedy)


def encoded(tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
    """Returns `[N, LONGEST_QUESTION]` codes of the questions and `[N, LONGEST_ANSWER]` of the right answers."""
    questions = encode([task.question for task in tasks], LONGEST_QUESTION, left=True)
    answers = encode([task.answer for task in tasks], LONGEST_ANSWER, left=False)
    return torch.from_numpy(questions), torch.from_numpy(answers)


class Learner:
    """A policy and its optimiser, as TRL sets it up: AdamW without weight decay, gradients clipped to norm 1."""

    def __init__(self, policy: Policy, learning_rate: float) -> None:
        self.policy = policy
        self._optimiser = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0)

    def step(self, loss: Tensor) -> None:
        """Takes one step down the gradient of the loss."""
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self._optimiser.step()


def pretrain(
    policy: Policy,
    rng: np.random.Generator,
    steps: int,
    batch: int,
    learning_rate: float,
    after: Callable[[int], object] = lambda step: None,
) -> None:
    """Teaches the policy right answers of easy tasks, with a warm-up of 100 steps; calls `after` with the number of
    steps after each.
    """
    optimiser = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.01)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100)
        tasks = draw_easy(rng, batch)
        questions, answers = encoded(tasks)
        chances = log_chances(answer_logits(policy, questions, answers), answers)
        optimiser.zero_grad(set_to_none=True)
        (-chances.sum() / (answers != PAD).sum()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        after(step + 1)
