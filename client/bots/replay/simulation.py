"""One arm of the replay: select, roll out by the table, report, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bots.client import Client
from bots.replay.epochs import count_distinct, shuffled_epochs
from bots.replay.table import Rates, policy_at
from bots.run import Run

LOOK_EVERY = 5  # steps between two looks at the whole posterior


@dataclass(frozen=True)
class Arm:
    """One way to select.

    way               "uniform": a shuffled epoch, without the service. "oracle": the tasks whose true pass rate is
                      nearest to the target, without rest. Else the evidence model of a run.
    references, tags  whether the run's dataset has these columns.
    """

    way: Literal["uniform", "interpolation", "item_response", "oracle"]
    references: bool = False
    tags: bool = False

    @property
    def name(self) -> str:
        """The arm's name in the table and the picture."""
        return self.way + " + references" * self.references + " + tags" * self.tags


ARMS = (
    Arm("uniform"),
    Arm("interpolation"),
    Arm("interpolation", references=True),
    Arm("item_response"),
    Arm("item_response", tags=True),
    Arm("item_response", references=True),
    Arm("oracle"),
)


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns that datasets are made of.

    size          N, the number of tasks.
    weak, strong  `[N]` reference pass rates.
    tags          `[N]` tags; None: not known.
    """

    size: int
    weak: Rates
    strong: Rates
    tags: list[str] | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The size of the replay, and hyperparameters.

    batch, rollouts, steps  tasks a step, rollouts a task, steps in all.
    target, rest            hyperparameters of the runs; the others are the defaults.
    """

    batch: int
    rollouts: int
    steps: int
    target: float = 0.5
    rest: float = 0.5

    @property
    def looks(self) -> npt.NDArray[np.int64]:
        """`[K]` steps before which the posterior is looked at."""
        return np.arange(0, self.steps, LOOK_EVERY)


@dataclass(frozen=True, eq=False)
class Trace:
    """The record of one arm with one seed.

    ratio        `[steps]` effective task ratio: share of selected tasks with a pass rate observed strictly between 0
                 and 1.
    distinct     `[steps]` distinct tasks selected so far.
    correlation  `[K]` of posterior mean and true pass rate over all tasks, at each look; NaN if there is no posterior
                 or all its means are equal.
    """

    ratio: Rates
    distinct: npt.NDArray[np.int64]
    correlation: Rates


def start(client: Client, dataset: str, arm: Arm, columns: Columns, setting: Setting, seed: int) -> Run | None:
    """Returns a fresh run of an arm, on a dataset that has the arm's columns; None: the arm needs none."""
    if arm.way == "uniform" or arm.way == "oracle":
        return None
    client.create_dataset(
        dataset,
        size=columns.size,
        weak=columns.weak if arm.references else None,
        strong=columns.strong if arm.references else None,
        tags=columns.tags if arm.tags else None,
    )
    name = f"seed-{seed}"
    run: Run = client.create_run(dataset, name, model=arm.way, target=setting.target, rest=setting.rest)
    return run


def play(rates: Rates, setting: Setting, arm: Arm, run: Run | None, seed: int, advance: Callable[[], object]) -> Trace:
    """Returns the trace of one arm.

    rates    `[N, M]` pass rates of the growing policy's checkpoints, as rollouts meet them.
    run      of the arm, from `start`.
    seed     of rollouts and selections: with the same server the same trace.
    advance  called after each step.
    """
    rng = np.random.default_rng(seed)
    epochs = shuffled_epochs(rng, len(rates), setting.batch)
    ratio = np.empty(setting.steps)
    selected = []
    correlations = np.full(len(setting.looks), np.nan)
    for step in range(setting.steps):
        pass_rates = policy_at(rates, step, setting.steps)
        if run is not None:
            if step % LOOK_EVERY == 0:
                alpha, beta = run.posteriors()
                correlations[step // LOOK_EVERY] = correlation(alpha / (alpha + beta), pass_rates)
            batch = run.select(setting.batch, seed=int(rng.integers(2**62)), policy_step=step)
            tasks = batch.tasks
        elif arm.way == "oracle":
            tasks = nearest(rng, pass_rates, setting.target, setting.batch)
        else:
            tasks = next(epochs)
        successes = rng.binomial(setting.rollouts, pass_rates[tasks])
        if run is not None:
            batch.report(successes, setting.rollouts, policy_step=step)
        ratio[step] = np.mean((successes > 0) & (successes < setting.rollouts))
        selected.append(tasks)
        advance()
    return Trace(ratio, count_distinct(selected), correlations)


def nearest(rng: np.random.Generator, pass_rates: Rates, target: float, count: int) -> npt.NDArray[np.int64]:
    """Returns the `count` tasks whose pass rate is nearest to the target, ties broken uniformly at random."""
    shuffled = rng.permutation(len(pass_rates))
    order = np.argsort(np.abs(pass_rates[shuffled] - target), kind="stable")
    return shuffled[order[:count]]


def correlation(one: Rates, other: Rates) -> float:
    """Returns Pearson's correlation; NaN if one side is constant."""
    if np.ptp(one) < 1e-12 or np.ptp(other) < 1e-12:
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])
