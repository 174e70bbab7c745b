"""The method in its plain O(N) form, straight from its equations: what the core is compared with.

Written without the core and without its idea of strata, deviations, bitmaps and a chain of states: every task has its
own alpha and beta, every update goes through all of them, and an update that takes a further part is computed again
from the beginning of what is open.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outcomes = dict[int, tuple[float, float]]  # successes and rollouts by task

OPEN = 16


@dataclass
class Dense:
    """The state of a run over N tasks.

    weak, strong: `[N]` the two ends of interpolation, NaN: none
    alpha, beta:  `[N]` without pending outcomes
    current:      tasks evaluated in this half of rest * N evaluations
    previous:     tasks evaluated in the half before
    """

    weak: Floats
    strong: Floats
    prior_alpha: Floats
    prior_beta: Floats
    alpha: Floats
    beta: Floats
    kappa: float | None = None
    updates: int = 0
    pending: Outcomes = field(default_factory=dict)
    evaluations: int = 0
    ever: set[int] = field(default_factory=set)
    current: set[int] = field(default_factory=set)
    previous: set[int] = field(default_factory=set)
    in_half: int = 0

    def evaluate(self, tasks: Collection[int], rest: float) -> None:
        """Counts evaluations of distinct tasks."""
        self.evaluations += len(tasks)
        self.ever |= set(tasks)
        if rest == 0:
            self.current, self.previous, self.in_half = set(), set(), 0
            return
        self.current |= set(tasks)
        self.in_half += len(tasks)
        if self.in_half >= rest * len(self.alpha) / 2:
            self.current, self.previous, self.in_half = set(), self.current, 0

    def seen(self) -> tuple[Floats, Floats]:
        """Returns `[N]` alpha and beta, pending outcomes counted in."""
        k, n = self._columns()
        return self.alpha + k, self.beta + n - k

    def update(self, given: Mapping[str, float]) -> None:
        """Applies the pending outcomes."""
        k, n = self._columns()
        evaluated = n > 0
        self._interpolate(k, n)
        m = given["implicit_rollouts"] or n[evaluated].mean()
        rates = self.implicit_pass_rates()
        known = ~np.isnan(rates)
        implicit_n = np.where(evaluated, n, np.where(known, m, 0))
        implicit_k = np.where(evaluated, k, np.where(known, m * rates, 0))
        lam, rho = given["forgetting"], given["implicit_weight"]
        self.alpha = (1 - lam) * self.alpha + lam * self.prior_alpha + (1 - rho) * k + rho * implicit_k
        self.beta = (
            (1 - lam) * self.beta + lam * self.prior_beta + (1 - rho) * (n - k) + rho * (implicit_n - implicit_k)
        )
        self.updates += 1
        self.pending = {}

    def implicit_pass_rates(self) -> Floats:
        """Returns `[N]` ~p_i = clip(w_i + kappa (s_i - w_i), 0, 1); NaN: none."""
        if self.kappa is None:
            return np.full(len(self.weak), np.nan)
        return np.clip(self.weak + self.kappa * (self.strong - self.weak), 0, 1)

    def _columns(self) -> tuple[Floats, Floats]:
        """Returns `[N]` pending successes and rollouts, of at most 1024 rollouts a task."""
        k, n = np.zeros(len(self.alpha)), np.zeros(len(self.alpha))
        for task, (successes, rollouts) in self.pending.items():
            n[task] = min(rollouts, 1024)
            k[task] = successes if rollouts <= 1024 else successes / rollouts * 1024
        return k, n

    def _interpolate(self, k: Floats, n: Floats) -> None:
        """Moves kappa by the evaluated tasks that have references."""
        referenced = (n > 0) & ~np.isnan(self.weak)
        if not referenced.any():
            return
        observed = (k[referenced] / n[referenced]).mean()
        weak, strong = self.weak[referenced].mean(), self.strong[referenced].mean()
        span = strong - weak
        omega = min(1.0, (span / 0.1) ** 2)
        if omega == 0 or (self.kappa is None and omega < 1):
            return
        kappa_hat = float(np.clip((observed - weak) / span, -1, 2))
        self.kappa = kappa_hat if self.kappa is None else self.kappa + 0.1 * omega * (kappa_hat - self.kappa)


@dataclass
class Oracle:
    """A run over N tasks: the state before what is open, and the outcomes of each open selection, oldest first."""

    base: Dense
    given: dict[str, float]
    open: list[tuple[str, Outcomes]] = field(default_factory=list)
    retired: set[int] = field(default_factory=set)

    def report(
        self, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float], selection: str = ""
    ) -> None:
        """Adds outcomes, several of one task among them or not."""
        if self.given["rollouts_per_update"] > 0:
            outcomes = _summed({}, tasks, successes, rollouts)
            self.base.evaluate(outcomes.keys() - self.base.pending.keys(), self.given["rest"])
            self.base.pending = _summed(self.base.pending, tasks, successes, rollouts)
            self._settle(self.base)
            return
        for at, (name, outcomes) in enumerate(self.open):
            if selection and name == selection:
                self.open[at] = (name, _summed(outcomes, tasks, successes, rollouts))
                return
        self.open.append((selection, _summed({}, tasks, successes, rollouts)))
        if len(self.open) > OPEN:
            self._apply(self.base, self.open.pop(0)[1])

    def change(self, changes: Mapping[str, float]) -> None:
        """Changes hyperparameters, by name."""
        self.base, self.open = self.now(), []
        self.given = {**self.given, **changes}
        self._settle(self.base)

    def restored(self) -> "Oracle":
        """Returns a run that goes on from here by itself, with nothing open."""
        return Oracle(self.now(), dict(self.given), [], set(self.retired))

    def copy(self) -> "Oracle":
        """Returns a run that goes on from here by itself."""
        return copy.deepcopy(self)

    def now(self) -> Dense:
        """Returns the state after all that is open."""
        state = copy.deepcopy(self.base)
        for _, outcomes in self.open:
            self._apply(state, outcomes)
        return state

    def _apply(self, state: Dense, outcomes: Outcomes) -> None:
        state.evaluate(outcomes.keys(), self.given["rest"])
        state.pending = outcomes
        state.update(self.given)

    def _settle(self, state: Dense) -> None:
        rollouts = sum(n for _, n in state.pending.values())
        if state.pending and rollouts >= self.given["rollouts_per_update"]:
            state.update(self.given)


def oracle(each: Mapping[str, Floats], given: Mapping[str, float]) -> Oracle:
    """Returns a run without evidence: `[N]` weak, strong, prior_alpha, prior_beta (NaN: no reference)."""
    weak, strong = each["weak"], each["strong"]
    low = np.where(np.isnan(weak) & ~np.isnan(strong), 0.0, weak)
    high = np.where(np.isnan(strong) & ~np.isnan(weak), 1.0, strong)
    alpha, beta = (np.array(each[name], np.float64) for name in ("prior_alpha", "prior_beta"))
    return Oracle(Dense(low, high, alpha, beta, alpha, beta), dict(given))


def _summed(before: Outcomes, tasks: Sequence[int], successes: Sequence[float], rollouts: Sequence[float]) -> Outcomes:
    """Returns outcomes with further ones added."""
    after = dict(before)
    for task, k, n in zip(tasks, successes, rollouts, strict=True):
        had_k, had_n = after.get(task, (0.0, 0.0))
        after[task] = (had_k + k, had_n + n)
    return after
