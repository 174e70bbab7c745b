"""One selection: its randomness, and how far it has gone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bots_server.core.arrays import Bools, Floats, Ints, distinct, find
from bots_server.core.draw.eligible import RANKS, Eligible, eligible
from bots_server.core.draw.lists import Lists, Source
from bots_server.core.draw.nearest import Nearest
from bots_server.core.draw.quotas import by_weight
from bots_server.core.draw.sieve import Sieve, sifting_pays
from bots_server.core.draw.targets import NearestByTarget
from bots_server.core.draw.tempered import Tempered
from bots_server.core.draw.ties import Ties
from bots_server.core.posterior import Posterior
from bots_server.core.tasks import Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSpec:
    """What to draw; None: the run's value. Equal specs have equal distributions at one posterior."""

    batch_size: int  # in [1, 10_000]
    target: float | None = None  # pass rate to select near
    uniform_fraction: float | None = None  # share of the batch drawn uniformly
    temperature: float | None = None  # above 0: with probability proportional to exp(-|p - target| / temperature)
    greedy: bool | None = None  # by the posterior mean instead of a draw
    excluded: tuple[int, ...] = ()  # tasks that are not drawn
    # At most one of these is given; None or empty: all tasks. A quota or weight of 0 is none of the tag.
    any_of: tuple[int, ...] | None = None  # numbers of the asked tags
    quotas: tuple[tuple[int, int], ...] | None = None  # (number of a tag, number of tasks), ...: `batch_size` in all
    # (number of a tag, weight), ...; quotas are drawn from Multinomial(batch_size, weights), over what is eligible.
    weights: tuple[tuple[int, float], ...] | None = None
    fill: bool = False  # what a quota lacks in eligible tasks is selected from all the asked tags
    tag_targets: tuple[tuple[int, float], ...] = ()  # (number of a tag, pass rate in place of `target`), ...


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Tasks on offer for one part of a batch, in the order of preference."""

    tag: int | None  # number of the quota's tag; None: no quotas
    uniform: bool  # drawn uniformly, else by pass rate
    need: int  # how many the part takes, >= 1: the first that are not leased and not taken by an earlier part
    tasks: Ints  # `[n]` distinct
    draws: Floats  # `[n]` drawn pass rates; NaN if no draw decided
    resting: Bools  # `[n]` whether the task rests; such tasks come last
    exhausted: bool  # everything that the part may take is in the list


@dataclass(frozen=True, slots=True)
class Counts:
    """Why tasks can or cannot be selected."""

    asked: int  # tasks of the asked tags
    excluded: int  # of these, excluded by the caller
    retired: int  # of these and not excluded, retired
    resting: int  # of the others, those that rest
    eligible: int  # the rest of them


class Draw:
    """A selection from a posterior, as specified.

    Each eligible task i gets a draw p_i ~ Beta(alpha_i, beta_i); the batch_size tasks of smallest |p_i - target| are
    taken, ties broken uniformly at random. If too few are eligible, the batch takes what it lacks from the tasks that
    rest: first from those that have rested longest (the previous half, see core.coverage), then from the others.

    The batch is made of parts, in this order: for each quota (ascending by tag) or for the one batch without quotas the
    tasks drawn uniformly, then those by pass rate. A part's candidates are one sequence, a function of the seed of
    `rng`, the posterior, the eligible set and the arguments; an offer is the beginning of it. So a batch does not
    depend on what was offered beyond it, nor on the order of `excluded` and of the tags.

    counts: of all asked tags
    """

    def __init__(self, rng: np.random.Generator, posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> None:
        """Draws what decides the selection; `offer` says which tasks."""
        self._posterior, self._tasks = posterior, tasks
        given, self._spec = posterior.hyperparameters, spec
        self._target = given.target if spec.target is None else spec.target
        self._greedy = given.greedy if spec.greedy is None else spec.greedy
        self._temperature = given.temperature if spec.temperature is None else spec.temperature
        uniform_fraction = given.uniform_fraction if spec.uniform_fraction is None else spec.uniform_fraction
        self._excluded = distinct(np.array(spec.excluded, np.int64))
        self._tags: list[int | None] = [None]
        self._parts: list[Sequence[int]] | None = None
        by_number: dict[int, float] = dict(spec.quotas or spec.weights or ())
        if by_number:
            by_tag = sorted(tag for tag, number in by_number.items() if number > 0)
            self._tags = [*by_tag]
            self._parts = [[tag] for tag in by_tag]
        elif spec.any_of:
            self._parts = [spec.any_of]
        found = self._eligible(0)
        self._available, self._total = found.available, found.total
        by_part = found.asked, found.excluded, found.retired, self._available - self._total, self._total
        self.counts = Counts(*np.add.reduce(by_part, axis=1).tolist())
        self._need = np.array([spec.batch_size])
        if spec.quotas:
            self._need = np.array([int(by_number[tag]) for tag in by_tag])
        elif spec.weights:
            weight = np.array([by_number[tag] for tag in by_tag], np.float64)
            self._need = by_weight(rng, spec.batch_size, weight, self._total, self._available)
        self._uniform = np.array([rng.binomial(need, uniform_fraction) for need in self._need.tolist()])
        self._seed = int(rng.integers(0, 2**63))
        self._filling: Draw | None = None  # from all the asked tags
        self._fill = spec.fill and bool(by_number)
        self._ranks = [self._lists(rng, found, first=True)]  # of each rank that was wanted so far

    def offer(self, spare: int) -> list[Candidates]:
        """Returns the parts of the batch, each with `spare` candidates more than it needs if there are as many."""
        offers = []
        beyond = spare  # and the needs of earlier parts, which may take the same tasks
        for part, tag in enumerate(self._tags):
            if not self._fill:
                beyond = spare
            for uniform in (True, False):
                number = int(self._uniform[part])
                need = number if uniform else int(self._need[part]) - number
                if need:
                    offers.append(self._candidates(part, tag, uniform, need, need + beyond))
                    beyond += need
        return offers

    def _candidates(self, part: int, tag: int | None, uniform: bool, need: int, length: int) -> Candidates:
        """Returns the first `length` candidates of a part."""
        pieces = [self._of_rank(0, part, uniform, length)]
        number = len(pieces[0][0])
        resting = [np.zeros(number, np.bool_)]
        most = int(self._available.sum() if self._fill else self._available[part])
        if self._fill and number < min(length, most):
            other = self._from_asked_tags(number + length)
            new = ~np.isin(other.tasks, pieces[0][0])
            pieces.append((other.tasks[new][: length - number], other.draws[new][: length - number]))
            resting.append(other.resting[new][: length - number])
        else:
            for rank in range(1, RANKS):
                if number < min(length, most):
                    pieces.append(self._of_rank(rank, part, uniform, length - number))
                    resting.append(np.ones(len(pieces[-1][0]), np.bool_))
                    number += len(pieces[-1][0])
        tasks = np.concatenate([piece[0] for piece in pieces])
        draws = np.concatenate([piece[1] for piece in pieces])
        return Candidates(tag, uniform, need, tasks, draws, np.concatenate(resting), exhausted=len(tasks) == most)

    def _of_rank(self, rank: int, part: int, uniform: bool, length: int) -> tuple[Ints, Floats]:
        """Returns the first `length` candidates of a part that are of one rank, and their draws."""
        if rank == len(self._ranks):
            rng = np.random.default_rng([self._seed, rank])
            self._ranks.append(self._lists(rng, self._eligible(rank), first=False))
        return self._ranks[rank][uniform].first(part, length)

    def _from_asked_tags(self, length: int) -> Candidates:
        """Returns the first `length` candidates of a selection from all the asked tags."""
        if self._filling is None:
            asked = tuple(tag for tag in self._tags if tag is not None)
            spec = replace(
                self._spec, batch_size=1, uniform_fraction=0.0, any_of=asked, quotas=None, weights=None, fill=False
            )
            rng = np.random.default_rng([self._seed, RANKS])
            self._filling = Draw(rng, self._posterior, self._tasks, spec)
        return self._filling.offer(length - 1)[0]

    def _eligible(self, rank: int) -> Eligible:
        tagged = bool(self._spec.tag_targets)
        return eligible(self._posterior, self._tasks, self._excluded, self._parts, rank, tagged=tagged)

    def _lists(self, rng: np.random.Generator, found: Eligible, *, first: bool) -> dict[bool, Lists]:
        """Returns the candidates of one rank, drawn uniformly (True) and by pass rate (False), as far as needed.

        Only the `first` rank reveals some here.
        """
        uniform, by_rate = self._uniform, self._need - self._uniform
        lists = {}
        if uniform.any():
            wanted = np.where(uniform > 0, 2 * uniform + 16, 0) * first
            lists[True] = Lists(rng, Ties(found, None), found, wanted)
        if by_rate.any():
            # Tasks that the uniform part took are passed over, so more may be wanted.
            wanted = np.where(by_rate > 0, 2 * by_rate + uniform + 16, 0)
            lists[False] = Lists(rng, self._source(rng, found, wanted), found, wanted * first)
        return lists

    def _source(self, rng: np.random.Generator, found: Eligible, wanted: Ints) -> Source:
        target = np.array([self._target])
        if found.tag is not None and self._spec.tag_targets:
            of_tag = np.full(len(self._tasks.tags), self._target)
            for tag, of in self._spec.tag_targets:
                of_tag[tag] = of
            target = of_tag.take(found.tag)
        if self._temperature > 0:
            return Tempered(rng, found, target, self._temperature, greedy=self._greedy)
        if not (self._greedy or self._spec.tag_targets) and sifting_pays(found, self._target, wanted):
            return Sieve(rng, found, self._target)
        alpha, beta = found.alpha_beta()
        if self._greedy:
            return Ties(found, np.abs(alpha / (alpha + beta) - target))
        if self._spec.tag_targets and len(found):
            return NearestByTarget(rng, alpha, beta, found.count(), found.parts, target, wanted)
        return Nearest(rng, alpha, beta, found.count(), found.parts, self._target, wanted)


def take(offers: Sequence[Candidates]) -> tuple[Ints, Floats, int]:
    """Returns tasks and draws of a batch if no candidate is leased, and how many of the tasks rest.

    Parts take in order, each its first `need` that no earlier part took.
    """
    tasks, draws, resting = np.empty(0, np.int64), np.empty(0), 0
    for offer in offers:
        left = ~find(np.sort(tasks), offer.tasks)[1]
        tasks = np.concatenate((tasks, offer.tasks[left][: offer.need]))
        draws = np.concatenate((draws, offer.draws[left][: offer.need]))
        resting += int(np.count_nonzero(offer.resting[left][: offer.need]))
    return tasks, draws, resting
