"""The record of one training, and its file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 10  # of predicted pass rates


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """The record of one training of S rounds of B tasks, measured K times. NaN: the arm has no such figure.

    measured         `[K]` rounds before each measurement.
    updates          `[K]` steps of the optimiser until then.
    accuracy         `[K]` mean pass rate of the held-out tasks at temperature 1.
    greedy           `[K]` share of the held-out tasks that are solved greedily.
    cells            `[K, families, levels]` mean pass rate of the held-out tasks of each family and level.
    fidelity         `[K]` correlation of posterior mean and true pass rate over a sample of all training tasks.
    available        `[K]` effective task ratio of uniform selection, by the true pass rates of that sample.
    tasks            `[S, B]` the selected tasks.
    successes        `[S, B]` their right answers.
    predicted        `[S, B]` posterior means at selection.
    implicit         `[K, 2]` Pearson correlation and ROC AUC of the implicit estimates so far, which are made before
                     the outcome and without the task's own outcomes; from the run's summary.
    first            `[K, 2]` the same of tasks that had not been evaluated before.
    calibration      `[BINS, 3]` number of outcomes, mean predicted and mean observed pass rate, by tenth of the
                     predicted; from the run's summary at the end.
    capability       `[K]` of interpolation.
    select_seconds, report_seconds  of all rounds.
    seconds          of the whole training without the measurements.
    """

    measured: Ints
    updates: Ints
    accuracy: Floats
    greedy: Floats
    cells: Floats
    fidelity: Floats
    available: Floats
    tasks: Ints
    successes: Floats
    predicted: Floats
    implicit: Floats
    first: Floats
    calibration: Floats
    capability: Floats
    select_seconds: float
    report_seconds: float
    seconds: float

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Writes the trace and what it is about, at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, about=json.dumps(about, sort_keys=True), **vars(self))
        partial.replace(path)


def load(path: Path) -> tuple[Trace, dict[str, Any]]:
    """Returns the trace in a file, and what it is about."""
    with np.load(path) as arrays:
        values = {field.name: arrays[field.name] for field in dataclasses.fields(Trace)}
        about: dict[str, Any] = json.loads(str(arrays["about"]))
    numbers = {name: float(value) for name, value in values.items() if value.ndim == 0}
    return Trace(**(values | numbers)), about
