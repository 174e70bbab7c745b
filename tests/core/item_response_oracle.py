"""The item_response model in its plain O(N) form, straight from its equations: what the core is compared with.

Every task has its own row of inputs, residual and variance, and every update goes through all of them. Inverses are
formed as they are written. The equations and their order are those of the prototype from which the model was designed,
with one addition: a residual is forgotten whole when less than 1e-10 of it is left.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, roots_hermitenorm

Floats = NDArray[np.float64]

POINTS, MASS = roots_hermitenorm(21)
MASS = MASS / MASS.sum()
GRID = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Oracle:
    """A run over N tasks.

    references `[N, R]` pass rates, NaN: missing; tag `[N]` below `tags`; features `[N, F]` as given, NaN: missing.
    """

    def __init__(
        self,
        references: NDArray[np.floating],
        tag: Sequence[int],
        tags: int,
        features: NDArray[np.float32],
        drift: float = 0.01,
        rho: float = 0.99,
    ) -> None:
        size, r, f = len(references), references.shape[1], features.shape[1]
        columns = [np.ones(size)]
        for rates in references.T.astype(np.float64):
            logits = np.log(np.clip(rates, 0.03, 0.97)) - np.log1p(-np.clip(rates, 0.03, 0.97))
            columns.append(np.where(np.isnan(rates), np.nanmean(logits) if (rates == rates).any() else 0.0, logits))
        columns += [np.array(tag) == number for number in range(tags)]
        for feature in features.T.astype(np.float64):
            known = feature[~np.isnan(feature)]
            constant = len(known) == 0 or known.std() <= 1e-6 * abs(known.mean())  # to float32's precision
            columns.append(np.zeros(size) if constant else np.nan_to_num((feature - known.mean()) / known.std()))
        self.x = np.stack(columns, 1).astype(np.float32).astype(np.float64)
        kinds = [1, r, tags, f]
        self.m = np.repeat([0.0, 1 / max(r, 1), 0.0, 0.0], kinds)
        self.p = np.diag(np.repeat([4.0, 0.25, 4.0, 10 / max(f, 1)], kinds))
        self.walk = np.diag(np.repeat([1.0, 0.05, 0.25, 0.25 / max(f, 1)], kinds))
        self.drift, self.rho = drift, rho
        self.grid = [-0.5 * np.log(spread / 4) ** 2 for spread in GRID]
        self.s2 = 4.0
        self.d, self.v = np.zeros(size), np.full(size, self.s2)
        self.seen = np.zeros(size, np.bool_)
        self.memory = np.zeros(size)  # product of rho since a task's last outcome

    def _estimate(self) -> float:
        mass = np.exp(np.array(self.grid) - max(self.grid))
        return float(np.exp((mass * np.log(GRID)).sum() / mass.sum()))

    def update(self, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float]) -> None:
        """Applies outcomes of distinct tasks."""
        i, k, n, rho = list(tasks), successes, rollouts, self.rho
        x = self.x[i]
        # Time passes.
        self.p = self.p + self.drift * self.walk
        self.d = rho * self.d
        self.v = rho**2 * self.v + (1 - rho**2) * self.s2
        # A residual of which less than 1e-10 is left is forgotten whole: its task is as if never evaluated.
        self.memory = rho * self.memory
        forgotten = self.seen & (self.memory < 1e-10)
        self.d[forgotten], self.v[forgotten], self.seen[forgotten] = 0.0, self.s2, False
        # s2 is learned from first outcomes, and is the variance of the tasks without outcomes, of no others.
        first = [at for at, task in enumerate(i) if not self.seen[task]]
        if first:
            for number, s2 in enumerate(GRID):
                self.grid[number] *= 0.99
                self.grid[number] += sum(
                    product(x[at] @ self.m, s2 + x[at] @ self.p @ x[at], k[at], n[at])[2] for at in first
                )
            self.s2 = self._estimate()
            self.v[~self.seen] = self.s2
        # Each outcome as a Gaussian message about its logit.
        message, precision = np.empty(len(i)), np.empty(len(i))
        for at, task in enumerate(i):
            e, variance = x[at] @ self.m + self.d[task], self.v[task] + x[at] @ self.p @ x[at]
            after, left, _ = product(e, variance, k[at], n[at])
            left = min(max(left, 1e-3), 0.999 * variance)
            precision[at] = 1 / left - 1 / variance
            message[at] = (after / left - e / variance) / precision[at]
        # Ability and weights.
        r_inverse = np.diag(1 / (1 / precision + self.v[i]))
        self.p = np.linalg.inv(np.linalg.inv(self.p) + x.T @ r_inverse @ x)
        self.m = self.m + self.p @ x.T @ r_inverse @ (message - self.d[i] - x @ self.m)
        # Residuals.
        gain = self.v[i] / (self.v[i] + 1 / precision + np.diag(x @ self.p @ x.T))
        self.d[i] += gain * (message - x @ self.m - self.d[i])
        self.v[i] *= 1 - gain
        self.seen[i], self.memory[i] = True, 1.0

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
    """Returns mean, variance and log normaliser of Normal(mean, variance) x p^k (1 - p)^(n - k)."""
    logits = mean + np.sqrt(variance) * POINTS
    log_mass = np.log(MASS) + k * log_expit(logits) + (n - k) * log_expit(-logits)
    total = np.logaddexp.reduce(log_mass)
    mass = np.exp(log_mass - total)
    after = float(mass @ logits)
    return after, float(mass @ (logits - after) ** 2), float(total)
