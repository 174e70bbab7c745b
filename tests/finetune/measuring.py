"""What is measured of a policy and of its run, between two rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bots.replay.simulation import correlation
from bots.run import Run
from tests.finetune.learning import evaluate
from tests.finetune.model import Policy
from tests.finetune.setting import Setting
from tests.finetune.start import Problem
from tests.finetune.tasks import FAMILIES, LEVELS, Task
from tests.finetune.trace import BINS, Floats, Ints

SAMPLE = 250  # training tasks, the first ones, whose true pass rates are compared with the posterior


def measure(
    policy: Policy, problem: Problem, setting: Setting, updates: int, run: Run | None, rows: Ints
) -> dict[str, Any]:
    """Returns one entry of each column of `Trace` that is measured.

    updates  steps of the optimiser so far.
    run      of the training; None: it has none.
    rows     `[SAMPLE]` places of the first training tasks in the run's dataset.
    """
    held_out = evaluate(policy, problem.held_out)
    true = evaluate(policy, problem.tasks[:SAMPLE]).sampled
    count = setting.rollouts
    measured: dict[str, Any] = {
        "updates": updates,
        "accuracy": held_out.sampled.mean(),
        "greedy": held_out.greedy.mean(),
        "cells": [
            [_mean_of(problem.held_out, held_out.sampled, family, level) for level in range(1, LEVELS + 1)]
            for family in FAMILIES
        ],
        "available": np.mean(1 - true**count - (1 - true) ** count),
        "fidelity": np.nan,
        "capability": np.nan,
        "implicit": (np.nan, np.nan),
        "first": (np.nan, np.nan),
    }
    if run is not None:
        alpha, beta = run.posteriors(rows, rows=True)
        summary = run.summary()
        implicit, first = summary.total.implicit_prediction, summary.total.first_prediction
        measured |= {
            "fidelity": correlation(alpha / (alpha + beta), true),
            "capability": np.nan if summary.capability is None else summary.capability,
            "implicit": (implicit.correlation, implicit.auc),
            "first": (first.correlation, first.auc),
        }
    return measured


def calibration(run: Run | None) -> Floats:
    """Returns `[BINS, 3]` number of outcomes, mean predicted and mean observed pass rate, by tenth of the predicted."""
    if run is None:
        return np.full((BINS, 3), np.nan)
    return np.array([(each.outcomes, each.predicted, each.observed) for each in run.summary().total.calibration])


def _mean_of(tasks: Sequence[Task], rates: Floats, family: str, level: int) -> float:
    chosen = [rate for task, rate in zip(tasks, rates, strict=True) if (task.family, task.level) == (family, level)]
    return float(np.mean(chosen)) if chosen else np.nan
