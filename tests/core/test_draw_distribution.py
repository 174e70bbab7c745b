"""Selection has exactly the distribution of drawing every task."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from bots_server.core.draw import take
from bots_server.core.draw.quotas import by_weight, divided
from tests.core.draw_oracle import (
    ERROR,
    World,
    assert_frequencies,
    assert_same,
    assert_same_batches,
    assert_same_numbers,
    drawn,
    ours,
    plain,
    world,
)

NEAREST = sys.modules["bots_server.core.draw.nearest"]

# Strata of many shapes: flat, peaked, a pole at either end or at both, far from most targets.
SHAPES = [(1.0, 1.0, 9), (4.0, 3.0, 12), (0.3, 2.0, 8), (2.0, 0.3, 7), (0.4, 0.4, 9), (60.0, 40.0, 10), (2.0, 30.0, 11)]
DEVIATING = {3: (4.0, 4.0), 17: (0.2, 9.0), 33: (30.0, 1.0), 40: (0.5, 0.0)}


@pytest.fixture(params=["measured", "counted", "drawn"])
def costs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are counted or drawn outright as it is cheaper, always counted, or always drawn outright."""
    if request.param == "counted":
        monkeypatch.setattr(NEAREST, "_OWN_COST", 1e12)
    if request.param == "drawn":
        monkeypatch.setattr(NEAREST, "_RANGE_COST", 1e12)


@pytest.mark.parametrize("batch_size", [1, 12])
@pytest.mark.parametrize("target", [0.0, 0.02, 0.5, 0.8, 1.0])
@pytest.mark.usefixtures("costs")
def test_the_nearest_draws_are_selected(target: float, batch_size: int) -> None:
    """Selection has exactly the distribution of drawing every task."""
    where = world(SHAPES, DEVIATING)
    assert_same_batches(
        where,
        ours(where, 600, 1, batch_size=batch_size, target=target),
        plain(where, 10_000, 2, batch_size=batch_size, target=target),
        target,
    )


def test_each_task_of_a_stratum_is_selected_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selection has exactly the distribution of drawing every task, task by task."""
    monkeypatch.setattr(NEAREST, "_OWN_COST", 1e12)
    where = world([(2.0, 2.0, 12), (5.0, 2.0, 9)], {2: (3.0, 3.0), 11: (0.0, 4.0)})
    a = ours(where, 2000, 1, batch_size=5, target=0.5)
    assert_same_batches(where, a, plain(where, 20_000, 2, batch_size=5, target=0.5), 0.5, by_task=True)


def test_strata_large_and_tiny_are_selected_alike() -> None:
    """Selection has exactly the distribution of drawing every task if some strata are counted and some are not."""
    tiny = [(1.0 + k / 15, 3.0 - k / 15, 1 + k % 4) for k in range(30)]
    where = world([(2.0, 2.0, 900), (9.0, 5.0, 1100), *tiny], {k: (k / 20, 1.0) for k in range(0, 60, 3)})
    a = ours(where, 1200, 1, batch_size=6, target=0.5)
    assert_same_batches(where, a, plain(where, 3000, 2, batch_size=6, target=0.5), 0.5)


@pytest.mark.parametrize("target", [0.0, 0.3, 0.97, 1.0])
def test_a_target_in_the_tails_is_no_exception(target: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selection has exactly the distribution of drawing every task, also if every draw is far from the target."""
    monkeypatch.setattr(NEAREST, "_OWN_COST", 1e12)
    where = world([(900.0, 1100.0, 400), (300.0, 250.0, 300)], {5: (1.0, 300.0), 500: (400.0, 2.0)})
    a = ours(where, 500, 1, batch_size=4, target=target)
    assert_same_batches(where, a, plain(where, 4000, 2, batch_size=4, target=target), target)


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_extreme_posteriors_are_no_exception(target: float) -> None:
    """Selection has exactly the distribution of drawing every task, for parameters from 0.1 to 10^6."""
    shapes = [(0.1, 0.1, 40), (0.1, 1e6, 30), (1e6, 0.1, 30), (1e6, 1e6, 50), (1e6, 1.0, 20), (1.0, 1e6, 20)]
    where = world(shapes, {0: (0.0, 1e6), 1: (1e6, 0.0)})
    a = ours(where, 700, 1, batch_size=8, target=target)
    assert_same_batches(where, a, plain(where, 8000, 2, batch_size=8, target=target), target)


def test_of_two_tasks_the_nearer_is_selected() -> None:
    """Of two tasks the first is selected with the probability that its draw is nearer, which an integral gives."""
    shapes = [(3.0, 5.0, 1), (6.0, 2.0, 1)]
    where = world(shapes)
    target = 0.55

    def not_within(distance: float, alpha: float, beta: float) -> float:
        inside = stats.beta.cdf(target + distance, alpha, beta) - stats.beta.cdf(target - distance, alpha, beta)
        return 1 - float(inside)

    first, second = [(where.alpha[task], where.beta[task]) for task in (0, 1)]
    nearer, _ = integrate.quad(
        lambda p: float(stats.beta.pdf(p, *first)) * not_within(abs(p - target), *second), 0, 1, points=[target]
    )
    chosen = ours(where, 4000, 3, batch_size=1, target=target).tasks[:, 0]
    assert_frequencies(np.bincount(chosen, minlength=2), [nearer, 1 - nearer])


@pytest.mark.usefixtures("costs")
def test_a_batch_of_almost_all_leaves_out_the_furthest() -> None:
    """Selection has exactly the distribution of drawing every task if all but one are selected."""
    where = world([(2.0, 2.0, 6), (3.0, 9.0, 5)], {1: (9.0, 1.0)})
    a = ours(where, 1000, 1, batch_size=11, target=0.4)
    b = plain(where, 10_000, 2, batch_size=11, target=0.4)
    assert_same_batches(where, a, b, 0.4, by_task=True)
    assert_same(66 - a.tasks.sum(1), 66 - b.tasks.sum(1))


@pytest.mark.usefixtures("costs")
def test_everything_eligible_is_selected_in_the_order_of_its_draws() -> None:
    """Selection has exactly the distribution of drawing every task if all are selected."""
    where = world([(2.0, 2.0, 6), (0.3, 0.4, 5)], {1: (9.0, 1.0)})
    a = ours(where, 1000, 1, batch_size=11, target=0.1)
    assert (np.sort(a.tasks, 1) == np.arange(11)).all()
    assert_same_batches(where, a, plain(where, 10_000, 2, batch_size=11, target=0.1), 0.1, by_task=True)


def deep_batches(
    where: World, batches: int, length: int, target: float, **choice: Any
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the candidates of so many selections of one task, going on outward step by step to `length`."""
    rng = np.random.default_rng(11)
    tasks, draws = [], []
    for _ in range(batches):
        draw = drawn(rng, where, batch_size=1, target=target, **choice)
        for spare in (0, 5, 60, length - 1):
            (offer,) = draw.offer(spare)
        tasks.append(offer.tasks)
        draws.append(offer.draws)
    return np.array(tasks), np.array(draws)


@pytest.mark.parametrize("target", [0.0, 0.4, 0.9])
@pytest.mark.usefixtures("costs")
def test_ring_after_ring_the_order_is_that_of_the_draws(target: float) -> None:
    """Selection has exactly the distribution of drawing every task, however far outward it goes."""
    where = world([(shape[0], shape[1], 4 * shape[2]) for shape in SHAPES], DEVIATING)
    length = 220
    tasks, draws = deep_batches(where, 200, length, target)
    distance = np.abs(draws - target)
    assert (distance[:, 1:] >= distance[:, :-1]).all()
    b = plain(where, 3000, 2, batch_size=length, target=target)
    for rank in (20, 100, 180, length - 1):
        assert_same(where.kind[tasks[:, rank]], where.kind[b.tasks[:, rank]])
        assert_same_numbers(distance[:, rank], np.abs(b.draws[:, rank] - target))


@pytest.mark.parametrize(
    "choice", [{"temperature": 0.2}, {"temperature": 0.02}, {"temperature": 9.0}, {"greedy": True}]
)
def test_step_after_step_the_order_is_that_of_the_plain_form(choice: dict[str, Any]) -> None:
    """Selection has exactly the distribution of drawing every task, with every option, however far it goes."""
    where = world([(2.0, 2.0, 150), (6.0, 3.0, 80), (3.0, 3.0, 60)], {1: (0.0, 1.0), 9: (2.0, 2.0)})
    length = 240
    tasks, draws = deep_batches(where, 400, length, 0.5, **choice)
    b = plain(where, 3000, 2, batch_size=length, target=0.5, **choice)
    for rank in (0, 10, 30, 90, 160, length - 1):
        assert_same(where.kind[tasks[:, rank]], where.kind[b.tasks[:, rank]])
        assert_same_numbers(np.abs(draws[:, rank] - 0.5), np.abs(b.draws[:, rank] - 0.5))
    for upto in (10, 60, length):
        for kind in range(3):
            assert_same((where.kind[tasks[:, :upto]] == kind).sum(1), (where.kind[b.tasks[:, :upto]] == kind).sum(1))


@pytest.mark.usefixtures("costs")
def test_refused_candidates_leave_the_distribution_of_the_free_ones() -> None:
    """If candidates are leased to others, the batch has the distribution of drawing every task that is free."""
    where = world([(4.0, 4.0, 60), (2.0, 1.0, 30)], {1: (9.0, 9.0), 8: (3.0, 1.0)})
    leased = np.flatnonzero((where.kind == 0) & (np.arange(len(where.tasks)) % 5 > 0))
    free = np.setdiff1d(np.arange(len(where.tasks)), leased)
    rng = np.random.default_rng(5)
    tasks, draws = [], []
    for _ in range(700):
        draw, spare = drawn(rng, where, batch_size=3), 1
        while True:
            (offer,) = draw.offer(spare)
            left = np.flatnonzero(~np.isin(offer.tasks, leased))
            if len(left) >= 3:
                break
            assert not offer.exhausted
            spare *= 3
        tasks.append(offer.tasks[left[:3]])
        draws.append(offer.draws[left[:3]])
    b = plain(where, 10_000, 2, eligible=free, batch_size=3, target=0.5)
    assert_same_batches(where, type(b)(np.array(tasks), np.array(draws)), b, 0.5)


def test_only_eligible_tasks_compete() -> None:
    """Guarantee 4 for what is eligible: of the asked tags, not excluded, not retired, not resting."""
    deviating = dict.fromkeys(range(0, 90, 6), (3.0, 2.0))
    resting = {"previous": range(0, 90, 12), "current": [1, 18, 19, 20, 77]}
    where = world([(2.0, 2.0, 50), (5.0, 4.0, 40)], deviating, tags=4, retired=[2, 36, 50, 20], **resting)
    excluded = np.array([4, 80, 6, 7, 7, 12, 51, 30, 50])
    tag = np.asarray(where.tasks.tag)
    fits = np.isin(tag, [1, 3]) & (where.rank == 0)
    fits[excluded] = False
    fits[where.posterior.retired] = False
    a = ours(where, 900, 1, batch_size=4, target=0.5, excluded=excluded, any_of=[3, 1])
    assert fits[a.tasks].all()
    b = plain(where, 10_000, 2, eligible=np.flatnonzero(fits), batch_size=4, target=0.5)
    assert_same_batches(where, a, b, 0.5, by_task=True)


CHOICES: dict[str, dict[str, Any]] = {
    "nearest": {},
    "greedy": {"greedy": True},
    "temperature": {"temperature": 0.1},
    "low temperature": {"temperature": 0.002},
    "high temperature": {"temperature": 50.0},
    "greedy with temperature": {"greedy": True, "temperature": 0.05},
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_option_selects_as_its_plain_form(name: str) -> None:
    """Selection has exactly the distribution of drawing every task, with every option."""
    where = world([(2.0, 2.0, 12), (5.0, 2.0, 9), (3.0, 3.0, 6)], {2: (3.0, 3.0), 11: (0.0, 4.0), 13: (1.0, 1.0)})
    a = ours(where, 1000, 1, batch_size=5, target=0.45, **CHOICES[name])
    b = plain(where, 15_000, 2, batch_size=5, target=0.45, **CHOICES[name])
    for rank in (0, 2, 4):
        assert_same(a.tasks[:, rank], b.tasks[:, rank])
        assert_same_numbers(a.draws[:, rank], b.draws[:, rank])


@pytest.mark.parametrize("name", CHOICES)
def test_each_quota_is_a_selection_of_its_own(name: str) -> None:
    """A quota's tasks have the distribution of drawing every task of its tag."""
    where = world([(2.0, 2.0, 90), (5.0, 3.0, 60)], {2: (3.0, 3.0), 11: (0.0, 4.0), 13: (1.0, 1.0)}, tags=3)
    quotas = {2: 1, 0: 4}
    a = ours(where, 800, 1, batch_size=5, target=0.45, quotas=quotas, **CHOICES[name])
    tag = np.asarray(where.tasks.tag)
    assert (np.sort(tag[a.tasks], 1) == [0, 0, 0, 0, 2]).all()
    for of, columns in ((0, slice(0, 4)), (2, slice(4, 5))):
        fits = np.flatnonzero(tag == of)
        b = plain(where, 12_000, 2, eligible=fits, batch_size=quotas[of], target=0.45, **CHOICES[name])
        assert_same(where.kind[a.tasks[:, columns][:, 0]], where.kind[b.tasks[:, 0]])
        assert_same(a.tasks[:, columns][:, -1], b.tasks[:, -1])


def test_many_quotas_at_once_are_each_a_selection_of_its_own() -> None:
    """A quota's tasks have the distribution of drawing every task of its tag, also if tags are large and tiny."""
    where = world([(2.0, 2.0, 1500), (9.0, 5.0, 1500)], {k: (1.0, k % 7) for k in range(0, 300, 11)}, tags=12)
    quotas = {of: 1 + of % 3 for of in range(12)}
    a = ours(where, 700, 1, batch_size=sum(quotas.values()), target=0.6, quotas=quotas)
    at = 0
    for of, need in quotas.items():
        fits = np.flatnonzero(np.asarray(where.tasks.tag) == of)
        b = plain(where, 3000, 2, eligible=fits, batch_size=need, target=0.6)
        own = type(b)(a.tasks[:, at : at + need], a.draws[:, at : at + need])
        assert_same_batches(where, own, b, 0.6)
        at += need


def test_uniform_picks_come_first_and_the_rest_are_the_nearest_of_the_others() -> None:
    """Binomial(batch_size, uniform_fraction) tasks are first drawn uniformly from what is eligible."""
    where = world([(2.0, 2.0, 12), (5.0, 2.0, 9)], {2: (3.0, 3.0), 11: (0.0, 4.0)})
    a = ours(where, 3000, 1, batch_size=4, target=0.5, uniform_fraction=0.3)
    number = np.isnan(a.draws).sum(1)
    assert_frequencies(np.bincount(number, minlength=5), stats.binom.pmf(np.arange(5), 4, 0.3))
    for uniform in (0, 1, 2):
        chosen = a.tasks[number == uniform]
        b = plain(where, 15_000, 2, batch_size=4, target=0.5, uniform=uniform)
        for rank in (0, uniform, 3):
            assert_same(chosen[:, rank], b.tasks[:, rank])
    assert_frequencies(np.bincount(a.tasks[number > 0, 0], minlength=21), np.full(21, 1 / 21))


def test_all_uniform_is_a_sample_without_replacement() -> None:
    """Every ordered pair of tasks is equally likely if all are drawn uniformly."""
    where = world([(2.0, 2.0, 4), (5.0, 2.0, 1)], {2: (3.0, 3.0)})
    a = ours(where, 3000, 1, batch_size=2, target=0.5, uniform_fraction=1.0).tasks
    pairs = np.bincount(5 * a[:, 0] + a[:, 1], minlength=25).reshape(5, 5)
    assert (np.diag(pairs) == 0).all()
    assert_frequencies(pairs[~np.eye(5, dtype=bool)], np.full(20, 1 / 20))


@pytest.mark.parametrize("uniform_fraction", [0.0, 0.5])
def test_uniform_picks_within_quotas_are_of_the_quota(uniform_fraction: float) -> None:
    """Each quota is filled from its own tag, whatever share of it is drawn uniformly."""
    where = world([(2.0, 2.0, 30), (5.0, 2.0, 30)], {2: (3.0, 3.0)}, tags=3)
    rng = np.random.default_rng(3)
    tag = np.asarray(where.tasks.tag)
    uniform = np.zeros(len(tag), np.int64)
    for _ in range(1200):
        draw = drawn(rng, where, batch_size=6, quotas={0: 4, 1: 2}, uniform_fraction=uniform_fraction)
        tasks, draws, _ = take(draw.offer(0))
        assert len(set(tasks.tolist())) == 6
        assert np.bincount(tag[tasks], minlength=3).tolist() == [4, 2, 0]
        uniform[tasks[np.isnan(draws)]] += 1
    for of in (0, 1):
        counts = uniform[tag == of]
        if uniform_fraction:
            assert_frequencies(counts, np.full(len(counts), 1 / len(counts)))
    assert uniform.any() == (uniform_fraction > 0)


def test_greedy_breaks_ties_uniformly_across_strata_and_deviating_tasks() -> None:
    """The nearest means are selected, and among equal ones every task is equally likely."""
    # Distance 0: task 5 alone. Distance 0.25: 400 tasks of two strata on either side, and task 9. Then the others.
    where = world([(1.0, 3.0, 300), (3.0, 1.0, 102), (1.0, 9.0, 200)], {})
    stratum = where.tasks.stratum
    single, tied = int(np.flatnonzero(stratum == 0)[0]), int(np.flatnonzero(stratum == 1)[0])
    where = world([(1.0, 3.0, 300), (3.0, 1.0, 102), (1.0, 9.0, 200)], {single: (2.0, 0.0), tied: (3.0, 1.0)})
    a = ours(where, 2500, 1, batch_size=3, target=0.5, greedy=True).tasks
    assert (a[:, 0] == single).all()
    pool = np.setdiff1d(np.flatnonzero(stratum < 2), [single])
    for rank in (1, 2):
        counts = np.bincount(a[:, rank], minlength=len(where.tasks))
        assert counts[pool].sum() == counts.sum()
        assert_frequencies(counts[pool], np.full(len(pool), 1 / len(pool)))
    whole = ours(where, 3, 2, batch_size=450, target=0.5, greedy=True).tasks
    assert (np.sort(whole[:, :402], 1) == np.sort(np.append(pool, single))).all()


@pytest.mark.parametrize("name", CHOICES)
def test_what_lacks_comes_from_those_that_have_rested_longest(name: str) -> None:
    """Guarantee 4 for the tasks that come back: all eligible tasks, then a selection from the previous half, and from
    the current one only if that is not enough.
    """
    rests = np.random.default_rng(3).permutation(60)
    resting = {"previous": rests[4:40].tolist(), "current": rests[36:].tolist()}
    where = world([(2.0, 2.0, 35), (5.0, 2.0, 25)], {2: (3.0, 3.0), 11: (0.0, 4.0), 33: (2.0, 1.0)}, **resting)
    free, previous, current = (np.flatnonzero(where.rank == rank) for rank in range(3))
    a = ours(where, 900, 1, batch_size=9, target=0.45, **CHOICES[name])
    assert (np.sort(a.tasks[:, :4], 1) == free).all()
    b = plain(where, 15_000, 2, eligible=previous, batch_size=5, target=0.45, **CHOICES[name])
    for rank in (0, 2, 4):
        assert_same(a.tasks[:, 4 + rank], b.tasks[:, rank])
        assert_same_numbers(a.draws[:, 4 + rank], b.draws[:, rank])
    whole = ours(where, 300, 1, batch_size=40, target=0.45, **CHOICES[name])
    assert (np.sort(whole.tasks[:, :36], 1) == np.sort(np.concatenate((free, previous)))).all()
    last = plain(where, 5000, 2, eligible=current, batch_size=4, target=0.45, **CHOICES[name])
    for rank in (0, 3):
        assert_same(whole.tasks[:, 36 + rank], last.tasks[:, rank])


TARGETS = {0: 0.1, 1: 0.8}


@pytest.mark.parametrize("name", CHOICES)
def test_each_tag_has_the_target_that_is_given_for_it(name: str) -> None:
    """Tasks compete by the distance from the target of their own tag."""
    where = world([(2.0, 2.0, 24), (5.0, 2.0, 9), (0.6, 3.0, 9)], {2: (3.0, 3.0), 11: (0.0, 4.0)}, tags=3)
    target = np.array([TARGETS.get(tag, 0.45) for tag in np.asarray(where.tasks.tag).tolist()])
    choice = CHOICES[name]
    a = ours(where, 1200, 1, batch_size=5, target=0.45, tag_targets=TARGETS, **choice)
    rng, batches = np.random.default_rng(2), 15_000
    p = rng.beta(where.alpha, where.beta, (batches, len(target)))
    means = np.broadcast_to(where.alpha / (where.alpha + where.beta), p.shape)
    score = np.abs((means if choice.get("greedy") else p) - target)
    if choice.get("temperature"):
        score = score / choice["temperature"] - rng.gumbel(size=score.shape)
    order = np.lexsort((rng.random(p.shape), score))[:, :5]
    for rank in (0, 2, 4):
        assert_same(a.tasks[:, rank], order[:, rank])
        if not choice.get("greedy"):
            assert_same_numbers(a.draws[:, rank], np.take_along_axis(p, order, 1)[:, rank])


@pytest.mark.parametrize("excluded", [range(1, 5), range(5)])
def test_the_target_of_a_tag_holds_for_a_single_task_and_for_none(excluded: range) -> None:
    """One eligible task is offered with its draw, and no eligible task is an empty offer."""
    where = world([(2.0, 2.0, 5)], tags=2)
    draw = drawn(np.random.default_rng(1), where, tag_targets=TARGETS, batch_size=1, excluded=np.array(excluded))
    tasks, draws, _ = take(draw.offer(3))
    assert tasks.tolist() == [0] * (5 - len(excluded))
    assert len(draws) == len(tasks)


def test_a_draw_with_targets_goes_on_to_the_last_task() -> None:
    """Candidates come by the distance from the target of their tag until none is left."""
    where = world([(2.0, 2.0, 300), (0.4, 3.0, 200)], {1: (2.0, 2.0)}, tags=3)
    target = np.array([TARGETS.get(tag, 0.5) for tag in np.asarray(where.tasks.tag).tolist()])
    rng = np.random.default_rng(5)
    for quotas in (None, {0: 3, 1: 4, 2: 3}):
        draw = drawn(rng, where, tag_targets=TARGETS, batch_size=10, quotas=quotas)
        for spare in (0, 20, 490):
            offers = draw.offer(spare)
        assert sorted(np.concatenate([offer.tasks for offer in offers]).tolist()) == list(range(500))
        for offer in offers:
            assert offer.exhausted
            assert (np.diff(np.abs(offer.draws - target[offer.tasks])) >= -1e-12).all()


def test_quotas_are_drawn_from_the_multinomial_distribution() -> None:
    """The quotas are drawn: Multinomial(batch_size, weights / sum of weights), over the tags with eligible tasks."""
    rng = np.random.default_rng(3)
    weights = np.array([0.5e308, 1.5e308, 1e308, 1e308, 0.0])
    eligible = np.array([9, 9, 9, 0, 9])
    quotas = np.array([by_weight(rng, 3, weights, eligible, eligible) for _ in range(6000)])
    assert (quotas.sum(1) == 3).all()
    assert (quotas[:, 3:] == 0).all()
    outcomes = [(i, j, 3 - i - j) for i in range(4) for j in range(4 - i)]
    counts = [int(np.count_nonzero((quotas[:, :3] == outcome).all(1))) for outcome in outcomes]
    assert_frequencies(counts, [stats.multinomial.pmf(o, 3, [1 / 6, 1 / 2, 1 / 3]) for o in outcomes])


def test_a_drawn_quota_has_at_most_the_tasks_of_its_tag() -> None:
    """What is drawn above them is drawn again; resting tasks count if all others do not do; the rest is reported."""
    rng = np.random.default_rng(3)
    weights = np.array([100.0, 1.0, 1.0])
    for _ in range(50):
        assert divided(rng, 12, weights, np.array([2, 5, 5])).tolist() == [2, 5, 5]
        quotas = by_weight(rng, 20, weights, np.array([2, 5, 5]), np.array([10, 5, 5]))
        assert quotas.tolist() == [10, 5, 5]
        assert by_weight(rng, 30, weights, np.array([2, 5, 5]), np.array([10, 5, 5])).sum() == 30


@pytest.mark.parametrize("name", CHOICES)
def test_what_a_quota_lacks_is_selected_from_all_asked_tags(name: str) -> None:
    """With `fill` a quota takes its own eligible tasks, then the nearest of all asked tags; the others lose nothing."""
    where = world([(2.0, 2.0, 40), (5.0, 2.0, 25)], {2: (3.0, 3.0), 11: (0.0, 4.0)}, tags=3)
    tag = np.asarray(where.tasks.tag)
    first = np.flatnonzero(tag == 0)
    excluded, kept = first[2:], first[:2]
    a = ours(
        where, 900, 1, batch_size=8, target=0.45, quotas={0: 5, 1: 3}, fill=True, excluded=excluded, **CHOICES[name]
    )
    assert (np.sort(a.tasks[:, :2], 1) == kept).all()
    assert (tag[a.tasks[:, 2:]] == 1).all()
    assert all(len(set(batch)) == 8 for batch in a.tasks.tolist())
    b = plain(where, 15_000, 2, eligible=np.flatnonzero(tag == 1), batch_size=3, target=0.45, **CHOICES[name])
    for rank in range(3):
        assert_same(a.tasks[:, 2 + rank], b.tasks[:, rank])


def test_a_filled_quota_takes_from_the_others_before_what_rests() -> None:
    """Resting tasks come back only if no asked tag has an eligible one left; then no part is short."""
    where = world([(2.0, 2.0, 40)], tags=2, current=range(0, 40, 3))
    tag, rests = np.asarray(where.tasks.tag), where.rank > 0
    eligible = [np.flatnonzero((tag == of) & ~rests) for of in (0, 1)]
    quotas = {0: len(eligible[0]) + 2, 1: len(eligible[1]) - 1}
    draw = drawn(np.random.default_rng(1), where, batch_size=sum(quotas.values()), quotas=quotas, fill=True)
    tasks, _, resting = take(draw.offer(0))
    assert (len(set(tasks.tolist())), resting) == (sum(quotas.values()), 1)
    assert set(np.concatenate(eligible).tolist()) < set(tasks.tolist())
    quotas = {0: 39, 1: 1}
    draw = drawn(np.random.default_rng(1), where, batch_size=40, quotas=quotas, fill=True)
    assert sorted(take(draw.offer(40))[0].tolist()) == list(range(40))
    assert all(offer.exhausted for offer in draw.offer(40))


@pytest.mark.parametrize("select", [ours, plain])
def test_the_comparison_notices_a_small_difference(select: Callable[..., object]) -> None:
    """Samples as large as those above tell a posterior from one that is off by a fifth of an observation."""
    a = world([(4.0, 4.0, 60), (2.0, 1.0, 30)])
    b = world([(4.2, 4.0, 60), (2.0, 1.4, 30)])
    first, second = select(a, 3000, 1, batch_size=8, target=0.5), plain(b, 20_000, 2, batch_size=8, target=0.5)
    with pytest.raises(AssertionError):
        assert_same_batches(a, first, second, 0.5)  # type: ignore[arg-type]
    assert ERROR == 1e-9
