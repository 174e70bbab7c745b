"""One selection: its randomness, and how far it has gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bots_server.core.posterior import Posterior
from bots_server.core.selection.eligible import Eligible, eligible
from bots_server.core.selection.members import Members
from bots_server.core.selection.nearest import Nearest
from bots_server.core.selection.tempered import Tempered
from bots_server.core.selection.ties import Ties
from bots_server.core.tasks import Tasks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tasks on offer for one part of a batch, in the order in which it wants them.

    tag:       number of the quota's tag; None: no quotas
    uniform:   drawn uniformly, else by pass rate
    need:      how many the part takes, >= 1: the first that are free and not taken by an earlier part
    tasks:     `[n]` distinct
    draws:     `[n]` drawn pass rates; NaN where none decided
    exhausted: everything eligible for the part is in the list
    """

    tag: int | None
    uniform: bool
    need: int
    tasks: Ints
    draws: Floats
    exhausted: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Why tasks can or cannot be selected.

    asked:    tasks of the asked tags
    excluded: of these, excluded by the caller
    cooling:  of these and not excluded, evaluated in the last `cooldown` updates
    eligible: the others
    """

    asked: int
    excluded: int
    cooling: int
    eligible: int


class Draw:
    """A selection of `batch_size` tasks from a posterior.

    Selection has exactly the distribution of drawing every task: each eligible task i gets a draw
    p_i ~ Beta(alpha_i, beta_i), and the batch_size tasks of smallest |p_i - target| are taken, ties broken uniformly at
    random.

    The batch is made of parts, in this order: for each quota (ascending by tag) or for the one batch without quotas the
    tasks drawn uniformly, then those by pass rate. A part's candidates are one sequence, which the seed of `rng`, the
    posterior, the eligible set and the arguments decide; an offer is the beginning of it. So a batch does not depend on
    what was offered beyond it, nor on the order of `excluded` and of `quotas`.

    counts: of all asked tags
    """

    def __init__(
        self,
        rng: np.random.Generator,
        posterior: Posterior,
        tasks: Tasks,
        *,
        batch_size: int,
        target: float,
        greedy: bool = False,
        temperature: float = 0.0,
        uniform_fraction: float = 0.0,
        excluded: Ints | None = None,
        tags: Sequence[int] | None = None,
        quotas: Mapping[int, int] | None = None,
    ) -> None:
        """`tags` are the asked tags, `quotas` the count of each; at most one of them, None or empty: all tasks.

        Quotas are >= 1 and add up to `batch_size`, in [1, 10_000]. Excluded tasks are in [0, N).
        """
        parts: list[Sequence[int]] | None = None
        self._tags: list[int | None] = [None]
        need = np.array([batch_size])
        if quotas:
            self._tags = [*sorted(quotas)]
            need = np.array([quotas[tag] for tag in sorted(quotas)])
            parts = [[tag] for tag in sorted(quotas)]
        elif tags:
            parts = [tags]
        found = eligible(posterior, tasks, np.empty(0, np.int64) if excluded is None else excluded, parts)
        self._eligible = found.total
        self.counts = Counts(
            int(found.asked.sum()), int(found.excluded.sum()), int(found.cooling.sum()), int(found.total.sum())
        )
        uniform = rng.binomial(need, uniform_fraction)
        by_rate = need - uniform
        self._uniform = _Lists(rng, Ties(found, None), tasks, found, uniform, _first_wish(uniform))
        # Tasks that the uniform part took are passed over, so that more may be wanted.
        wish = _first_wish(by_rate, uniform)
        source: _Source
        if temperature > 0:
            source = Tempered(rng, found, target, temperature, greedy=greedy)
        elif greedy:
            mean = found.alpha / (found.alpha + found.beta)
            source = Ties(found, np.abs(mean - target))
        else:
            source = Nearest(rng, found, target, wish)
        self._by_rate = _Lists(rng, source, tasks, found, by_rate, wish)

    @property
    def eligible(self) -> int:
        """Returns the number of eligible tasks, leased or not."""
        return self.counts.eligible

    def short(self) -> list[tuple[int | None, int, int]]:
        """Returns tag (None: no quotas), tasks asked for and eligible tasks, where these are too few."""
        need = (self._uniform.need + self._by_rate.need).tolist()
        rows = zip(self._tags, need, self._eligible.tolist(), strict=True)
        return [(tag, asked, there) for tag, asked, there in rows if there < asked]

    def offer(self, spare: int) -> list[Candidates]:
        """Returns the parts of the batch, each with `spare` candidates more than it needs where there are so many."""
        offers = []
        for k, tag in enumerate(self._tags):
            beyond = spare
            for uniform, lists in ((True, self._uniform), (False, self._by_rate)):
                need = int(lists.need[k])
                if need:
                    chosen, draws = lists.first(k, need + beyond)
                    exhausted = len(chosen) == self._eligible[k]
                    offers.append(Candidates(tag, uniform, need, chosen, draws, exhausted))
                    beyond += need
        return offers


def take(offers: Sequence[Candidates]) -> tuple[Ints, Floats]:
    """Returns tasks and draws of a batch when all candidates are free: parts in order, each its first `need` left."""
    tasks, draws = [np.empty(0, np.int64)], [np.empty(0)]
    for at, offer in enumerate(offers):
        left = np.ones(len(offer.tasks), np.bool_)
        if at and offers[at - 1].tag == offer.tag:  # parts of different tags have no task in common
            left = ~np.isin(offer.tasks, tasks[-1])
        tasks.append(offer.tasks[left][: offer.need])
        draws.append(offer.draws[left][: offer.need])
    return np.concatenate(tasks), np.concatenate(draws)


def draw_quotas(rng: np.random.Generator, batch_size: int, weights: Mapping[int, float]) -> dict[int, int]:
    """Returns quotas drawn from Multinomial(batch_size, weights / sum of weights), without those that come out as 0.

    `weights` is by tag, each > 0 and finite.
    """
    tags = sorted(weights)
    weight = np.array([weights[tag] for tag in tags])
    weight = weight / weight.max()  # so that the sum is finite
    counts = rng.multinomial(batch_size, weight / weight.sum())
    return {tag: count for tag, count in zip(tags, counts.tolist(), strict=True) if count}


class _Source(Protocol):
    """An order of the eligible tasks of each part, revealed from its beginning as far as wanted."""

    def reveal(self, rng: np.random.Generator, wish: Ints) -> tuple[Ints, Floats]:
        """Returns entity and draw of the next tasks by part, about `wish[part]` of each; none where that is 0."""


class _Lists:
    """The candidates of P parts from one source, as far as revealed; `need`: `[P]` what each takes."""

    def __init__(
        self, rng: np.random.Generator, source: _Source, tasks: Tasks, found: Eligible, need: Ints, wish: Ints
    ) -> None:
        self.need = need
        self._source = source
        self._parts = found.parts
        self._length = np.zeros(len(need), np.int64)
        self._total = found.total
        self._tasks = [np.empty(0, np.int64) for _ in need]
        self._draws = [np.empty(0) for _ in need]
        if need.any():
            self._members = Members(tasks, found)
            # What is revealed of a part later is its own affair: it does not depend on how far others have gone.
            self._seeds = rng.integers(0, 2**63, len(need))
            self._rngs: dict[int, np.random.Generator] = {}
            self._reveal(rng, wish)

    def first(self, part: int, length: int) -> tuple[Ints, Floats]:
        """Returns the first `length` candidates of a part and their draws, fewer where there are fewer."""
        while self._length[part] < min(length, self._total[part]):
            if part not in self._rngs:
                self._rngs[part] = np.random.default_rng(self._seeds[part])
            # As many again and more, whatever is asked for: what is revealed when does not depend on the question.
            wish = np.zeros(len(self.need), np.int64)
            wish[part] = 2 * self._length[part] + 16
            self._reveal(self._rngs[part], wish)
        return self._tasks[part][:length], self._draws[part][:length]

    def _reveal(self, rng: np.random.Generator, wish: Ints) -> None:
        entity, draws = self._source.reveal(rng, wish)
        tasks = self._members.give(rng, entity)
        counts = self._parts.count(entity)
        ends = np.cumsum(counts)
        self._length += counts
        for k in np.flatnonzero(counts):
            piece = slice(ends[k] - counts[k], ends[k])
            self._tasks[k] = np.concatenate((self._tasks[k], tasks[piece]))
            self._draws[k] = np.concatenate((self._draws[k], draws[piece]))


def _first_wish(need: Ints, passed_over: Ints | int = 0) -> Ints:
    """Returns `[P]` how many tasks to reveal at first: as a rule enough, with some spare."""
    return np.where(need > 0, 2 * need + passed_over + 16, 0)
