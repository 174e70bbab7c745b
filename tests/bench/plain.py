"""The rival: the method in plain numpy over all N tasks, in the trainer's own process, written for speed.

As a trainer would write it who knows numpy well: one alpha and one beta for each task, one Beta draw a task, a partial
sort, updates in place, block by block so that a block stays in the processor's cache. The prior is 1, 1.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 2**14  # tasks; six arrays of them fit the second level cache
_FORGETTING, _IMPLICIT_WEIGHT, _SMOOTHING, _TARGET = 0.1, 0.1, 0.9, 0.5


class Plain:
    """A run over N tasks.

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
        distance = rng.beta(self.alpha, self.beta)
        distance -= _TARGET
        np.abs(distance, out=distance)
        return distance.argpartition(batch_size)[:batch_size]

    def update(self, tasks: Ints, successes: Floats, rollouts: Floats) -> None:
        """Applies the outcomes of distinct tasks, and the implicit evidence of all others."""
        amount = 0.0
        if self.weak is not None and self.span is not None:
            low, span = self.weak[tasks].mean(), self.span[tasks].mean()
            if abs(span) >= 1e-3:
                seen = float(((successes / rollouts).mean() - low) / span)
                before = self.capability
                self.capability = seen if before is None else _SMOOTHING * before + (1 - _SMOOTHING) * seen
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
