"""The item_response model in its plain O(N) form, straight from its equations: what the core is compared with.

Every task has its own row of inputs, residual and variance, and every update goes through all of them. Nothing is
dropped, inverses are formed as they are written, and integrals are done task by task in extended precision.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, roots_hermitenorm

Floats = NDArray[np.float64]

POINTS, MASS = roots_hermitenorm(21)
MASS = MASS / MASS.sum()
GRID = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Oracle:
    """A run over N tasks.

    references `[N, R]` pass rates, NaN: missing; tags `[N]`; features `[N, F]` as given, NaN: missing.
    """

    def __init__(
        self,
        references: NDArray[np.float32],
        tags: Sequence[int] | None,
        features: NDArray[np.float32],
        drift: float = 0.01,
        rho: float = 0.99,
    ) -> None:
        size, r, f = len(references), references.shape[1], features.shape[1]
        columns = [np.ones(size)]
        for rates in references.T.astype(np.float64):
            logits = np.log(np.clip(rates, 0.03, 0.97)) - np.log1p(-np.clip(rates, 0.03, 0.97))
            columns.append(np.where(np.isnan(rates), np.nanmean(logits) if (rates == rates).any() else 0.0, logits))
        t = 0 if tags is None else max(tags) + 1
        columns += [np.array(tags) == tag for tag in range(t)]
        for feature in features.T.astype(np.float64):
            known = feature[~np.isnan(feature)]
            constant = len(known) == 0 or known.std() == 0
            columns.append(np.zeros(size) if constant else np.nan_to_num((feature - known.mean()) / known.std()))
        self.x = np.stack(columns, 1).astype(np.float32).astype(np.float64)
        kinds = [1, r, t, f]
        self.m = np.repeat([0.0, 1 / max(r, 1), 0.0, 0.0], kinds)
        self.p = np.diag(np.repeat([4.0, 0.25, 1.0, 1 / max(f, 1)], kinds))
        self.q = drift * np.diag(np.repeat([1.0, 0.05, 0.25, 0.25 / max(f, 1)], kinds))
        self.rho = rho
        self.grid = [-0.5 * np.log(spread / 4) ** 2 for spread in GRID]
        self.s2 = self._estimate()
        self.d, self.v = np.zeros(size), np.full(size, self.s2)
        self.left = np.zeros(size)  # of the memory of a task's newest outcome

    def _estimate(self) -> float:
        mass = np.exp(np.array(self.grid) - max(self.grid))
        return float(np.exp((mass * np.log(GRID)).sum() / mass.sum()))

    def update(self, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float]) -> None:
        """Applies outcomes of distinct tasks."""
        x, rho = self.x[list(tasks)], self.rho
        self.p = self.p + self.q
        self.d = rho * self.d
        self.v = rho**2 * self.v + (1 - rho**2) * self.s2
        self.left = rho * self.left
        self._learn_spread(tasks, successes, rollouts)
        message, precision = np.empty(len(tasks)), np.empty(len(tasks))
        for at, (i, k, n) in enumerate(zip(tasks, successes, rollouts, strict=True)):
            mean = x[at] @ self.m + self.d[i]
            variance = self.v[i] + x[at] @ self.p @ x[at]
            after, left, _ = product(mean, variance, k, n)
            left = min(max(left, 1e-3), 0.999 * variance)
            precision[at] = 1 / left - 1 / variance
            message[at] = (after / left - mean / variance) / precision[at]
        d, v = self.d[list(tasks)], self.v[list(tasks)]
        r_inverse = np.diag(1 / (1 / precision + v))
        self.p = np.linalg.inv(np.linalg.inv(self.p) + x.T @ r_inverse @ x)
        self.m = self.m + self.p @ x.T @ r_inverse @ (message - d - x @ self.m)
        for at, i in enumerate(tasks):
            gain = v[at] / (v[at] + 1 / precision[at] + x[at] @ self.p @ x[at])
            self.d[i] += gain * (message[at] - x[at] @ self.m - self.d[i])
            self.v[i] *= 1 - gain
            self.left[i] = 1.0

    def _learn_spread(self, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float]) -> None:
        """Weighs s2 by the first outcomes of tasks, and puts the new s2 into the variance of every residual."""
        first = [at for at, i in enumerate(tasks) if self.left[i] < 1e-10]
        if not first:
            return
        for number, spread in enumerate(GRID):
            self.grid[number] *= 0.99
            for at in first:
                x = self.x[tasks[at]]
                self.grid[number] += product(x @ self.m, spread + x @ self.p @ x, successes[at], rollouts[at])[2]
        before, self.s2 = self.s2, self._estimate()
        self.v = 1 / (1 / self.v + 1 / self.s2 - 1 / before)

    def alpha_beta(self) -> tuple[Floats, Floats]:
        """Returns `[N]` alpha and `[N]` beta."""
        mean = self.x @ self.m + self.d
        variance = self.v + np.diag(self.x @ self.p @ self.x.T)
        return beta_of(mean, variance)


def beta_of(mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Returns alpha and beta of the Betas with the moments of the logit-normal."""
    logits = mean[:, None].astype(np.longdouble) + np.sqrt(variance)[:, None].astype(np.longdouble) * POINTS
    p = 1 / (1 + np.exp(-logits))
    first = (p * MASS).sum(1)
    second = ((p - first[:, None]) ** 2 * MASS).sum(1)
    count = np.maximum(first * (1 - first) / np.maximum(second, 1e-9) - 1, 0.05)
    alpha, beta = np.maximum(first * count, 0.02), np.maximum((1 - first) * count, 0.02)
    return alpha.astype(np.float64), beta.astype(np.float64)


def product(mean: float, variance: float, k: float, n: float) -> tuple[float, float, float]:
    """Returns mean, variance and log normaliser of Normal(mean, variance) x p^k (1 - p)^(n - k), about its mode."""

    def slope(logit: float) -> float:
        return float(k - n * expit(logit) - (logit - mean) / variance)

    mode = brentq(slope, mean - variance * (n - k) - 1, mean + variance * k + 1, xtol=1e-13, rtol=1e-14)
    width = (n * expit(mode) * expit(-mode) + 1 / variance) ** -0.5
    logits = mode + width * POINTS
    log_density = -((logits - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)
    log_density += k * log_expit(logits) + (n - k) * log_expit(-logits)
    log_mass = log_density + POINTS**2 / 2 + np.log(MASS * np.sqrt(2 * np.pi) * width)
    total = np.logaddexp.reduce(log_mass)
    mass = np.exp(log_mass - total)
    after = float(mass @ logits)
    return after, float(mass @ (logits - after) ** 2), float(total)
