"""The evidence model of the paper (arXiv 2510.26374, section 4): a Beta posterior with implicit evidence.

An update with forgetting l, implicit weight r, prior a0, b0, and k successes in n rollouts changes every task:

    a <- (1 - l) a + l a0 + (1 - r) k + r ~k
    b <- (1 - l) b + l b0 + (1 - r) (n - k) + r (~n - ~k)

Not evaluated: k = n = 0, ~n = m and ~k = m ~p. Evaluated: ~k = k and ~n = n. The implicit pass rate ~p interpolates
between two references at the capability kappa of the policy.

Between its own evaluations a task only decays and receives implicit evidence, and both depend on its stratum alone. So
the state is one baseline (A_g, B_g) for each stratum, updated as a never evaluated task, and a deviation (DA_i, DB_i)
for each evaluated task, with alpha_i = A_g + DA_i and beta_i = B_g + DB_i:

    DA <- (1 - l) DA + [evaluated] (k - r m ~p)
    DB <- (1 - l) DB + [evaluated] (n - k - r m (1 - ~p))

The functions up to `summarise` are those of `models.Model`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Floats, Ints, find
from bots_server.core.deviations import NO_DEVIATIONS, TOLERANCE, Deviations, after_update
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.tasks import Tasks

BY_CELL = False

# Share of the distance to its newest estimate that the capability moves in an update.
STEP = 0.1
# Distance of the mean references from which on an update tells the capability in full.
FULL_SPAN = 0.1
LOWEST, HIGHEST = -1.0, 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Interpolation:
    """The posterior of all tasks in factored form."""

    capability: float | None  # kappa; None: not known yet
    alpha: Floats  # `[G]` of a never evaluated task of each stratum
    beta: Floats  # `[G]`
    deviations: Deviations  # of evaluated tasks


@dataclass(frozen=True, slots=True)
class InterpolationSummary:
    capability: float | None


def start(tasks: Tasks, hyperparameters: Hyperparameters) -> Interpolation:
    return Interpolation(None, tasks.strata.prior_alpha, tasks.strata.prior_beta, NO_DEVIATIONS)


def update(state: Interpolation, tasks: Tasks, hyperparameters: Hyperparameters, evidence: Evidence) -> Interpolation:
    stratum = tasks.stratum.take(evidence.tasks)
    rates = evidence.successes / evidence.rollouts
    kappa = capability(state.capability, tasks.weak.take(stratum), tasks.strong.take(stratum), rates)
    rollouts = hyperparameters.implicit_rollouts or np.add.reduce(evidence.rollouts) / len(evidence)
    implicit_alpha, implicit_beta = implicit_evidence(kappa, tasks, hyperparameters.implicit_weight * rollouts)
    forgetting = hyperparameters.forgetting
    return Interpolation(
        capability=kappa,
        alpha=_decay(state.alpha, tasks.strata.prior_alpha, forgetting, implicit_alpha),
        beta=_decay(state.beta, tasks.strata.prior_beta, forgetting, implicit_beta),
        deviations=after_update(
            state.deviations,
            forgetting,
            evidence.tasks,
            evidence.successes - implicit_alpha.take(stratum),
            evidence.rollouts - evidence.successes - implicit_beta.take(stratum),
        ),
    )


def baseline(state: Interpolation, tasks: Tasks) -> tuple[Floats, Floats]:
    return state.alpha, state.beta


def deviating(state: Interpolation, tasks: Tasks) -> tuple[Ints, Floats, Floats]:
    own = state.deviations
    return (own.tasks, *_on_baseline(state, tasks, own.tasks, own.alpha, own.beta))


def alpha_beta(state: Interpolation, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
    own, alpha, beta = state.deviations, np.zeros(len(which)), np.zeros(len(which))
    at, found = find(own.tasks, which)
    at = at[found]
    alpha[found], beta[found] = own.alpha.take(at), own.beta.take(at)
    return _on_baseline(state, tasks, which, alpha, beta)


def without_own(state: Interpolation, tasks: Tasks, which: Ints) -> Floats:
    """Returns `[n]` implicit pass rates, which do not depend on the task's own outcomes; NaN: none."""
    stratum = tasks.stratum.take(which)
    return implicit_pass_rates(state.capability, tasks.weak.take(stratum), tasks.strong.take(stratum))


def carry(state: Interpolation, old: Tasks, new: Tasks, row: Ints) -> Interpolation:
    """Returns the state on another dataset.

    A task keeps its pseudo-counts beyond its prior; a task without a row starts at its prior. The baseline of a new
    stratum is that of its first task with a row, or the prior if most of its tasks have none.
    """
    kept = np.flatnonzero(row >= 0)
    counts = alpha_beta(state, old, row.take(kept))
    old_stratum = old.stratum.take(row.take(kept))
    shared, first, number = np.unique(new.stratum.take(kept), return_index=True, return_counts=True)
    mostly = 2 * number >= np.diff(new.stratum_start).take(shared)
    shared, first = shared[mostly], first[mostly]
    columns = []
    for values, own, prior, new_prior in zip(
        counts,
        (state.alpha, state.beta),
        (old.strata.prior_alpha, old.strata.prior_beta),
        (new.strata.prior_alpha, new.strata.prior_beta),
        strict=True,
    ):
        beyond = np.zeros(len(new))
        beyond[kept] = values - prior.take(old_stratum)
        shares = np.zeros(len(new.strata))
        shares[shared] = (own - prior).take(old_stratum.take(first))
        columns.append((new_prior + shares, beyond - shares.take(new.stratum)))
    (alpha, own_alpha), (beta, own_beta) = columns
    deviates = np.flatnonzero(np.maximum(np.abs(own_alpha), np.abs(own_beta)) >= TOLERANCE)
    deviations = Deviations(deviates, own_alpha.take(deviates), own_beta.take(deviates))
    return Interpolation(state.capability, alpha, beta, deviations)


def summarise(state: Interpolation, tasks: Tasks) -> InterpolationSummary:
    return InterpolationSummary(state.capability)


def capability(
    previous: float | None, weak: NDArray[np.float32], strong: NDArray[np.float32], pass_rates: Floats
) -> float | None:
    """Returns kappa after an update, from the references (NaN: none) and observed pass rates of its tasks, `[n]` each.

    Over the tasks with references:

        span = mean(s) - mean(w);  omega = min(1, (span / 0.1)^2)
        kappa_hat = clip((mean(k / n) - mean(w)) / span, -1, 2)
        kappa <- kappa + 0.1 omega (kappa_hat - kappa)

    The first kappa_hat with omega = 1 starts it. If no task has references or span = 0, kappa stays.
    """
    known = ~np.isnan(weak)
    weak, strong, pass_rates = weak[known], strong[known], pass_rates[known]
    if len(weak) == 0:
        return previous
    low = np.add.reduce(weak, dtype=np.float64) / len(weak)
    span = np.add.reduce(strong, dtype=np.float64) / len(weak) - low
    weight = min(1.0, float(span / FULL_SPAN) ** 2)
    if weight == 0 or (previous is None and weight < 1):
        return previous
    estimate = float((np.add.reduce(pass_rates) / len(weak) - low) / span)
    estimate = min(max(estimate, LOWEST), HIGHEST)
    return estimate if previous is None else previous + STEP * weight * (estimate - previous)


def implicit_pass_rates(capability: float | None, weak: NDArray[np.float32], strong: NDArray[np.float32]) -> Floats:
    """Returns clip(w + kappa (s - w), 0, 1) in the shape of `weak`; NaN without references or without kappa."""
    if capability is None:
        return np.full(len(weak), np.nan)
    low = weak.astype(np.float64)
    return np.minimum(np.maximum(low + capability * (strong - low), 0.0), 1.0)


def implicit_evidence(capability: float | None, tasks: Tasks, rollouts: float) -> tuple[Floats, Floats]:
    """Returns `[G]` pseudo-successes and `[G]` pseudo-failures that `rollouts` rollouts at the implicit pass rate add.

    Both are 0 for a stratum without references, and for all strata without kappa.
    """
    if capability is None or rollouts == 0:
        return np.zeros(len(tasks.strata)), np.zeros(len(tasks.strata))
    rates = implicit_pass_rates(capability, tasks.weak, tasks.strong)
    unknown = np.isnan(rates)
    return np.where(unknown, 0.0, rates * rollouts), np.where(unknown, 0.0, (1.0 - rates) * rollouts)


def _on_baseline(state: Interpolation, tasks: Tasks, which: Ints, alpha: Floats, beta: Floats) -> tuple[Floats, Floats]:
    stratum, prior = tasks.stratum.take(which).astype(np.int64), tasks.strata
    # Rounding must not take a posterior below its prior.
    alpha = np.maximum(state.alpha.take(stratum) + alpha, prior.prior_alpha.take(stratum))
    beta = np.maximum(state.beta.take(stratum) + beta, prior.prior_beta.take(stratum))
    return alpha, beta


def _decay(values: Floats, prior: Floats, forgetting: float, implicit: Floats) -> Floats:
    return np.maximum(values * (1 - forgetting) + prior * forgetting + implicit, prior)  # as in `_on_baseline`
