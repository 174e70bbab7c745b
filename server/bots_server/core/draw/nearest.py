"""Tasks in the order of the distance of their draws from a target, the nearest first."""

from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv

from bots_server.core.arrays import Bools, Floats, Ints, blocks
from bots_server.core.draw.envelope import Envelope, density, envelope, log_norm_bound, propose
from bots_server.core.draw.pool import Parts, Pool

# Costs in nanoseconds, as measured: of a task drawn at once, of an entity whose draws are counted (times a factor if
# its density has a pole), and of a counted draw. Only their ratios matter, and only to the time of a selection.
_OWN_COST, _RANGE_COST, _POLE_FACTOR, _CAUGHT_COST = 60, 70, 3, 600

# Entities computed at a time. Larger temporary arrays are allocated page by page, at several times the cost.
_BLOCK = 2**13

# The distance within which draws are counted for the first guess of a radius.
_NEAR = 0.1

# Rounds of rejection, of which the first few are enough as a rule. In the extreme, where floats have no digits left for
# a density, no draw might ever be accepted.
_MOST_REJECTIONS = 1_000

# A ring is good if the expected number of tasks in it is between these multiples of the number wanted. A larger ring
# is waste, a smaller one needs another ring.
_LEAST, _MOST = 0.6, 4


class Nearest:
    """Every task has a draw p ~ Beta(alpha, beta); tasks are ordered by |p - target|, ties at random.

    Entities that are too small for counting to pay are drawn at once. Of the others only the draws in a ring around the
    target are made, then in the next ring outside it, and so on: see `envelope`. Each of an entity's n tasks proposes a
    point of the first ring with probability q1, of the second with q2, ... (a task that has not proposed yet is
    "silent"). A task without a kept proposal is outside all rings so far. When q1 + q2 + ... comes near 1, the rest of
    the entity is drawn at once, rejecting draws that are inside the rings.

    A radius depends on the posterior and on earlier draws, never on draws beyond it.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        alpha: Floats,
        beta: Floats,
        count: Ints,
        parts: Parts,
        target: float,
        wanted: Ints,
    ) -> None:
        """Draws at once what is cheaper to draw than to count.

        alpha, beta, count: `[E]` of the entities, `count` their numbers of tasks
        wanted:             `[P]` about how many tasks of each part will be revealed; it decides what is drawn at once
        """
        # Near 1 floats are coarse. In 1 - p the same distances are exact.
        self._mirrored = target > 0.5
        self._target = 1 - target if self._mirrored else target
        self._alpha, self._beta = (beta, alpha) if self._mirrored else (alpha, beta)
        self._parts = parts
        self._outermost = 1 - self._target
        self._radius = np.full(len(wanted), -1.0)  # draws up to here are revealed
        self._left = parts.sum(count).astype(np.int64)
        self._popped = np.zeros(len(wanted), np.int64)

        caught = self._parts.each(wanted / np.maximum(self._left, 1))
        saved = count * (_OWN_COST - _CAUGHT_COST * caught)
        large = saved > _RANGE_COST
        if min(alpha.min(initial=1.0), beta.min(initial=1.0)) < 1:
            large &= (saved > _RANGE_COST * _POLE_FACTOR) | ((alpha >= 1) & (beta >= 1))
        self._pool = Pool(self._parts)
        outright = (~large).nonzero()[0]
        self._draw(rng, outright, count.take(outright))
        # `[E]`, the entities whose draws are counted.
        self._counted = large.nonzero()[0]
        self._outside = count.take(self._counted)  # tasks not drawn yet
        self._silent = self._outside.copy()  # tasks that have not proposed yet
        self._counting = np.ones(len(self._counted), np.bool_)  # not all drawn
        self._spent = np.zeros(len(self._counted))  # q1 + q2 + ...
        self._log_norm = np.empty(len(self._counted))
        for block in blocks(len(self._counted), _BLOCK):
            entity = self._counted[block]
            self._log_norm[block] = log_norm_bound(self._alpha.take(entity), self._beta.take(entity))

    def reveal(self, rng: np.random.Generator, wanted: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wanted[part]` of each, fewer or more by chance."""
        moving = (wanted > 0) & (self._left > 0)
        outer = np.where(moving, self._first_guess(wanted), self._radius)
        ring = self._ring(outer)
        expected = self._pool.waiting(np.where(moving, outer, -np.inf)) + self._parts.sum(
            ring.expected, self._counted.take(ring.range)
        )
        off = moving & ((expected > _MOST * wanted) | ((expected < _LEAST * wanted) & (outer < self._outermost)))
        if off.any():
            for part in off.nonzero()[0]:
                outer[part] = self._search(int(part), outer[part], int(wanted[part]))
            ring = self._ring(outer)
        self._catch(rng, ring)
        entity, offset = self._pool.pop(rng, np.where(moving, outer, -np.inf))
        self._radius = outer
        popped = self._parts.count(entity)
        self._popped += popped
        self._left = self._left - popped
        p = np.minimum(np.maximum(self._target + offset, 0.0), 1.0)
        return entity, 1 - p if self._mirrored else p

    def reached(self) -> Floats:
        """Returns `[P]` the distance up to which every draw of each part is revealed; infinite if no task is left."""
        return np.where(self._left > 0, self._radius, np.inf)

    def _first_guess(self, wanted: Ints) -> Floats:
        """Returns `[P]` radii that hold `wanted[part]` more tasks if the density is the same everywhere."""
        counted = self._counted
        if self._popped.any():
            radius = np.maximum(self._radius, 0.0)
            guess = radius + radius * (wanted / np.maximum(self._popped, 1))
        else:
            at_target = np.zeros(len(wanted))
            for block in blocks(len(counted), _BLOCK):
                entity = counted[block]
                alpha, beta = self._alpha.take(entity), self._beta.take(entity)
                densities = density(self._target, alpha, beta, self._log_norm[block])
                at_target += self._parts.sum(self._silent[block] * densities, entity)
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                drawn = self._pool.waiting(np.full(len(wanted), _NEAR)) / (min(_NEAR, self._target) + _NEAR)
                width = wanted / (at_target + drawn)
            guess = np.where(width <= 2 * self._target, width / 2, width - self._target)
        useless = ~(guess > np.maximum(self._radius, 0.0)) | (guess > self._outermost) | (wanted >= self._left)
        return np.where(useless, self._outermost, guess)

    def _search(self, part: int, guess: float, wanted: int) -> float:
        """Returns the radius of a good ring for one part."""
        waiting = self._pool.scores(part)
        counted = self._parts.within(self._counted, part)
        inner = max(float(self._radius[part]), 0.0)
        radii = self._radius.copy()

        def expected(radius: float) -> float:
            radii[part] = radius
            return float(np.count_nonzero(waiting <= radius) + self._ring(radii, counted).expected.sum())

        # Secant steps for log(expected) as a function of the logarithm of the ring's width, between bounds: expected is
        # too small at `below` and too large at `above`. A poor radius costs time, nothing else.
        aim, widest = np.log(2.0 * wanted), float(np.log(self._outermost - inner))

        def radius(at: float) -> float:
            return self._outermost if at >= widest else inner + float(np.exp(at))

        below, above = (-np.inf, -np.inf), (np.inf, np.inf)
        at, leap = min(float(np.log(guess - inner)), widest), 1.0
        for _ in range(100):
            found = expected(radius(at))
            if _LEAST * wanted <= found <= _MOST * wanted:
                break
            excess = float(np.log(max(found, 1e-300)) - aim)
            below, above = (below, (at, excess)) if excess > 0 else ((at, excess), above)
            if above[0] - below[0] < 1e-9:
                at = above[0]
                break
            if np.isinf(below[0]) or np.isinf(above[0]):
                at, leap = at - leap * excess, 2 * leap
            else:
                share = below[1] / (below[1] - above[1])
                at = below[0] + (above[0] - below[0]) * min(max(share, 0.1), 0.9)
            at = min(at, widest)
        return radius(at)

    def _ring(self, outer: Floats, among: Bools | None = None) -> "_Ring":
        """Returns the ring between the radius and `outer[part]`, for the parts in which it has a width."""
        chosen = self._counting & self._parts.each(outer > self._radius, self._counted)
        ranges = (chosen if among is None else chosen & among).nonzero()[0]
        entity = self._counted.take(ranges)
        inner = np.full(len(ranges), self._parts.each(np.maximum(self._radius, 0.0), entity))
        out = np.full(len(ranges), self._parts.each(outer, entity))
        mass = np.empty(len(ranges))
        for block in blocks(len(ranges), _BLOCK):
            windows = self._windows(ranges[block], inner[block], out[block])
            mass[block] = windows.mass if len(windows.mass) == len(out[block]) else windows.mass.reshape(2, -1).sum(0)
        mass[out >= self._outermost] = np.inf  # the last ring: all tasks left are in it
        chance = np.minimum(mass / (1 - self._spent.take(ranges)), 1.0)
        return _Ring(ranges, inner, out, mass, chance, chance * self._silent.take(ranges))

    def _windows(self, ranges: Ints, inner: Floats, outer: Floats) -> Envelope:
        """Returns envelopes of the windows between radii: all those left of the target, then all those right of it, or
        one for both if the ring begins at the target."""
        left, right = self._target, self._outermost  # the furthest to either side
        entity = self._counted.take(ranges)
        if not inner.any():
            low, high = -np.minimum(outer, left), np.minimum(outer, right)
        else:
            low = np.concatenate((-np.minimum(outer, left), np.minimum(inner, right)))
            high = np.concatenate((-np.minimum(inner, left), np.minimum(outer, right)))
            entity, ranges = np.tile(entity, 2), np.tile(ranges, 2)
        alpha, beta = self._alpha.take(entity), self._beta.take(entity)
        return envelope(self._target, alpha, beta, self._log_norm.take(ranges), low, high)

    def _catch(self, rng: np.random.Generator, ring: "_Ring") -> None:
        """Adds all draws in the ring to the pool, and possibly further ones."""
        loose = ring.chance > 0.5
        chance = np.where(loose, 0.0, ring.chance)
        found = [
            block.start + _proposers(rng, self._silent.take(ring.range[block]), chance[block])
            for block in blocks(len(chance), _BLOCK)
        ]
        which = np.concatenate(found) if found else np.empty(0, np.int64)
        windows = self._windows(ring.range.take(which), ring.inner.take(which), ring.outer.take(which))
        window = np.arange(len(which))
        if len(windows.mass) > len(which):
            of_left = windows.mass[: len(which)]
            window += len(which) * (rng.random(len(which)) * ring.mass.take(which) >= of_left)
        offset, kept = propose(rng, windows, window)
        offset, caught = offset[kept], ring.range.take(which[kept])
        self._pool.add(self._counted.take(caught), np.abs(offset), offset)
        np.subtract.at(self._outside, caught, 1)
        np.subtract.at(self._silent, ring.range.take(which), 1)
        self._spent[ring.range] += np.where(loose, 0.0, ring.mass)
        if loose.any():
            # At most twice as many tasks as the proposals that they would make in all the rings.
            rest = ring.range[loose]
            self._draw(rng, self._counted.take(rest), self._outside.take(rest), ring.inner[loose])
            self._counting[rest] = False

    def _draw(self, rng: np.random.Generator, entity: Ints, count: Ints, beyond: Floats | None = None) -> None:
        """Adds `count` draws of each entity to the pool, all with a distance above `beyond`."""
        if len(entity) == 0:
            return
        each = entity if count.max() == 1 else np.repeat(entity, count)
        if len(entity) == len(self._alpha) == len(each):  # all of them, as when few tasks share a stratum
            offset = rng.beta(self._alpha, self._beta)
        else:
            offset = rng.beta(self._alpha.take(each), self._beta.take(each))
        offset -= self._target
        if beyond is not None and beyond.any():
            limit = np.repeat(beyond, count)
            inside = np.flatnonzero(np.abs(offset) <= limit)
            for _ in range(_MOST_REJECTIONS):
                if len(inside) == 0:
                    break
                again = each.take(inside)
                offset[inside] = rng.beta(self._alpha.take(again), self._beta.take(again)) - self._target
                inside = inside[np.abs(offset.take(inside)) <= limit.take(inside)]
            offset[inside] = self._draw_beyond(rng, each.take(inside), limit.take(inside))
        self._pool.add(each, np.abs(offset), offset)

    def _draw_beyond(self, rng: np.random.Generator, entity: Ints, limit: Floats) -> Floats:
        """Returns a draw's offset for each entity with a distance above `limit`, from the distribution's inverse.

        If the probability of such a draw is too small for a float, the offset is the limit, on the side of the mean.
        """
        alpha, beta = self._alpha.take(entity), self._beta.take(entity)
        below = betainc(alpha, beta, np.maximum(self._target - limit, 0.0))
        above = betainc(beta, alpha, np.maximum(self._outermost - limit, 0.0))
        mass = rng.random(len(entity)) * (below + above)
        left = np.where(below + above > 0, mass < below, alpha / (alpha + beta) < self._target) & (limit < self._target)
        p = np.where(left, betaincinv(alpha, beta, mass), 1 - betaincinv(beta, alpha, np.maximum(mass - below, 0.0)))
        distance = np.fmax(np.where(left, self._target - p, p - self._target), limit)
        return np.where(left, -distance, distance)


def _proposers(rng: np.random.Generator, number: Ints, chance: Floats) -> Ints:
    """Returns each i as often as Binomial(number[i], chance[i]) says, ascending; cheap if that is almost always 0.

    Of `number` tries the first success comes after log(u) / log(1 - chance) failures, for u uniform in (0, 1), and the
    tries after it are independent of it. With v = 1 - u there is none if v >= number * chance.
    """
    expected = number * chance
    seldom = expected < 0.1
    v = rng.random(len(number))
    maybe = (seldom & (v < expected)).nonzero()[0]
    failures = np.floor(np.log1p(-v.take(maybe)) / np.log1p(-chance.take(maybe)))
    success = failures < number.take(maybe)
    maybe = maybe[success]
    entity = np.concatenate((maybe, (~seldom).nonzero()[0]))
    tries = number.take(entity)
    tries[: len(maybe)] -= 1 + failures[success].astype(np.int64)
    times = rng.binomial(tries, chance.take(entity))
    times[: len(maybe)] += 1
    order = entity.argsort(kind="stable")
    return np.repeat(entity.take(order), times.take(order))


@dataclass(frozen=True, slots=True, eq=False)
class _Ring:
    """A ring around the target, for `[m]` of the counted entities."""

    range: Ints  # `[m]` positions in the list of counted entities
    inner: Floats  # `[m]` radius at which the ring begins
    outer: Floats  # `[m]` radius at which it ends
    mass: Floats  # `[m]` probability that a task proposes a point in the ring; may be above 1
    chance: Floats  # `[m]` the same for a task that has not proposed yet, at most 1
    expected: Floats  # `[m]` tasks that propose; at least the tasks expected in the ring
