"""What an update changes: the model's state, the outcomes that wait, the coverage and the statistics."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core import item_response, shadow, statistics
from bots_server.core.arrays import Floats, Ints, find, union
from bots_server.core.coverage import Coverage, evaluate, no_coverage
from bots_server.core.evidence import NOTHING, Evidence, capped, merge
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.item_response import ItemResponse
from bots_server.core.models import MODULES, ModelState
from bots_server.core.tasks import Tasks


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The state of a run between updates."""

    updates: int  # number of updates applied
    learned: ModelState  # the model's state
    pending: Evidence  # outcomes that wait for `rollouts_per_update`
    coverage: Coverage  # what was evaluated, pending outcomes counted in
    total: Floats  # `[S]` sums over all updates (core.statistics)
    recent: Floats  # `[S]` the same with weights that decay by 63/64 an update


@dataclass(frozen=True, slots=True, eq=False)
class Factored:
    """alpha and beta of all tasks, pending outcomes counted in: a baseline, and I tasks by themselves."""

    by_cell: bool  # whether the baseline is by cell, else by stratum
    baseline_alpha: Floats  # `[G]`, or `[C]`; empty if all tasks are by themselves
    baseline_beta: Floats  # as baseline_alpha
    tasks: Ints  # `[I]` ascending
    alpha: Floats  # `[I]`
    beta: Floats  # `[I]`

    def __len__(self) -> int:
        return len(self.tasks)


def first_state(tasks: Tasks, model: str, hyperparameters: Hyperparameters) -> State:
    """Returns the state before any evidence."""
    return State(
        updates=0,
        learned=MODULES[model].start(tasks, hyperparameters),
        pending=NOTHING,
        coverage=no_coverage(tasks),
        total=np.zeros(statistics.SIZE),
        recent=np.zeros(statistics.SIZE),
    )


def factored(state: State, tasks: Tasks, model: str) -> Factored:
    """Returns alpha and beta of all tasks in factored form."""
    module = MODULES[model]
    baseline = module.baseline(state.learned, tasks)
    own, alpha, beta = module.deviating(state.learned, tasks)
    if len(state.pending):
        waiting = state.pending.tasks
        at, known = find(own, waiting)
        own = np.insert(own, at[~known], waiting[~known])
        alpha, beta = np.insert(alpha, at[~known], 0), np.insert(beta, at[~known], 0)
        at = own.searchsorted(waiting)
        alpha[at], beta[at] = some_alpha_beta(state, tasks, model, waiting)
    return Factored(module.BY_CELL, *baseline, own, alpha, beta)


def individual_tasks(state: State) -> Ints:
    """Returns `[I]` the tasks of `factored`, without the cost of alpha and beta, if not all tasks are individual."""
    learned = state.learned
    own = learned.residuals.tasks if isinstance(learned, ItemResponse) else learned.deviations.tasks
    return union(own, state.pending.tasks) if len(state.pending) else own


def some_alpha_beta(state: State, tasks: Tasks, model: str, which: Ints) -> tuple[Floats, Floats]:
    """Returns alpha and beta of the tasks `which`, in that order, pending outcomes counted in."""
    alpha, beta = MODULES[model].alpha_beta(state.learned, tasks, which)
    if len(state.pending):
        pending = capped(state.pending)
        at, found = find(pending.tasks, which)
        alpha[found] += pending.successes[at[found]]
        beta[found] += (pending.rollouts - pending.successes)[at[found]]
    return alpha, beta


def all_individual(tasks: Tasks, model: str) -> bool:
    """Returns whether every task is by itself in every state."""
    return MODULES[model].BY_CELL and tasks.features is not None


def rough_logits(state: State, tasks: Tasks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns `[N]` mean and `[N]` variance of the logits if all tasks are individual, exact to one in 10^5.

    The variance is infinite if outcomes of the task are pending: its alpha and beta are not those of a logit.
    """
    assert isinstance(state.learned, ItemResponse)
    mean, variance = item_response.rough_logits(state.learned, tasks)
    variance[state.pending.tasks] = np.inf
    return mean, variance


def observed(
    state: State,
    tasks: Tasks,
    model: str,
    hyperparameters: Hyperparameters,
    evidence: Evidence,
    policy_lag: int | None,
    shadow_tasks: Ints,
) -> State:
    """Returns the state with outcomes pending, and counted in coverage and statistics."""
    alpha, beta = some_alpha_beta(state, tasks, model, evidence.tasks)
    coverage = state.coverage
    sums = statistics.observe(
        evidence,
        coverage.ever.has(evidence.tasks),
        alpha / (alpha + beta),
        MODULES[model].without_own(state.learned, tasks, evidence.tasks),
        policy_lag,
    )
    if len(shadow_tasks):
        theirs = some_alpha_beta(state, tasks, model, shadow_tasks)
        sums[statistics.SHADOW] = shadow.compare(evidence, alpha, beta, *theirs)
    # A task that waits already was evaluated with the outcomes that wait.
    evaluated = evidence.tasks[~find(state.pending.tasks, evidence.tasks)[1]]
    return State(
        updates=state.updates,
        learned=state.learned,
        pending=merge(state.pending, evidence),
        coverage=evaluate(coverage, tasks, evaluated, hyperparameters.rest),
        total=state.total + sums,
        recent=state.recent * statistics.RECENT_WEIGHT + sums,
    )


def settled(state: State, tasks: Tasks, model: str, hyperparameters: Hyperparameters) -> State:
    """Returns the state with its pending outcomes applied if they are enough for an update."""
    pending = state.pending
    if len(pending) == 0 or np.add.reduce(pending.rollouts) < hyperparameters.rollouts_per_update:
        return state
    learned = MODULES[model].update(state.learned, tasks, hyperparameters, capped(pending))
    return State(state.updates + 1, learned, NOTHING, state.coverage, state.total, state.recent)
