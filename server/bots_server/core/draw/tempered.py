"""Tasks drawn without replacement, with probability proportional to exp(-|p - target| / temperature)."""

import numpy as np

from bots_server.core.arrays import Floats, Ints, blocks
from bots_server.core.draw.eligible import Eligible
from bots_server.core.draw.pool import Pool

_BLOCK = 2**20  # tasks drawn at a time, which bounds memory


class Tempered:
    """Every task has a draw p and a clock E ~ Exponential(1); tasks are ordered by log(E) + |p - target| / temperature.

    That is the order of drawing without replacement with the weights exp(-|p - target| / temperature) (Efraimidis and
    Spirakis 2006; the same as the Gumbel-top-k trick). A task's score is at least log(E). So only tasks with E <= x are
    drawn, for x from small to large, until enough of them have a score below log(x): the number of a range's tasks with
    a clock up to x is Binomial. If the temperature is low, all tasks are drawn in the end.
    """

    def __init__(
        self, rng: np.random.Generator, eligible: Eligible, target: Floats, temperature: float, *, greedy: bool
    ) -> None:
        """`target`: `[E]` of each entity, or `[1]`. With `greedy`, p is the posterior mean in place of a draw."""
        self._alpha, self._beta = eligible.alpha_beta()
        self._parts = eligible.parts
        self._target = np.broadcast_to(target, len(eligible))
        self._temperature = max(temperature, 1e-300)  # a lower one has the same order, but overflows
        self._greedy = greedy
        self._left = eligible.total
        self._clock = np.zeros(len(self._left))
        self._silent = eligible.count()
        self._pool = Pool(self._parts)

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw (NaN with `greedy`) of the next tasks by part, `wanted[part]` of each or fewer."""
        moving = (wanted > 0) & (self._left > 0)
        # First as far as is enough if all tasks are at the target, then four times as far each time.
        with np.errstate(divide="ignore", invalid="ignore"):
            start = wanted / self._left
        clock = np.where(self._clock > 0, 4 * self._clock, start)
        clock[(clock > 0.5) & moving] = np.inf
        clock = np.where(moving, np.maximum(clock, self._clock), self._clock)
        self._draw(rng, clock)
        bound = np.full(len(wanted), -np.inf)
        for part in np.flatnonzero(moving):
            bound[part] = np.log(clock[part])
            if np.isinf(clock[part]) and wanted[part] < self._left[part]:
                bound[part] = self._pool.score(int(part), int(wanted[part]))
        entity, p = self._pool.pop(rng, bound)
        self._left = self._left - self._parts.count(entity)
        return entity, np.full(len(p), np.nan) if self._greedy else p

    def _draw(self, rng: np.random.Generator, clock: Floats) -> None:
        """Adds the tasks whose clock is between the parts' clocks so far and `clock` to the pool."""
        step = np.where(clock > self._clock, clock, 0.0) - np.where(clock > self._clock, self._clock, 0.0)
        share = -np.expm1(-step)
        drawn = rng.binomial(self._silent, self._parts.each(share))
        self._silent -= drawn
        entity = np.repeat(np.arange(len(drawn)), drawn)
        score, p = np.empty(len(entity)), np.empty(len(entity))
        for block in blocks(len(entity), _BLOCK):
            each = entity[block]
            alpha, beta = self._alpha.take(each), self._beta.take(each)
            p[block] = alpha / (alpha + beta) if self._greedy else rng.beta(alpha, beta)
            passed, chance = self._parts.each(self._clock, each), self._parts.each(share, each)
            time = passed - np.log1p(-rng.random(len(each)) * chance)
            with np.errstate(divide="ignore"):
                score[block] = np.log(time) + np.abs(p[block] - self._target.take(each)) / self._temperature
        self._pool.add(entity, score, p)
        self._clock = clock
