"""The method in its plain O(N) form, straight from its equations: what the core is compared with.

Written without the core and without its idea of strata and deviations: every task has its own alpha and beta, and every
update goes through all of them.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class Oracle:
    """A run over N tasks.

    weak, strong:            `[N]` reference pass rates, NaN: none
    prior_alpha, prior_beta: `[N]`
    """

    weak: Floats
    strong: Floats
    prior_alpha: Floats
    prior_beta: Floats
    forgetting: float = 0.1
    implicit_weight: float = 0.1
    implicit_rollouts: float = 0.0
    capability_smoothing: float = 0.9
    rollouts_per_update: int = 0
    cooldown: int = 0

    kappa: float | None = field(default=None, init=False)
    updates: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.applied_alpha = np.array(self.prior_alpha, np.float64)
        self.applied_beta = np.array(self.prior_beta, np.float64)
        self.last_update = np.full(len(self.prior_alpha), -np.inf)
        self.pending_successes = np.zeros(len(self.prior_alpha))
        self.pending_rollouts = np.zeros(len(self.prior_alpha))

    def report(self, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float]) -> None:
        """Adds outcomes, several of one task among them or not."""
        for i, k, n in zip(tasks, successes, rollouts, strict=True):
            self.pending_successes[i] += k
            self.pending_rollouts[i] += n
        self._apply_pending()

    def change(self, changes: Mapping[str, float]) -> None:
        """Changes hyperparameters, by name; those that only selection reads are ignored."""
        for name, value in changes.items():
            if name in ("forgetting", "implicit_weight", "implicit_rollouts", "capability_smoothing"):
                setattr(self, name, value)
            elif name in ("rollouts_per_update", "cooldown"):
                setattr(self, name, int(value))
        self._apply_pending()

    def copy(self) -> "Oracle":
        """Returns a run that goes on from here by itself."""
        return copy.deepcopy(self)

    @property
    def alpha(self) -> Floats:
        """Returns `[N]`, pending outcomes counted in."""
        return self.applied_alpha + self.pending_successes

    @property
    def beta(self) -> Floats:
        """Returns `[N]`, pending outcomes counted in."""
        return self.applied_beta + self.pending_rollouts - self.pending_successes

    @property
    def cooling(self) -> NDArray[np.bool_]:
        """Returns `[N]` whether the task was evaluated in the last `cooldown` updates, or is pending where any cool."""
        pending = (self.pending_rollouts > 0) & (self.cooldown >= 1)
        return pending | (self.last_update > self.updates - self.cooldown)

    @property
    def implicit_pass_rates(self) -> Floats:
        """Returns `[N]` ~p_i = clip(w_i + kappa (s_i - w_i), 0, 1); NaN: none."""
        if self.kappa is None:
            return np.full(len(self.weak), np.nan)
        return np.clip(self.weak + self.kappa * (self.strong - self.weak), 0, 1)

    def _apply_pending(self) -> None:
        k, n = self.pending_successes, self.pending_rollouts
        evaluated = n > 0
        if not evaluated.any() or n.sum() < self.rollouts_per_update:
            return
        self._interpolate(evaluated & ~np.isnan(self.weak))
        m = self.implicit_rollouts or n[evaluated].mean()
        rates = self.implicit_pass_rates
        known = ~np.isnan(rates)
        implicit_n = np.where(evaluated, n, np.where(known, m, 0))
        implicit_k = np.where(evaluated, k, np.where(known, m * rates, 0))
        lam, rho = self.forgetting, self.implicit_weight
        a, b, a0, b0 = self.applied_alpha, self.applied_beta, self.prior_alpha, self.prior_beta
        self.applied_alpha = (1 - lam) * a + lam * a0 + (1 - rho) * k + rho * implicit_k
        self.applied_beta = (1 - lam) * b + lam * b0 + (1 - rho) * (n - k) + rho * (implicit_n - implicit_k)
        self.updates += 1
        self.last_update = np.where(evaluated, self.updates, self.last_update)
        self.pending_successes, self.pending_rollouts = np.zeros_like(k), np.zeros_like(n)

    def _interpolate(self, referenced: NDArray[np.bool_]) -> None:
        """Moves kappa by the evaluated tasks that have references."""
        if not referenced.any():
            return
        observed = (self.pending_successes[referenced] / self.pending_rollouts[referenced]).mean()
        weak, strong = self.weak[referenced].mean(), self.strong[referenced].mean()
        if abs(strong - weak) < 1e-3:
            return
        kappa_hat = float((observed - weak) / (strong - weak))
        kept = self.capability_smoothing
        self.kappa = kappa_hat if self.kappa is None else kept * self.kappa + (1 - kept) * kappa_hat
