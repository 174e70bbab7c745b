"""What a run knows under the item_response model, and how an update changes it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bots_server.core import inputs as columns
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.inputs import Floats, Rows
from bots_server.core.item_response.moments import after_outcome, matching_beta
from bots_server.core.tasks import Tasks

Ints = NDArray[np.int64]

BY_CELL = True  # tasks of one cell (prior, references, tag) have one baseline

# The values of s2, the variance of the residuals, that are weighed against each other.
SPREADS = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
SPREAD_MEMORY = 0.99

# Bounds of the variance of a logit after an outcome; the upper one is a share of the variance before. An outcome's
# Gaussian message has the difference of the two precisions.
MIN_VARIANCE = 1e-3
MAX_VARIANCE_SHARE = 0.999

# A residual is dropped when this share of it is left. It has then less than 1e-4 to say about alpha and beta.
FORGOTTEN = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What their own outcomes say of D tasks, beyond the inputs: delta_i ~ Normal(mean, 1 / (1 / s2 + precision)).

    All other tasks have mean 0 and precision 0.

    tasks:     `[D]` int64, ascending
    mean:      `[D]`
    precision: `[D]` what outcomes added, at least 0; so a new estimate of s2 changes nothing here
    memory:    `[D]` product of rho over the updates since the task was evaluated
    """

    tasks: Ints
    mean: Floats
    precision: Floats
    memory: Floats

    def __len__(self) -> int:
        """Returns D."""
        return len(self.tasks)


@dataclass(frozen=True, slots=True, eq=False)
class ItemResponse:
    """What a run knows: theta ~ Normal(mean, covariance), and the residuals.

    mean:           `[d]` of the ability (the intercept) and of the weights of the inputs
    covariance:     `[d, d]` symmetric, positive definite
    log_likelihood: `[6]` log-likelihood of each of SPREADS, up to a constant
    """

    mean: Floats
    covariance: Floats
    log_likelihood: Floats
    residuals: Residuals

    @property
    def spread(self) -> float:
        """Returns s2, the geometric mean of SPREADS under their posterior."""
        weight = np.exp(self.log_likelihood - self.log_likelihood.max())
        return float(np.exp(weight @ np.log(SPREADS) / weight.sum()))


def start(tasks: Tasks, hyperparameters: Hyperparameters) -> ItemResponse:
    """Returns the state before any outcome."""
    prior = tasks.inputs
    return ItemResponse(
        mean=prior.mean,
        covariance=np.diag(prior.variance),
        log_likelihood=-0.5 * np.log(SPREADS / 4) ** 2,
        residuals=Residuals(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)),
    )


def update(state: ItemResponse, tasks: Tasks, hyperparameters: Hyperparameters, evidence: Evidence) -> ItemResponse:
    """Returns the state after one update; O(n d^2 + d^3 + D) for n outcomes.

    Time passes, the outcomes become Gaussian messages h with precision L about the logits, and these change first the
    ability and the weights, then the residuals of their tasks.
    """
    x = columns.matrix(tasks.inputs, rows_of(tasks, evidence.tasks))
    covariance = state.covariance + np.diag(hyperparameters.drift * tasks.inputs.walk)
    root = np.linalg.cholesky(covariance)
    residuals = _later(state.residuals, hyperparameters.residual_memory, state.spread)
    own, precision, memory = residuals_of(residuals, evidence.tasks)

    explained_mean, explained = x @ state.mean, ((x @ root) ** 2).sum(1)
    log_likelihood = _spread_learned(state.log_likelihood, explained_mean, explained, evidence, memory == 0)
    state = replace(state, log_likelihood=log_likelihood)
    variance = 1 / (1 / state.spread + precision)
    message, message_precision = _messages(explained_mean + own, explained + variance, evidence)

    noise = 1 / message_precision + variance
    scaled = (x @ root) / np.sqrt(noise)[:, None]
    # (P^-1 + X' R^-1 X)^-1 with P = root root': symmetric by construction, and no inverse of P is formed.
    inner = np.linalg.cholesky(np.eye(len(root)) + scaled.T @ scaled)
    root = solve_triangular(inner, root.T, lower=True, check_finite=False).T
    covariance = root @ root.T
    mean = state.mean + covariance @ (x.T @ ((message - own - explained_mean) / noise))

    about_own = 1 / (1 / message_precision + ((x @ root) ** 2).sum(1))
    gain = about_own * variance / (1 + about_own * variance)
    own = own + gain * (message - x @ mean - own)
    return replace(
        state,
        mean=mean,
        covariance=covariance,
        residuals=_replaced(residuals, evidence.tasks, own, precision + about_own),
    )


def logits(state: ItemResponse, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
    """Returns `[n]` mean and `[n]` variance of the logits of tasks in any order."""
    mean, variance = columns.project(tasks.inputs, rows_of(tasks, which), state.mean, state.covariance)
    own, precision, _ = residuals_of(state.residuals, which)
    return mean + own, variance + 1 / (1 / state.spread + precision)


def alpha_beta(state: ItemResponse, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
    """Returns `[n]` alpha and `[n]` beta of tasks in any order: the moments of their pass rates."""
    return matching_beta(*logits(state, tasks, which))


def without_own(state: ItemResponse, tasks: Tasks, which: Ints) -> Floats:
    """Returns `[n]` pass rate predicted for tasks from their inputs alone."""
    mean, variance = columns.project(tasks.inputs, rows_of(tasks, which), state.mean, state.covariance)
    alpha, beta = matching_beta(mean, variance + state.spread)
    return alpha / (alpha + beta)


def baseline(state: ItemResponse, tasks: Tasks) -> tuple[Floats, Floats]:
    """Returns `[C]` alpha and `[C]` beta of a task of each cell without outcomes; `[0]` if the tasks have features."""
    if tasks.features is not None:
        return np.empty(0), np.empty(0)
    mean, variance = columns.project(tasks.inputs, _cells(tasks), state.mean, state.covariance)
    return matching_beta(mean, variance + state.spread)


def deviating(state: ItemResponse, tasks: Tasks) -> tuple[Ints, Floats, Floats]:
    """Returns the tasks, ascending, that have no baseline or differ from it, and their `[D]` alpha and `[D]` beta."""
    own = state.residuals
    if tasks.features is None:
        return (own.tasks, *alpha_beta(state, tasks, own.tasks))
    every = Rows(tasks.stratum, tasks.tag, tasks.features)
    mean, variance = columns.project(tasks.inputs, every, state.mean, state.covariance)
    spread = state.spread
    mean[own.tasks] += own.mean
    variance += spread
    variance[own.tasks] += 1 / (1 / spread + own.precision) - spread
    return (np.arange(len(tasks)), *matching_beta(mean, variance))


def rows_of(tasks: Tasks, which: Ints) -> Rows:
    """Returns the columns of tasks in any order."""
    return Rows(tasks.stratum, tasks.tag, tasks.features).part(which)


def _cells(tasks: Tasks) -> Rows:
    return Rows(tasks.cell_stratum, None if tasks.tag is None else tasks.cell_tag, None)


def _later(before: Residuals, memory: float, spread: float) -> Residuals:
    """Returns the residuals one update later: d <- rho d, v <- rho^2 v + (1 - rho^2) s2, with v as a precision."""
    kept = memory * memory
    after = Residuals(
        before.tasks,
        before.mean * memory,
        before.precision * kept / (1 + (1 - kept) * spread * before.precision),
        before.memory * memory,
    )
    remembered = after.memory >= FORGOTTEN
    if remembered.all():
        return after
    return Residuals(
        after.tasks[remembered], after.mean[remembered], after.precision[remembered], after.memory[remembered]
    )


def residuals_of(residuals: Residuals, which: Ints) -> tuple[Floats, Floats, Floats]:
    """Returns `[n]` mean, `[n]` precision and `[n]` memory of the residuals of tasks in any order; 0: it has none."""
    if len(residuals) == 0:
        return np.zeros(len(which)), np.zeros(len(which)), np.zeros(len(which))
    at = np.minimum(residuals.tasks.searchsorted(which), len(residuals) - 1)
    found = residuals.tasks[at] == which
    return residuals.mean[at] * found, residuals.precision[at] * found, residuals.memory[at] * found


def _replaced(before: Residuals, evaluated: Ints, mean: Floats, precision: Floats) -> Residuals:
    """Returns the residuals with those of the evaluated tasks, ascending, in place of what there was."""
    tasks = np.union1d(before.tasks, evaluated)
    old, new = tasks.searchsorted(before.tasks), tasks.searchsorted(evaluated)

    def column(of_old: Floats, of_new: Floats) -> Floats:
        values = np.empty(len(tasks))
        values[old] = of_old
        values[new] = of_new
        return values

    return Residuals(
        tasks, column(before.mean, mean), column(before.precision, precision), column(before.memory, np.ones(len(new)))
    )


def _messages(mean: Floats, variance: Floats, evidence: Evidence) -> tuple[Floats, Floats]:
    """Returns `[n]` h and `[n]` L: Normal(mean, variance) x Normal(h, 1 / L) is as if the outcome were known."""
    after, left, _ = after_outcome(mean, variance, evidence.successes, evidence.rollouts)
    left = np.clip(left, MIN_VARIANCE, MAX_VARIANCE_SHARE * variance)
    precision = 1 / left - 1 / variance
    return (after / left - mean / variance) / precision, precision


def _spread_learned(
    log_likelihood: Floats, mean: Floats, variance: Floats, evidence: Evidence, first: NDArray[np.bool_]
) -> Floats:
    """Returns `[6]` log-likelihood of SPREADS after an update, which only tasks without residual tell about."""
    if not first.any():
        return log_likelihood
    shape = (int(first.sum()), len(SPREADS))
    _, _, each = after_outcome(
        np.broadcast_to(mean[first, None], shape),
        variance[first, None] + SPREADS,
        np.broadcast_to(evidence.successes[first, None], shape),
        np.broadcast_to(evidence.rollouts[first, None], shape),
    )
    return np.asarray(SPREAD_MEMORY * log_likelihood + each.sum(0))
