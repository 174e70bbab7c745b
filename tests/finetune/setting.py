"""The size of the benchmark, and its arms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bots.hyperparameters import Model


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The size of one training.

    tasks, held_out    number of tasks to train on, and to measure on; drawn for each seed.
    steps              rounds of rollouts; each is a step of the optimiser, except with dynamic sampling.
    batch, rollouts    tasks a round, rollouts a task.
    evaluate_every     rounds between two measurements of the policy.
    learning_rate      chosen for uniform selection on other seeds: `--choose-lr`.
    reference_rollouts  rollouts of each task by each reference policy.
    """

    tasks: int = 2000
    held_out: int = 500
    steps: int = 250
    batch: int = 8
    rollouts: int = 16
    evaluate_every: int = 25
    learning_rate: float = 1e-4
    reference_rollouts: int = 16

    @property
    def measured(self) -> npt.NDArray[np.int64]:
        """`[K]` numbers of rounds after which the policy is measured."""
        return np.append(np.arange(0, self.steps, self.evaluate_every), self.steps)

    @property
    def budget(self) -> int:
        """Rollouts that each arm trains on."""
        return self.steps * self.batch * self.rollouts


Way = Literal["uniform", "dynamic", "service"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How tasks are selected; everything else of a training is equal in all arms of a seed.

    way    "uniform": every task once an epoch, in random order, as a data loader does. "dynamic": likewise, but groups
           whose rewards are equal are dropped, and the optimiser steps when a batch of others is there (DAPO, arXiv
           2503.14476). "service": by the service, with `model` and `rest`, None: the default.
    references, tags, length, text  columns of the dataset: two reference pass rates, the family of each task, the
           length of its question, and `bots.features.from_text` of its question.
    """

    name: str
    way: Way = "service"
    model: Model | None = None
    rest: float | None = None
    references: bool = False
    tags: bool = False
    length: bool = False
    text: bool = False

    @property
    def slug(self) -> str:
        """The name as a part of a file's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def reference_cost(self, setting: Setting) -> int:
        """Returns the rollouts that the reference pass rates cost."""
        return 2 * setting.tasks * setting.reference_rollouts if self.references else 0


UNIFORM = Arm(name="uniform", way="uniform")
DYNAMIC = Arm(name="dynamic sampling", way="dynamic")
EXPLICIT = Arm(name="explicit only", model="interpolation")
INTERPOLATION = Arm(name="interpolation, references", model="interpolation", references=True)
TAGS = Arm(name="item_response, tags", model="item_response", tags=True)
TAGS_LENGTH = Arm(name="item_response, tags and length", model="item_response", tags=True, length=True)
TEXT = Arm(name="item_response, text", model="item_response", text=True)
REFERENCES = Arm(name="item_response, references", model="item_response", references=True)


def without_rest(arm: Arm) -> Arm:
    """Returns the arm with tasks that never rest."""
    return Arm(**(vars(arm) | {"name": f"{arm.name}, no rest", "rest": 0.0}))


SELECTED = (TAGS, TEXT, INTERPOLATION, REFERENCES, EXPLICIT, TAGS_LENGTH)
ARMS = (UNIFORM, *SELECTED, DYNAMIC, *map(without_rest, SELECTED))
SHARED = TEXT  # by which two trainings share a run
TRL = Arm(name="item_response, text, by TRL", model="item_response", text=True)

QUICK = Setting(held_out=300, steps=150, rollouts=8, evaluate_every=50)
QUICK_CHECKED = without_rest(TAGS_LENGTH)  # whose effective task ratio must be well above uniform selection's
QUICK_ARMS = (UNIFORM, QUICK_CHECKED, TEXT)

RATES = (5e-5, 1e-4, 1.5e-4, 2e-4, 4e-4)  # of learning, compared by --choose-lr
