"""What a run knows under the item_response model, and how an update changes it."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bots_server.core import inputs as columns
from bots_server.core.arrays import Bools, Floats, Ints, find
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.inputs import Float, Rows
from bots_server.core.item_response.moments import after_outcome, matching_beta
from bots_server.core.tasks import Tasks

Rough = NDArray[np.float32]

BY_CELL = True  # tasks of one cell (prior, references, tag) have one baseline

# The values of s2, the variance of the residuals, that are weighed against each other.
SPREADS = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
FIRST_SPREAD = 4.0
FIRST_LIKELIHOOD = -0.5 * np.log(SPREADS / FIRST_SPREAD) ** 2
SPREAD_MEMORY = 0.99

# Bounds of the variance of a logit after an outcome; the upper one is a share of the variance before. An outcome's
# Gaussian message has the difference of the two precisions.
MIN_VARIANCE = 1e-3
MAX_VARIANCE_SHARE = 0.999

# A residual is forgotten when this share of it is left: 2292 updates after the task's last outcome if rho is 0.99.
FORGOTTEN = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """The residuals of D tasks, as their own outcomes left them: delta_i ~ Normal(mean, variance).

    All other tasks have mean 0 and variance s2, and their next outcome is a first outcome, which s2 is estimated from.
    A residual whose memory falls below FORGOTTEN is removed, so the task is again as if it had never been evaluated.
    With rho = 1 none is removed, and D is the number of tasks ever evaluated: 32 bytes each.
    """

    tasks: Ints  # `[D]` ascending
    mean: Floats  # `[D]`
    variance: Floats  # `[D]` positive; moves towards s2 as time passes
    memory: Floats  # `[D]` product of rho over the updates since the task's last outcome, at least FORGOTTEN

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, eq=False)
class ItemResponse:
    """What a run knows: theta ~ Normal(mean, covariance), and the residuals."""

    mean: Floats  # `[d]` of the ability (the intercept) and of the weights of the inputs
    covariance: Floats  # `[d, d]` symmetric, positive definite
    log_likelihood: Floats  # `[6]` log-likelihood of each of SPREADS, up to a constant
    residuals: Residuals

    @cached_property
    def spread(self) -> float:
        """Returns s2, the geometric mean of SPREADS under their posterior; FIRST_SPREAD before any outcome."""
        if np.array_equal(self.log_likelihood, FIRST_LIKELIHOOD):
            return FIRST_SPREAD
        weight = np.exp(self.log_likelihood - self.log_likelihood.max())
        return float(np.exp(weight @ np.log(SPREADS) / weight.sum()))


def start(tasks: Tasks, hyperparameters: Hyperparameters) -> ItemResponse:
    """Returns the state before any outcome."""
    prior = tasks.inputs
    return ItemResponse(
        mean=prior.mean,
        covariance=np.diag(prior.variance),
        log_likelihood=FIRST_LIKELIHOOD,
        residuals=Residuals(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)),
    )


def update(state: ItemResponse, tasks: Tasks, hyperparameters: Hyperparameters, evidence: Evidence) -> ItemResponse:
    """Returns the state after one update; O(n d^2 + d^3 + D) for n outcomes.

    Time passes, first outcomes of tasks change s2 (and with it the variance of tasks without outcomes, not of others),
    all outcomes become Gaussian messages h with precision L about the logits, and these change first the ability and
    the weights, then the residuals of their tasks.
    """
    x = columns.matrix(tasks.inputs, rows_of(tasks, evidence.tasks))
    covariance = state.covariance + np.diag(hyperparameters.drift * tasks.inputs.walk)
    root = np.linalg.cholesky(covariance)
    state = replace(state, residuals=_later(state.residuals, hyperparameters.residual_memory, state.spread))
    _, seen = find(state.residuals.tasks, evidence.tasks)

    explained_mean, explained = x @ state.mean, ((x @ root) ** 2).sum(1)
    if not seen.all():
        learned = _spread_learned(state.log_likelihood, explained_mean, explained, evidence, ~seen)
        state = replace(state, log_likelihood=learned)
    own, variance = residuals_of(state, evidence.tasks)
    message, message_precision = _messages(explained_mean + own, explained + variance, evidence)

    noise = 1 / message_precision + variance
    scaled = (x @ root) / np.sqrt(noise)[:, None]
    # (P^-1 + X' R^-1 X)^-1 with P = root root': symmetric by construction, and no inverse of P is formed.
    inner = np.linalg.cholesky(np.eye(len(root)) + scaled.T @ scaled)
    root = solve_triangular(inner, root.T, lower=True, check_finite=False).T
    covariance = root @ root.T
    mean = state.mean + covariance @ (x.T @ ((message - own - explained_mean) / noise))

    gain = variance / (variance + 1 / message_precision + ((x @ root) ** 2).sum(1))
    own = own + gain * (message - x @ mean - own)
    residuals = _replaced(state.residuals, evidence.tasks, own, variance * (1 - gain))
    return replace(state, mean=mean, covariance=covariance, residuals=residuals)


def logits(state: ItemResponse, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
    """Returns `[n]` mean and `[n]` variance of the logits of tasks in any order."""
    mean, variance = columns.project(tasks.inputs, rows_of(tasks, which), state.mean, state.covariance, np.float64)
    own, own_variance = residuals_of(state, which)
    return mean + own, variance + own_variance


def alpha_beta(state: ItemResponse, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
    """Returns `[n]` alpha and `[n]` beta of tasks in any order: the moments of their pass rates."""
    return matching_beta(*logits(state, tasks, which))


def without_own(state: ItemResponse, tasks: Tasks, which: Ints) -> Floats:
    """Returns `[n]` pass rate predicted for tasks from their inputs alone."""
    mean, variance = columns.project(tasks.inputs, rows_of(tasks, which), state.mean, state.covariance, np.float64)
    alpha, beta = matching_beta(mean, variance + state.spread)
    return alpha / (alpha + beta)


def baseline(state: ItemResponse, tasks: Tasks) -> tuple[Floats, Floats]:
    """Returns `[C]` alpha and `[C]` beta of a task of each cell without outcomes; `[0]` if the tasks have features."""
    if tasks.features is not None:
        return np.empty(0), np.empty(0)
    mean, variance = columns.project(tasks.inputs, _cells(tasks), state.mean, state.covariance, np.float64)
    return matching_beta(mean, variance + state.spread)


def rough_logits(state: ItemResponse, tasks: Tasks) -> tuple[Rough, Rough]:
    """Returns `[N]` mean and `[N]` variance of the logits of all tasks, exact to one in 10^5."""
    return _all_logits(state, tasks, np.float32)


def deviating(state: ItemResponse, tasks: Tasks) -> tuple[Ints, Floats, Floats]:
    """Returns the tasks, ascending, that have no baseline or differ from it, and their `[D]` alpha and `[D]` beta."""
    if tasks.features is None:
        which = state.residuals.tasks
        return (which, *alpha_beta(state, tasks, which))
    return (np.arange(len(tasks)), *matching_beta(*_all_logits(state, tasks, np.float64)))


def _all_logits(state: ItemResponse, tasks: Tasks, precision: type[Float]) -> tuple[NDArray[Float], NDArray[Float]]:
    """Returns `[N]` mean and `[N]` variance of the logits of all tasks."""
    mean, variance = columns.project(tasks.inputs, _columns(tasks), state.mean, state.covariance, precision)
    own = state.residuals
    own_variance = variance[own.tasks] + own.variance
    mean[own.tasks] += own.mean
    variance += precision(state.spread)
    variance[own.tasks] = own_variance
    return mean, variance


def rows_of(tasks: Tasks, which: Ints) -> Rows:
    """Returns the columns of tasks in any order."""
    return _columns(tasks).part(which)


def _columns(tasks: Tasks) -> Rows:
    return Rows(tasks.stratum, tasks.tag, tasks.features)


def _cells(tasks: Tasks) -> Rows:
    return Rows(tasks.cell_stratum, None if tasks.tag is None else tasks.cell_tag, None)


def residuals_of(state: ItemResponse, which: Ints) -> tuple[Floats, Floats]:
    """Returns `[n]` mean and `[n]` variance of the residuals of tasks in any order."""
    mean, variance = np.zeros(len(which)), np.full(len(which), state.spread)
    at, seen = find(state.residuals.tasks, which)
    mean[seen], variance[seen] = state.residuals.mean[at[seen]], state.residuals.variance[at[seen]]
    return mean, variance


def _later(before: Residuals, rho: float, spread: float) -> Residuals:
    """Returns the residuals one update later."""
    memory = before.memory * rho
    mean, variance = before.mean * rho, rho**2 * before.variance + (1 - rho**2) * spread
    kept = memory >= FORGOTTEN
    if kept.all():
        return Residuals(before.tasks, mean, variance, memory)
    return Residuals(before.tasks[kept], mean[kept], variance[kept], memory[kept])


def _replaced(before: Residuals, evaluated: Ints, mean: Floats, variance: Floats) -> Residuals:
    """Returns the residuals with those of the evaluated tasks, ascending, in place of earlier ones."""
    at, seen = find(before.tasks, evaluated)
    new = ~seen

    def column(values: Floats, given: Floats) -> Floats:
        values = values.copy()
        values[at[seen]] = given[seen]
        return np.insert(values, at[new], given[new])

    return Residuals(
        tasks=np.insert(before.tasks, at[new], evaluated[new]),
        mean=column(before.mean, mean),
        variance=column(before.variance, variance),
        memory=column(before.memory, np.ones(len(evaluated))),
    )


def _messages(mean: Floats, variance: Floats, evidence: Evidence) -> tuple[Floats, Floats]:
    """Returns `[n]` h and `[n]` L: Normal(mean, variance) x Normal(h, 1 / L) is as if the outcome were known."""
    after, left, _ = after_outcome(mean, variance, evidence.successes, evidence.rollouts)
    left = np.clip(left, MIN_VARIANCE, MAX_VARIANCE_SHARE * variance)
    precision = 1 / left - 1 / variance
    return (after / left - mean / variance) / precision, precision


def _spread_learned(log_likelihood: Floats, mean: Floats, variance: Floats, evidence: Evidence, first: Bools) -> Floats:
    """Returns `[6]` log-likelihood of SPREADS after an update with at least one first outcome."""
    shape = (int(first.sum()), len(SPREADS))
    _, _, each = after_outcome(
        np.broadcast_to(mean[first, None], shape),
        variance[first, None] + SPREADS,
        np.broadcast_to(evidence.successes[first, None], shape),
        np.broadcast_to(evidence.rollouts[first, None], shape),
    )
    return np.asarray(SPREAD_MEMORY * log_likelihood + each.sum(0))
