"""The policies that a training needs, pretrained on right answers: the start of all arms, and two references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.finetune.learning import evaluate, pretrain
from tests.finetune.model import Policy
from tests.finetune.setting import Arm, Setting
from tests.finetune.tasks import Task, draw_distinct

SEED = 0
BATCH = 128
LEARNING_RATE = 2e-3
STEPS = {"weak": 800, "start": 1400, "strong": 2400}  # of pretraining, until each policy is kept
TOTAL = max(STEPS.values())
COMMITTED = Path(__file__).parent  # has start.npz, for the quick run

Weights = dict[str, torch.Tensor]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """What the arms of one seed share.

    tasks, held_out  the tasks to train on, and to measure on.
    start            the weights that all arms start from.
    """

    tasks: Sequence[Task]
    held_out: Sequence[Task]
    start: Weights


def make(folder: Path, progress: Callable[[int], object]) -> None:
    """Pretrains the policies and writes their weights into a folder; calls `progress` with the steps done so far.

    Raises ValueError if the pass rates of the start do not cover the whole range.
    """
    torch.manual_seed(SEED)
    policy = Policy()

    def keep(step: int) -> None:
        for name, at in STEPS.items():
            if step == at:
                save(file_of(folder, name), policy)
        progress(step)

    pretrain(policy, np.random.default_rng(SEED), TOTAL, BATCH, LEARNING_RATE, keep)
    tasks = draw_distinct(np.random.default_rng(SEED), Setting().tasks)
    check(evaluate(load(read(file_of(folder, "start"))), tasks).sampled, Setting().rollouts)


def check(pass_rates: Floats, rollouts: int) -> None:
    """Raises ValueError if the pass rates do not cover the whole range: 30 to 60 % of the tasks must be expected to
    have different rewards in a group of rollouts, and at least 15 % of all must be always and never solved.
    """
    solved, failed = (rates**rollouts for rates in (pass_rates, 1 - pass_rates))
    shares = {"always": solved.mean(), "never": failed.mean(), "sometimes": (1 - solved - failed).mean()}
    shown = ", ".join(f"{share:.2f} {name} solved" for name, share in shares.items())
    if not 0.3 <= shares["sometimes"] <= 0.6 or min(shares["always"], shares["never"]) < 0.15:
        raise ValueError(
            f"start policy: got shares of tasks {shown} in {rollouts} rollouts, must be at least 0.15 always, at least "
            f"0.15 never, and 0.3 to 0.6 sometimes; change the steps of pretraining in {Path(__file__).name}"
        )


def file_of(folder: Path, name: str) -> Path:
    """Returns the file of a policy's weights."""
    return folder / f"{name}.npz"


def save(path: Path, policy: Policy) -> None:
    """Writes the weights in half precision, and at once or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{name: weight.numpy().astype(np.float16) for name, weight in policy.state_dict().items()})
    partial.replace(path)


def read(path: Path) -> Weights:
    """Returns the weights in a file."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}


def load(weights: Weights) -> Policy:
    """Returns a policy with these weights."""
    policy = Policy()
    policy.load_state_dict(weights)
    return policy


def problem(setting: Setting, seed: int, start: Weights) -> Problem:
    """Returns the problem of a seed."""
    tasks = draw_distinct(np.random.default_rng([seed, 0]), setting.tasks + setting.held_out)
    return Problem(tasks[: setting.tasks], tasks[setting.tasks :], start)


def reference_rates(setting: Setting, seed: int, folder: Path, tasks: Sequence[Task]) -> dict[str, Floats]:
    """Returns the pass rates of the weak and the strong reference on tasks, measured with rollouts.

    Numbers of successes are drawn from the binomial distribution of the exact pass rates, which is the distribution
    that rollouts have.
    """
    rng = np.random.default_rng([seed, 3])
    exact = {name: evaluate(load(read(file_of(folder, name))), tasks).sampled for name in ("weak", "strong")}
    count = setting.reference_rollouts
    return {name: rng.binomial(count, np.clip(rates, 0, 1)) / count for name, rates in exact.items()}


def columns(arm: Arm, tasks: Sequence[Task], references: Callable[[], dict[str, Floats]]) -> dict[str, Any]:
    """Returns the columns of an arm's dataset, as keywords of `create_dataset`."""
    from bots.features import from_text

    questions = [task.question for task in tasks]
    found: dict[str, Any] = {"size": len(tasks)}
    if arm.tags:
        found["tags"] = [task.family for task in tasks]
    if arm.length:
        found["features"] = {"length": [float(len(question)) for question in questions]}
    if arm.text:
        found["features"] = from_text(questions)
    if arm.references:
        found |= references()
    return found
