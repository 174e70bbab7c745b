"""The rivals: both models in plain numpy over all N tasks, in the trainer's own process, written for speed.

As a trainer would write them who knows numpy well: one Beta draw a task, a partial sort, updates in place, block by
block so that a block stays in the processor's cache. The prior is 1, 1.
"""

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from bots_server.core.item_response.moments import after_outcome

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 2**14  # tasks; six arrays of them fit the second level cache
_FORGETTING, _IMPLICIT_WEIGHT, _TARGET = 0.1, 0.1, 0.5
_MEMORY, _DRIFT, _SPREAD_MEMORY = 0.99, 0.01, 0.99
_SPREADS = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
_NODES, _WEIGHTS = hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def nearest(rng: np.random.Generator, alpha: Floats, beta: Floats, batch_size: int) -> Ints:
    """Returns the tasks whose draws are nearest to the target."""
    distance = rng.beta(alpha, beta)
    distance -= _TARGET
    np.abs(distance, out=distance)
    return distance.argpartition(batch_size)[:batch_size]


class PlainInterpolation:
    """A run of interpolation over N tasks.

    alpha, beta: `[N]`
    weak, span:  `[N]` reference pass rate of the weak model, and strong - weak; None: the tasks have no references
    capability:  None: not known yet
    """

    def __init__(self, alpha: Floats, beta: Floats, weak: Floats | None, strong: Floats | None) -> None:
        self.alpha, self.beta = alpha, beta
        self.weak = weak
        self.span = None if weak is None or strong is None else strong - weak
        self.capability: float | None = None
        self._buffer = np.empty(_BLOCK)

    def select(self, rng: np.random.Generator, batch_size: int) -> Ints:
        """Returns the tasks whose draws are nearest to the target."""
        return nearest(rng, self.alpha, self.beta, batch_size)

    def update(self, tasks: Ints, successes: Floats, rollouts: Floats) -> None:
        """Applies the outcomes of distinct tasks, and the implicit evidence of all others."""
        amount = 0.0
        if self.weak is not None and self.span is not None:
            low, span = self.weak[tasks].mean(), self.span[tasks].mean()
            trust = min(1.0, (span / 0.1) ** 2)
            if trust == 1 or (trust > 0 and self.capability is not None):
                seen = float(np.clip(((successes / rollouts).mean() - low) / span, -1, 2))
                before = seen if self.capability is None else self.capability
                self.capability = before + 0.1 * trust * (seen - before)
            amount = _IMPLICIT_WEIGHT * float(rollouts.mean())
        if self.capability is None or self.weak is None or self.span is None:
            for column in (self.alpha, self.beta):
                column *= 1 - _FORGETTING
                column += _FORGETTING
            implicit, amount = np.zeros(len(tasks)), 0.0
        else:
            for start in range(0, len(self.alpha), _BLOCK):
                block = slice(start, start + _BLOCK)
                self._decay(self.alpha[block], self.beta[block], self.weak[block], self.span[block], amount)
            rates = self.weak[tasks] + self.capability * self.span[tasks]
            implicit = amount * np.clip(rates, 0.0, 1.0)
        # The implicit evidence of the evaluated tasks is their own outcome.
        self.alpha[tasks] += successes - implicit
        self.beta[tasks] += rollouts - successes - (amount - implicit)

    def _decay(self, alpha: Floats, beta: Floats, weak: Floats, span: Floats, amount: float) -> None:
        """Decays a block and adds its implicit evidence, in place."""
        assert self.capability is not None
        implicit = np.multiply(span, self.capability, out=self._buffer[: len(alpha)])
        implicit += weak
        np.maximum(implicit, 0.0, out=implicit)
        np.minimum(implicit, 1.0, out=implicit)
        implicit *= amount
        alpha *= 1 - _FORGETTING
        alpha += implicit
        alpha += _FORGETTING
        beta *= 1 - _FORGETTING
        beta -= implicit
        beta += amount + _FORGETTING


class PlainItemResponse:
    """A run of item_response over N tasks.

    x:              `[N, d]` inputs
    mean:           `[d]` of the ability and the weights, and their covariance `[d, d]`
    walk:           `[d]` variance that an update adds
    residual:       `[N]` mean of each task's own difficulty, and its variance `[N]`
    seen:           `[N]` whether the task was evaluated
    log_likelihood: `[6]` of the spreads of residuals
    """

    def __init__(
        self, x: Floats, mean: Floats, covariance: Floats, walk: Floats, log_likelihood: Floats, spread: float
    ) -> None:
        self.x, self.mean, self.covariance = x, mean, covariance
        self.walk = np.diag(_DRIFT * walk)
        self.log_likelihood, self.spread = log_likelihood, spread
        self.residual, self.variance = np.zeros(len(x)), np.full(len(x), spread)
        self.seen = np.zeros(len(x), np.bool_)

    def select(self, rng: np.random.Generator, batch_size: int) -> Ints:
        """Returns the tasks whose draws are nearest to the target."""
        return nearest(rng, *self.alpha_beta(), batch_size)

    def alpha_beta(self) -> tuple[Floats, Floats]:
        """Returns `[N]` alpha and `[N]` beta: the moments of each task's pass rate."""
        alpha, beta = np.empty(len(self.x)), np.empty(len(self.x))
        for start in range(0, len(self.x), _BLOCK // 8):
            block = slice(start, start + _BLOCK // 8)
            x = self.x[block]
            mean = x @ self.mean + self.residual[block]
            variance = self.variance[block] + ((x @ self.covariance) * x).sum(1)
            rates = 1 / (1 + np.exp(-mean - np.multiply.outer(_NODES, np.sqrt(variance))))
            first = _WEIGHTS @ rates
            rates -= first
            rates *= rates
            count = np.maximum(first * (1 - first) / np.maximum(_WEIGHTS @ rates, 1e-9) - 1, 0.05)
            alpha[block], beta[block] = np.maximum(first * count, 0.02), np.maximum((1 - first) * count, 0.02)
        return alpha, beta

    def update(self, tasks: Ints, successes: Floats, rollouts: Floats) -> None:
        """Applies the outcomes of distinct tasks."""
        self.covariance = self.covariance + self.walk
        self.residual *= _MEMORY
        self.variance *= _MEMORY**2
        self.variance += (1 - _MEMORY**2) * self.spread
        x = self.x[tasks]
        self._learn_spread(x, successes, rollouts, ~self.seen[tasks])
        own, before = self.variance[tasks], self.residual[tasks]
        mean, variance = x @ self.mean + before, own + ((x @ self.covariance) * x).sum(1)
        after, left, _ = after_outcome(mean, variance, successes, rollouts)
        left = np.clip(left, 1e-3, 0.999 * variance)
        precision = 1 / left - 1 / variance
        message = (after / left - mean / variance) / precision
        noise = 1 / precision + own
        self.covariance = np.linalg.inv(np.linalg.inv(self.covariance) + (x / noise[:, None]).T @ x)
        self.mean = self.mean + self.covariance @ (x.T @ ((message - before - x @ self.mean) / noise))
        gain = own / (own + 1 / precision + ((x @ self.covariance) * x).sum(1))
        self.residual[tasks] += gain * (message - x @ self.mean - before)
        self.variance[tasks] = own * (1 - gain)
        self.seen[tasks] = True

    def _learn_spread(self, x: Floats, successes: Floats, rollouts: Floats, first: NDArray[np.bool_]) -> None:
        """Weighs the spreads by first outcomes; the new estimate is the variance of the tasks without outcomes."""
        if not first.any():
            return
        x = x[first]
        shape = len(x), len(_SPREADS)
        explained = ((x @ self.covariance) * x).sum(1)
        columns = x @ self.mean, successes[first], rollouts[first]
        mean, k, n = (np.broadcast_to(column[:, None], shape) for column in columns)
        _, _, each = after_outcome(mean, explained[:, None] + _SPREADS, k, n)
        self.log_likelihood = _SPREAD_MEMORY * self.log_likelihood + each.sum(0)
        weight = np.exp(self.log_likelihood - self.log_likelihood.max())
        self.spread = float(np.exp(weight @ np.log(_SPREADS) / weight.sum()))
        self.variance[~self.seen] = self.spread
