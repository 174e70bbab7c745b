"""One arm of the replay: select, roll out by the table, report, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bots.client import Client
from bots.replay.table import Rates, policy_at
from bots.run import Run

Arm = Literal["uniform", "explicit only", "BOTS", "oracle"]

ARMS: tuple[Arm, ...] = ("uniform", "explicit only", "BOTS", "oracle")

LOOK_EVERY = 5  # steps between two looks at the whole posterior
BINS = 20


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is played.

    batch, rollouts, steps  tasks a step, rollouts a task, steps in all.
    target                  pass rate to select near.
    forgetting, implicit_weight  hyperparameters of the runs.
    """

    batch: int
    rollouts: int
    steps: int
    target: float
    forgetting: float
    implicit_weight: float

    @property
    def looks(self) -> npt.NDArray[np.int64]:
        """`[K]` steps before which the posterior is looked at."""
        return np.arange(0, self.steps, LOOK_EVERY)


@dataclass(frozen=True, eq=False)
class Trace:
    """What came of one arm with one seed.

    ratio           `[steps]` effective task ratio: share of selected tasks with a pass rate observed strictly between 0
                    and 1.
    absolute_error  `[K]` mean over all tasks of |posterior mean - pass rate|, at each look; empty for the oracle.
    correlation     `[K]` of posterior mean and pass rate over tasks; NaN where all posterior means are equal.
    histogram       `[K, BINS]` share of tasks by posterior mean.
    mean            `[K]` mean over tasks of the posterior mean.
    capability      `[K]` kappa; NaN where it is not known yet.
    """

    ratio: Rates
    absolute_error: Rates
    correlation: Rates
    histogram: Rates
    mean: Rates
    capability: Rates


def play(rates: Rates, setting: Setting, run: Run | None, seed: int, advance: Callable[[], object]) -> Trace:
    """Returns the trace of one arm.

    rates    `[N, M]` pass rates of the growing policy's checkpoints, as rollouts meet them.
    run      selects by its posterior; None: the oracle does.
    seed     of rollouts and selections: with the same server the same trace.
    advance  is called after each step.
    """
    rng = np.random.default_rng(seed)
    ratio = np.empty(setting.steps)
    looks: list[tuple[Rates, Rates, float]] = []
    for step in range(setting.steps):
        pass_rates = policy_at(rates, step, setting.steps)
        if run is None:
            tasks = nearest(rng, pass_rates, setting.target, setting.batch)
        else:
            if step % LOOK_EVERY == 0:
                alpha, beta = run.posteriors()
                looks.append((alpha / (alpha + beta), pass_rates, capability_of(run)))
            tasks = run.select(setting.batch, seed=int(rng.integers(2**62)), policy_step=step).tasks
        successes = rng.binomial(setting.rollouts, pass_rates[tasks])
        ratio[step] = np.mean((successes > 0) & (successes < setting.rollouts))
        if run is not None:
            run.report(tasks, successes, setting.rollouts, policy_step=step, selection_policy_step=step)
        advance()
    return Trace(
        ratio=ratio,
        absolute_error=np.array([np.abs(means - truth).mean() for means, truth, _ in looks]),
        correlation=np.array([correlation(means, truth) for means, truth, _ in looks]),
        histogram=np.array([np.histogram(means, BINS, (0, 1))[0] / len(means) for means, _, _ in looks]),
        mean=np.array([means.mean() for means, _, _ in looks]),
        capability=np.array([capability for _, _, capability in looks]),
    )


def start(client: Client, dataset: str, arm: Arm, setting: Setting, seed: int) -> Run | None:
    """Returns a fresh run for an arm with a seed; None: the oracle knows the pass rates and needs none."""
    if arm == "oracle":
        return None
    return client.create_run(
        dataset,
        f"{arm.lower().replace(' ', '-')}-{seed}",
        forgetting=setting.forgetting,
        implicit_weight=0.0 if arm == "explicit only" else setting.implicit_weight,
        target=setting.target,
        uniform_fraction=1.0 if arm == "uniform" else 0.0,
    )


def nearest(rng: np.random.Generator, pass_rates: Rates, target: float, count: int) -> npt.NDArray[np.int64]:
    """Returns the `count` tasks whose pass rate is nearest to the target, ties broken uniformly at random."""
    shuffled = rng.permutation(len(pass_rates))
    order = np.argsort(np.abs(pass_rates[shuffled] - target), kind="stable")
    return shuffled[order[:count]]


def capability_of(run: Run) -> float:
    """Returns kappa; NaN where it is not known yet."""
    capability = run.summary().capability
    return np.nan if capability is None else capability


def true_capability(rates: Rates, weak: Rates, strong: Rates, setting: Setting) -> Rates:
    """Returns `[K]` the capability at each look, from the pass rates of all tasks."""
    means = np.array([policy_at(rates, step, setting.steps).mean() for step in setting.looks])
    return np.asarray((means - weak.mean()) / (strong.mean() - weak.mean()))


def correlation(one: Rates, other: Rates) -> float:
    """Returns Pearson's correlation; NaN where one side is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])
