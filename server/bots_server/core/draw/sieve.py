"""Tasks in the order of the distance of their draws from a target, if every task has a logit-normal posterior."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logit

from bots_server.core.arrays import Floats, Ints, blocks
from bots_server.core.draw.eligible import Eligible
from bots_server.core.draw.envelope import envelope
from bots_server.core.draw.pool import Pool
from bots_server.core.item_response.moments import matching_beta
from bots_server.core.posterior import alpha_beta
from bots_server.core.state import all_individual, rough_logits

Rough = NDArray[np.float32]

# A height bounds the density of a draw within this distance of the target.
REACH = 1 / 32

# The table of heights: the logarithm of the logit's variance by the standard score of the target. A height of a cell is
# the highest at its corners with a margin, for what is higher between them and the error of rough logits, and at least
# _LEAST, as densities near 0 change too much from corner to corner.
_LOG_VARIANCE = np.arange(-3.5, 2.8, 0.125)
_SCORE = np.arange(-12, 12.01, 0.125)
_MARGIN, _LEAST = 1.05, 1e-12
_MAX_LOGIT = 15.0  # beyond, the bounds of `matching_beta` bend the heights

_MIN_TASKS = 64  # for each task wanted: of fewer, all are drawn
_BLOCK = 2**14


def sifting_pays(eligible: Eligible, target: float, wanted: Ints) -> bool:
    """Returns whether `Sieve` can order the tasks, and in less time than it takes to draw all of them."""
    individual = all_individual(eligible.tasks, eligible.posterior.model)
    return individual and 0.1 <= target <= 0.9 and len(eligible) >= _MIN_TASKS * int(wanted.sum())


class Sieve:
    """Every task has a draw p ~ Beta(alpha, beta); tasks are ordered by |p - target|, ties at random.

    A task whose density near the target is at most h is a candidate at the distance u / 2h, on either side, for u
    uniform in (0, 1), and is kept there with probability density / h. The kept candidates have the distribution of the
    draws near the target (thinning, see `envelope`). h comes from a table, by the rough mean and variance of the task's
    logit; alpha and beta are computed for candidates alone. Tasks outside the table are drawn at once, and all others
    if more are wanted than are near.
    """

    def __init__(self, rng: np.random.Generator, eligible: Eligible, target: float) -> None:
        """`target` in [0.1, 0.9]."""
        self._eligible, self._target, self._parts = eligible, target, eligible.parts
        logits = rough_logits(eligible.posterior.state, eligible.tasks)
        every = len(eligible) == len(eligible.tasks)
        mean, variance = logits if every else (column.take(eligible.own) for column in logits)
        self._height = heights(target, mean, variance)  # `[E]`; infinite: outside the table
        self._distance = np.empty(len(mean), np.float32)  # `[E]`; -1: the draw is known
        for block in blocks(len(mean), _BLOCK):
            self._distance[block] = rng.random(len(mean[block])) / (2 * self._height[block])
        outside = np.isinf(self._height)
        near = np.where(outside, np.float32(0), self._height)
        self._furthest = min(REACH, 0.25 / max(float(near.max(initial=0)), 1.0))
        self._rate = 2 * self._parts.sum(near.astype(np.float64))  # candidates by distance
        self._left = eligible.total
        self._radius = np.zeros(len(self._left))  # draws up to here are known
        self._pool = Pool(self._parts)
        self._draw(rng, np.flatnonzero(outside))

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wanted[part]` of each, fewer or more by chance."""
        moving = (wanted > 0) & (self._left > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            outer = np.where(moving, self._radius + wanted / self._rate, self._radius)
        ends = moving & (outer > self._furthest)
        outer[ends] = self._radius[ends]
        inner, upto = (self._parts.each(radius) for radius in (self._radius, outer))
        self._keep(rng, np.flatnonzero((self._distance > inner) & (self._distance <= upto)))
        if ends.any():
            rest = np.flatnonzero(self._distance >= 0)
            rest = rest[np.broadcast_to(self._parts.each(ends, rest), len(rest))]
            self._draw(rng, rest)
            outer[ends] = np.inf
        self._radius = outer
        bound = np.where(moving, outer, -np.inf)
        for part in np.flatnonzero(moving & np.isinf(outer) & (wanted < self._left)):
            bound[part] = self._pool.score(int(part), int(wanted[part]))
        entity, p = self._pool.pop(rng, bound)
        self._left = self._left - self._parts.count(entity)
        return entity, p

    def _keep(self, rng: np.random.Generator, entity: Ints) -> None:
        """Adds candidates to the pool, each with the probability that it is a draw."""
        distance = self._distance.take(entity).astype(np.float64)
        p = self._target + np.where(rng.random(len(entity)) < 0.5, -distance, distance)
        alpha, beta = self._alpha_beta(entity)
        log_density = (alpha - 1) * np.log(p) + (beta - 1) * np.log1p(-p) - betaln(alpha, beta)
        kept = log_density - np.log(self._height.take(entity)) > -rng.standard_exponential(len(entity))
        self._distance[entity[kept]] = -1
        self._pool.add(entity[kept], distance[kept], p[kept])

    def _draw(self, rng: np.random.Generator, entity: Ints) -> None:
        """Adds a draw of each entity to the pool, further from the target than candidates were kept so far."""
        alpha, beta = self._alpha_beta(entity)
        p = rng.beta(alpha, beta)
        radius = np.broadcast_to(self._parts.each(self._radius, entity), len(entity))
        again = np.flatnonzero(np.abs(p - self._target) <= radius)
        while len(again) and radius.any():  # each time at least half of them end, as 2h * radius <= 1 / 2
            p[again] = rng.beta(alpha.take(again), beta.take(again))
            again = again[np.abs(p.take(again) - self._target) <= radius.take(again)]
        self._distance[entity] = -1
        self._pool.add(entity, np.abs(p - self._target), p)

    def _alpha_beta(self, entity: Ints) -> tuple[Floats, Floats]:
        of = self._eligible
        return alpha_beta(of.posterior, of.tasks, of.own.take(entity))


def heights(target: float, mean: Rough, variance: Rough) -> Rough:
    """Returns an upper bound of the density of each pass rate within REACH of the target; infinite: not in the table.

    mean, variance: `[n]` of the logits, exact to one in 10^5
    """
    table, center = _table(target), np.array(logit(target), np.float32)
    found = np.empty(len(mean), np.float32)
    for block in blocks(len(mean), _BLOCK):
        score = np.asarray((mean[block] - center) / np.sqrt(variance[block]), np.float32)
        column = _place(score, _SCORE)
        column += table.shape[1] * _place(np.log(variance[block]), _LOG_VARIANCE)
        height = table.take(column.astype(np.int64))
        height[np.abs(mean[block]) > _MAX_LOGIT] = np.inf
        found[block] = height
    return found


def _place(values: Rough, grid: Floats) -> Rough:
    """Returns the cell of each value, counted from 1; 0 or the number of the grid's points if it is outside."""
    place = np.floor((values - np.float32(grid[0])) * np.float32(1 / (grid[1] - grid[0])))
    return np.asarray(np.clip(place, -1, len(grid) - 1) + 1)


@lru_cache(maxsize=64)
def _table(target: float) -> Rough:
    """Returns the heights by the cells of _LOG_VARIANCE and _SCORE, with an infinite one on every side."""
    variance, score = (grid.ravel() for grid in np.meshgrid(np.exp(_LOG_VARIANCE), _SCORE, indexing="ij"))
    alpha, beta = matching_beta(logit(target) + score * np.sqrt(variance), variance)
    reach = np.full(len(alpha), REACH)
    highest = envelope(target, alpha, beta, betaln(alpha, beta), -reach, reach).mass / (2 * REACH)
    corners = np.full((len(_LOG_VARIANCE) + 2, len(_SCORE) + 2), np.inf)
    corners[1:-1, 1:-1] = highest.reshape(len(_LOG_VARIANCE), len(_SCORE))
    rows = np.maximum(corners[1:], corners[:-1])
    return np.asarray(np.maximum(_MARGIN * np.maximum(rows[:, 1:], rows[:, :-1]), _LEAST), np.float32)
