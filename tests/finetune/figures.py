"""The figures of each arm over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tests.finetune.setting import UNIFORM, Arm, Setting
from tests.finetune.statistics import (
    Interval,
    best_so_far,
    correlation_and_auc,
    effective_ratio,
    interval,
    time_to_baseline,
)
from tests.finetune.tasks import FAMILIES
from tests.finetune.trace import Trace

Traces = Mapping[Arm, Mapping[int, Trace]]  # by seed
QUARTERS = {"25 %": 0.25, "50 %": 0.5, "100 %": 1.0}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One arm over its seeds; differences to uniform selection are of equal seeds.

    seeds           number of seeds.
    accuracy        held-out accuracy at the end: mean pass rate at temperature 1.
    gain            the same less uniform's.
    greedy_gain     gain in greedy accuracy.
    best_gain       gain in the best accuracy so far, after 25, 50 and 100 % of the rollouts.
    family_gain     gain at the end on the tasks of each family.
    area_gain       gain in the mean accuracy over the whole training.
    time_to_baseline  as `statistics.time_to_baseline`; a seed that never gets there counts as the whole training.
    censored        number of these seeds.
    ratio           effective task ratio over all rounds.
    pass_rate       observed pass rate of the selected tasks.
    distinct        distinct tasks selected.
    updates         steps of the optimiser.
    correlation, auc  of the posterior mean at selection with the outcome.
    implicit_correlation, implicit_auc  of the implicit estimate with the outcome.
    fidelity        correlation of the posterior mean with the true pass rate over all tasks, at the end.
    calibration     mean absolute difference of predicted and observed pass rate over the tenths of the predicted.
    share           of the wall-clock that selection and reports take.
    reference_rollouts  rollouts spent on reference pass rates, besides those of the training.
    """

    seeds: int
    accuracy: Interval
    gain: Interval
    greedy_gain: Interval
    best_gain: Mapping[str, Interval]
    family_gain: Mapping[str, Interval]
    area_gain: Interval
    time_to_baseline: Interval
    censored: int
    ratio: Interval
    pass_rate: Interval
    distinct: Interval
    updates: Interval
    correlation: Interval
    auc: Interval
    implicit_correlation: Interval
    implicit_auc: Interval
    fidelity: Interval
    calibration: Interval
    share: Interval
    reference_rollouts: int


def figures(traces: Traces, arm: Arm, setting: Setting) -> Figures:
    """Returns the figures of an arm."""
    seeds = traces[arm]
    paired = {seed: (trace, traces[UNIFORM][seed]) for seed, trace in seeds.items() if seed in traces[UNIFORM]}

    def over(figure: Callable[[Trace], float]) -> Interval:
        return interval([figure(trace) for trace in seeds.values()])

    def gain(figure: Callable[[Trace], float]) -> Interval:
        return interval([figure(trace) - figure(uniform) for trace, uniform in paired.values()])

    times = [
        (time_to_baseline(trace.accuracy, uniform.accuracy, trace.measured), whole_time(uniform))
        for trace, uniform in paired.values()
    ]
    return Figures(
        seeds=len(seeds),
        accuracy=over(lambda trace: trace.accuracy[-1]),
        gain=gain(lambda trace: trace.accuracy[-1]),
        greedy_gain=gain(lambda trace: trace.greedy[-1]),
        best_gain={name: gain(lambda trace, part=part: best_at(trace, part)) for name, part in QUARTERS.items()},  # type: ignore[misc]
        family_gain={
            family: gain(lambda trace, row=row: float(np.nanmean(trace.cells[-1, row])))  # type: ignore[misc]
            for row, family in enumerate(FAMILIES)
        },
        area_gain=gain(lambda trace: float(trace.accuracy.mean())),
        time_to_baseline=interval([whole if np.isnan(time) else time for time, whole in times]),
        censored=sum(bool(np.isnan(time)) for time, _ in times),
        ratio=over(lambda trace: float(effective_ratio(trace.successes, setting.rollouts).mean())),
        pass_rate=over(lambda trace: float(trace.successes.mean()) / setting.rollouts),
        distinct=over(lambda trace: float(np.unique(trace.tasks).size)),
        updates=over(lambda trace: float(trace.updates[-1])),
        correlation=over(lambda trace: predicted(trace, setting)[0]),
        auc=over(lambda trace: predicted(trace, setting)[1]),
        implicit_correlation=over(lambda trace: trace.implicit[-1, 0]),
        implicit_auc=over(lambda trace: trace.implicit[-1, 1]),
        fidelity=over(lambda trace: trace.fidelity[-1]),
        calibration=over(calibration_error),
        share=over(lambda trace: (trace.select_seconds + trace.report_seconds) / trace.seconds),
        reference_rollouts=arm.reference_cost(setting),
    )


def best_at(trace: Trace, part: float) -> float:
    """Returns the best accuracy in the first `part` of the rounds."""
    return float(best_so_far(trace.accuracy)[trace.measured <= part * trace.measured[-1]][-1])


def whole_time(uniform: Trace) -> float:
    """Returns the whole training as a share of the time that uniform selection takes to its best."""
    return float(uniform.measured[-1] / uniform.measured[int(np.argmax(uniform.accuracy))])


def predicted(trace: Trace, setting: Setting) -> tuple[float, float]:
    """Returns correlation and AUC of the posterior mean at selection; NaN: nothing was predicted."""
    if np.isnan(trace.predicted).any():
        return np.nan, np.nan
    return correlation_and_auc(trace.predicted, trace.successes, setting.rollouts)


def calibration_error(trace: Trace) -> float:
    """Returns the mean absolute difference of predicted and observed pass rate, weighted by outcomes."""
    count, expected, observed = trace.calibration.T
    known = count > 0
    if not known.any():
        return np.nan
    return float((count[known] * np.abs(expected - observed)[known]).sum() / count[known].sum())
