"""The posterior of a run: a pure fold over the run's events.

Between its own evaluations a task only decays and receives implicit evidence, and both depend on nothing but its
stratum. So there is one baseline (A_g, B_g) per stratum, updated as a never evaluated task, and for tasks that were
evaluated a deviation (DA_i, DB_i), with alpha_i = A_g + DA_i and beta_i = B_g + DB_i.

Cost does not grow with the dataset: up to 65,536 strata and with forgetting of 0.05 or more, select and report take
the same time for 10 thousand and for 10 million tasks. Forgetting counts because a deviation decays by it: after
log(rollouts / tolerance) / forgetting updates, a task is back on its baseline.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bots_server.core import distinct, statistics
from bots_server.core.deviations import Deviations as Deviations
from bots_server.core.deviations import after_update, find, in_order, plus
from bots_server.core.evidence import capability, implicit_evidence, implicit_pass_rates
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Outcomes of n distinct tasks.

    tasks:     `[n]` int64, ascending, distinct, in [0, N)
    successes: `[n]` float64, in [0, rollouts]
    rollouts:  `[n]` float64, whole numbers above 0
    """

    tasks: Ints
    successes: Floats
    rollouts: Floats

    def __len__(self) -> int:
        """Returns n."""
        return len(self.tasks)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """The state of a run after `version` events: alpha and beta of all tasks in factored form, and what goes with them.

    version:             number of events
    updates:             number of updates applied
    capability:          kappa; None: not known yet
    baseline_alpha:      `[G]` float64, alpha of a never evaluated task of each stratum
    baseline_beta:       `[G]` float64
    pending:             outcomes that wait for `rollouts_per_update`
    total:               `[S]` float64, sums over all reports (core.statistics)
    recent:              `[S]` float64, the same where each report weighs 63/64 of the one after it
    tried:               `[2048]` uint8, HyperLogLog registers of the tasks ever reported (core.distinct)
    last_report_time_ms: since 1970-01-01 UTC; 0: no report yet
    """

    version: int
    updates: int
    hyperparameters: Hyperparameters
    capability: float | None
    baseline_alpha: Floats
    baseline_beta: Floats
    deviations: Deviations
    pending: Evidence
    total: Floats
    recent: Floats
    tried: NDArray[np.uint8]
    last_report_time_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Individuals:
    """The I tasks whose posterior is not (or not only) their stratum's baseline: deviating or pending.

    tasks:   `[I]` int64, ascending
    alpha:   `[I]` float64, pending outcomes counted in
    beta:    `[I]` float64
    cooling: `[I]` whether the run's `cooldown` keeps the task from being selected
    """

    tasks: Ints
    alpha: Floats
    beta: Floats
    cooling: NDArray[np.bool_]

    def __len__(self) -> int:
        """Returns I."""
        return len(self.tasks)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Outcomes that a job sent at once. Policy steps are for the statistics; None: not said."""

    evidence: Evidence
    policy_step: int | None
    selection_policy_step: int | None
    time_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class HyperparametersChanged:
    """New values of some hyperparameters, by name."""

    changes: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """The run goes back to a state; only its version goes on."""

    state: Posterior


Event = Report | HyperparametersChanged | Restored


NOTHING = Evidence(np.empty(0, np.int64), np.empty(0), np.empty(0))


def gather(tasks: NDArray[np.integer], successes: Floats, rollouts: NDArray[np.float64 | np.int64]) -> Evidence:
    """Returns the evidence of outcomes in any order, several outcomes of one task summed."""
    own, inverse = np.unique(np.asarray(tasks, np.int64), return_inverse=True)
    return Evidence(
        tasks=own,
        successes=np.asarray(np.bincount(inverse, successes, len(own)), np.float64),
        rollouts=np.asarray(np.bincount(inverse, rollouts, len(own)), np.float64),
    )


def start(tasks: Tasks, hyperparameters: Hyperparameters) -> Posterior:
    """Returns version 0: every task at its prior."""
    return Posterior(
        version=0,
        updates=0,
        hyperparameters=hyperparameters,
        capability=None,
        baseline_alpha=tasks.strata.prior_alpha,
        baseline_beta=tasks.strata.prior_beta,
        deviations=Deviations(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0, np.int64)),
        pending=NOTHING,
        total=statistics.zeros(),
        recent=statistics.zeros(),
        tried=distinct.zeros(),
        last_report_time_ms=0,
    )


def alpha_beta(posterior: Posterior, tasks: Tasks, which: NDArray[np.integer] | None) -> tuple[Floats, Floats]:
    """Returns alpha and beta of the tasks `which`, in that order, or of all N (None); pending outcomes counted in."""
    if which is None:
        own = individuals(posterior, tasks)
        alpha, beta = posterior.baseline_alpha.take(tasks.stratum), posterior.baseline_beta.take(tasks.stratum)
        alpha[own.tasks], beta[own.tasks] = own.alpha, own.beta
        return alpha, beta
    deviations, pending = posterior.deviations, posterior.pending
    alpha, beta = np.zeros(len(which)), np.zeros(len(which))
    if len(deviations):
        at, found = find(deviations.tasks, which)
        alpha += deviations.alpha.take(at) * found
        beta += deviations.beta.take(at) * found
    if len(pending):
        at, found = find(pending.tasks, which)
        alpha += pending.successes.take(at) * found
        beta += (pending.rollouts - pending.successes).take(at) * found
    return _on_baseline(posterior, tasks, which, alpha, beta)


def individuals(posterior: Posterior, tasks: Tasks) -> Individuals:
    """Returns the tasks that are deviating or pending."""
    own, pending = posterior.deviations, posterior.pending
    if len(pending):  # like evaluated in the newest update, so that it cools wherever tasks cool
        failures = pending.rollouts - pending.successes
        own = in_order(plus(own, posterior.updates, pending.tasks, pending.successes, failures))
    alpha, beta = _on_baseline(posterior, tasks, own.tasks, own.alpha, own.beta)
    cooling = own.last_update > posterior.updates - posterior.hyperparameters.cooldown
    return Individuals(own.tasks, alpha, beta, cooling)


def _on_baseline(
    posterior: Posterior, tasks: Tasks, which: NDArray[np.integer], alpha: Floats, beta: Floats
) -> tuple[Floats, Floats]:
    stratum = tasks.stratum.take(which)
    alpha = posterior.baseline_alpha.take(stratum) + alpha
    beta = posterior.baseline_beta.take(stratum) + beta
    # Rounding must not take a posterior below its prior.
    np.maximum(alpha, tasks.strata.prior_alpha.take(stratum), out=alpha)
    np.maximum(beta, tasks.strata.prior_beta.take(stratum), out=beta)
    return alpha, beta


def fold(posterior: Posterior, tasks: Tasks, event: Event) -> Posterior:
    """Returns the state after one more event. Never changes its input.

    The posterior equals the equations of the method to within 1e-4 in alpha and beta, for any history and any split
    of it into reports. Which servers folded the events, and in what groups, does not change a bit.
    """
    version = posterior.version + 1
    if isinstance(event, Report):
        after = _observe(posterior, tasks, event)
    elif isinstance(event, HyperparametersChanged):
        changed = replace(posterior.hyperparameters, **event.changes)  # type: ignore[arg-type]
        after = replace(posterior, version=version, hyperparameters=changed)
    else:
        after = replace(event.state, version=version)
    return _settled(after, tasks)


def _settled(posterior: Posterior, tasks: Tasks) -> Posterior:
    """Returns the state with its pending outcomes applied, where they are enough for an update."""
    pending = posterior.pending
    if len(pending) and np.add.reduce(pending.rollouts) >= posterior.hyperparameters.rollouts_per_update:
        return _update(posterior, tasks)
    return posterior


def fork(posterior: Posterior, tasks: Tasks, hyperparameters: Hyperparameters) -> Posterior:
    """Returns version 0 of a new run that goes on from a posterior, with statistics of its own."""
    fresh = start(tasks, hyperparameters)
    forked = replace(
        posterior,
        version=0,
        hyperparameters=hyperparameters,
        total=fresh.total,
        recent=fresh.recent,
        tried=fresh.tried,
        last_report_time_ms=0,
    )
    return _settled(forked, tasks)


def fold_all(posterior: Posterior, tasks: Tasks, events: Iterable[Event]) -> Posterior:
    """Returns the state after all the events: `fold` one by one, the same to the last bit."""
    for event in events:
        posterior = fold(posterior, tasks, event)
    return posterior


def _observe(posterior: Posterior, tasks: Tasks, report: Report) -> Posterior:
    """Returns the state with the report's outcomes pending, and counted in the statistics."""
    evidence = report.evidence
    alpha, beta = alpha_beta(posterior, tasks, evidence.tasks)
    stratum = tasks.stratum.take(evidence.tasks)
    weak, strong = tasks.strata.weak.take(stratum), tasks.strata.strong.take(stratum)
    lag = None
    if report.policy_step is not None and report.selection_policy_step is not None:
        lag = report.policy_step - report.selection_policy_step
    sums = statistics.observe(
        evidence.successes,
        evidence.rollouts,
        alpha / (alpha + beta),
        implicit_pass_rates(posterior.capability, weak, strong),
        lag,
    )
    return replace(
        posterior,
        version=posterior.version + 1,
        pending=_join(posterior.pending, evidence),
        total=posterior.total + sums,
        recent=posterior.recent * statistics.RECENT_WEIGHT + sums,
        tried=distinct.add(posterior.tried, evidence.tasks),
        last_report_time_ms=report.time_ms,
    )


def _join(pending: Evidence, evidence: Evidence) -> Evidence:
    if len(pending) == 0:
        return evidence
    own = np.union1d(pending.tasks, evidence.tasks)
    successes, rollouts = np.zeros(len(own)), np.zeros(len(own))
    for part in (pending, evidence):
        at = own.searchsorted(part.tasks)
        successes[at] += part.successes
        rollouts[at] += part.rollouts
    return Evidence(own, successes, rollouts)


def _update(posterior: Posterior, tasks: Tasks) -> Posterior:
    """Returns the state with the pending outcomes applied (arXiv 2510.26374, section 4).

    For every task, with l = forgetting, r = implicit weight, prior a0, b0, and k successes in n rollouts:

        a <- (1 - l) a + l a0 + (1 - r) k + r ~k
        b <- (1 - l) b + l b0 + (1 - r) (n - k) + r (~n - ~k)

    Not evaluated: k = n = 0, ~n = m and ~k = m ~p by interpolation. Evaluated: ~k = k and ~n = n. In factored form the
    baselines follow the first case, and a deviation decays and makes good what the second case has over the first:

        D_a <- (1 - l) D_a + [evaluated] (k - r m ~p)
        D_b <- (1 - l) D_b + [evaluated] (n - k - r m (1 - ~p))
    """
    parameters, evidence, strata = posterior.hyperparameters, posterior.pending, tasks.strata
    stratum = tasks.stratum.take(evidence.tasks)
    kappa = capability(
        posterior.capability,
        parameters.capability_smoothing,
        strata.weak.take(stratum),
        strata.strong.take(stratum),
        evidence.successes / evidence.rollouts,
    )
    rollouts = parameters.implicit_rollouts or np.add.reduce(evidence.rollouts) / len(evidence)
    implicit_alpha, implicit_beta = implicit_evidence(kappa, strata, parameters.implicit_weight * rollouts)
    updates = posterior.updates + 1
    return replace(
        posterior,
        updates=updates,
        capability=kappa,
        baseline_alpha=_decay(posterior.baseline_alpha, strata.prior_alpha, parameters.forgetting, implicit_alpha),
        baseline_beta=_decay(posterior.baseline_beta, strata.prior_beta, parameters.forgetting, implicit_beta),
        deviations=after_update(
            posterior.deviations,
            parameters,
            updates,
            evidence.tasks,
            evidence.successes - implicit_alpha.take(stratum),
            evidence.rollouts - evidence.successes - implicit_beta.take(stratum),
        ),
        pending=NOTHING,
    )


def _decay(baseline: Floats, prior: Floats, forgetting: float, implicit: Floats) -> Floats:
    after = baseline * (1 - forgetting)
    after += prior * forgetting
    after += implicit
    return np.maximum(after, prior, out=after)  # rounding must not take it below
