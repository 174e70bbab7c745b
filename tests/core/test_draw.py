"""What an offer is: a beginning of one sequence that seed, posterior and eligible set decide; and what it costs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bots_server.core.draw import Candidates, Counts, Draw, SelectionSpec, take
from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Report, Retired, fold_all, start
from tests.core.draw_oracle import World, drawn, world
from tests.strategies import Columns

ENVELOPE = sys.modules["bots_server.core.draw.envelope"]
NEAREST = sys.modules["bots_server.core.draw.nearest"]

OPTIONS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "uniform": {"uniform_fraction": 1.0},
    "partly uniform": {"uniform_fraction": 0.4},
    "greedy": {"greedy": True},
    "temperature": {"temperature": 0.1},
}

RETIRED = [7, 34, 102, 300]


def place() -> World:
    """Returns 600 tasks with 3 tags, some deviating, some resting, some retired."""
    deviating = {task: (1.0 + task % 3, 2.0) for task in range(0, 600, 17)}
    strata = [(2.0, 2.0, 300), (5.0, 4.0, 200), (1.0, 3.0, 97), (9.0, 2.0, 3)]
    return world(strata, deviating, tags=3, previous=range(0, 600, 51), current=range(3, 600, 70), retired=RETIRED)


def draw(
    where: World,
    seed: int,
    name: str,
    *,
    excluded: Sequence[int] = (),
    tags: Sequence[int] | None = None,
    quotas: Mapping[int, int] | None = None,
    batch_size: int = 9,
) -> Draw:
    """Returns one selection of 9 tasks."""
    return drawn(
        np.random.default_rng(seed),
        where,
        batch_size=batch_size,
        excluded=np.array(excluded, np.int64),
        any_of=tags,
        quotas=quotas,
        **OPTIONS[name],
    )


def lists(offers: Sequence[Candidates]) -> list[list[int]]:
    """Returns the tasks of each part."""
    return [offer.tasks.tolist() for offer in offers]


@pytest.mark.parametrize("quotas", [None, {2: 4, 0: 5}])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_offer_is_the_beginning_of_any_larger_one(name: str, quotas: Mapping[int, int] | None) -> None:
    """Offers of one seed are beginnings of one sequence, whatever was offered before."""
    where = place()
    stepwise = draw(where, 4, name, quotas=quotas)
    at_once = draw(where, 4, name, quotas=quotas).offer(900)
    before: list[Candidates] = []
    for spare in (0, 3, 40, 900, 900):
        offers = stepwise.offer(spare)
        for small, large in zip(before, offers, strict=bool(before)):
            assert large.tasks[: len(small.tasks)].tolist() == small.tasks.tolist()
        for small, large in zip(offers, at_once, strict=True):
            assert large.tasks[: len(small.tasks)].tolist() == small.tasks.tolist()
            np.testing.assert_array_equal(large.draws[: len(small.draws)], small.draws)
            assert len(small.tasks) >= min(small.need + spare, len(large.tasks))
            assert large.exhausted
        before = offers
    assert lists(before) == lists(at_once)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_exhausted_offer_has_everything_eligible_once(name: str) -> None:
    """An offer with spare enough lists each eligible task once, and says so."""
    where = place()
    excluded = [5, 599, 17, 34]
    fits = np.ones(600, np.bool_)
    fits[[*excluded, *RETIRED]] = False
    for offer in draw(where, 4, name, excluded=excluded).offer(1000):
        assert offer.exhausted
        assert sorted(offer.tasks.tolist()) == np.flatnonzero(fits).tolist()
        assert (np.diff(where.rank[offer.tasks]) >= 0).all()
        np.testing.assert_array_equal(offer.resting, where.rank[offer.tasks] > 0)
        decided = name in ("nearest", "temperature") or (name == "partly uniform" and not offer.uniform)
        assert np.isfinite(offer.draws).all() if decided else np.isnan(offer.draws).all()
    (some, *_) = draw(where, 4, name, excluded=excluded).offer(3)
    assert not some.exhausted


@pytest.mark.parametrize("name", OPTIONS)
def test_same_seed_version_and_eligible_set_same_batch(name: str) -> None:
    """Same seed, version and eligible set: same batch."""
    where = place()
    quotas = {0: 2, 1: 4, 2: 3}
    resting = np.flatnonzero(where.rank).tolist()
    untagged = np.flatnonzero(np.asarray(where.tasks.tag) == 2).tolist()
    excluded = [9, 400, 5, 9, 18, 599]
    first = take(draw(where, 1, name, excluded=excluded, quotas=quotas).offer(0))
    again = take(draw(where, 1, name, excluded=sorted(excluded), quotas=dict(reversed(quotas.items()))).offer(77))
    cool = take(draw(where, 1, name, excluded=[*resting, *RETIRED, *excluded], quotas=quotas).offer(5))
    for other in (again, cool):
        for got, expected in zip(other, first, strict=True):
            np.testing.assert_array_equal(got, expected)
    tagged = take(draw(where, 1, name, tags=[1, 0]).offer(0))
    same = take(draw(where, 1, name, tags=[0, 1], excluded=untagged).offer(0))
    np.testing.assert_array_equal(same[0], tagged[0])
    np.testing.assert_array_equal(same[1], tagged[1])
    assert take(draw(where, 2, name, excluded=excluded, quotas=quotas).offer(0))[0].tolist() != first[0].tolist()


def test_the_batch_takes_each_part_in_order() -> None:
    """A part takes its first candidates that no earlier part took."""

    def part(tag: int | None, uniform: bool, need: int, tasks: list[int]) -> Candidates:
        rests = np.array(tasks) == 2
        return Candidates(tag, uniform, need, np.array(tasks), np.array(tasks) / 100, rests, exhausted=False)

    offers = [part(0, True, 2, [7, 3, 9]), part(0, False, 3, [3, 1, 7, 2, 9]), part(5, False, 1, [4, 8])]
    tasks, draws, resting = take(offers)
    assert resting == 1
    assert tasks.tolist() == [7, 3, 1, 2, 9, 4]
    assert draws.tolist() == [0.07, 0.03, 0.01, 0.02, 0.09, 0.04]
    assert take([])[0].tolist() == []


def test_parts_are_ordered_and_say_what_they_need() -> None:
    """Parts come by tag, the uniform picks of a tag first; their needs add up to the batch."""
    offers = draw(place(), 6, "partly uniform", quotas={2: 20, 0: 30}, batch_size=50).offer(1)
    assert [(offer.tag, offer.uniform) for offer in offers] == [(0, True), (0, False), (2, True), (2, False)]
    assert [offers[0].need + offers[1].need, offers[2].need + offers[3].need] == [30, 20]
    assert [(offer.tag, offer.uniform, offer.need) for offer in draw(place(), 6, "nearest").offer(1)] == [
        (None, False, 9)
    ]


def test_counts_say_why_tasks_are_not_eligible() -> None:
    """Asked tasks are excluded, retired (if not excluded), resting (if neither) or eligible."""
    where = place()
    tag = np.asarray(where.tasks.tag)
    asked, resting, retired = np.isin(tag, [0, 2]), where.rank > 0, np.isin(np.arange(600), RETIRED)
    excluded = np.union1d(np.flatnonzero(resting)[:4], np.arange(30))
    out = np.isin(np.arange(600), excluded)
    counts = draw(where, 1, "nearest", tags=[2, 0], excluded=[*excluded, *excluded]).counts
    assert counts.asked == asked.sum()
    assert counts.excluded == (asked & out).sum()
    assert counts.retired == (asked & retired & ~out).sum()
    assert counts.resting == (asked & resting & ~retired & ~out).sum()
    assert counts.eligible == (asked & ~resting & ~retired & ~out).sum()
    assert draw(where, 1, "nearest").counts.eligible == (~resting & ~retired).sum()


def test_nothing_rests_without_rest() -> None:
    """With rest 0 the tasks that rested are eligible at once."""
    where = place()
    restless = replace(where.posterior, hyperparameters=replace(where.posterior.hyperparameters, rest=0.0))
    assert draw(replace(where, posterior=restless), 1, "nearest").counts.resting == 0


def test_a_quota_or_weight_of_0_is_none_of_the_tag() -> None:
    """No task of such a tag is selected, and `fill` takes nothing from it."""
    where = place()
    tag = np.asarray(where.tasks.tag)
    few = np.flatnonzero(tag == 2)[3:]
    rng = np.random.default_rng(1)
    for asked in ({"quotas": {0: 0, 1: 6, 2: 4}}, {"weights": {0: 0.0, 1: 6.0, 2: 1e9}}):
        draw = drawn(rng, where, batch_size=10, excluded=few, fill=True, **asked)
        tasks, _, resting = take(draw.offer(0))
        assert (len(tasks), resting) == (10, 0)
        assert np.bincount(tag[tasks], minlength=3)[0] == 0
        assert np.bincount(tag[tasks], minlength=3)[2] <= 3


@pytest.mark.parametrize("name", OPTIONS)
def test_too_few_eligible_are_all_offered(name: str) -> None:
    """If fewer are available than asked for, the offer holds all of them."""
    where = place()
    tag = np.asarray(where.tasks.tag)
    keep = [1, 3, 4]
    excluded = np.setdiff1d(np.arange(600), keep).tolist()
    selection = draw(where, 1, name, excluded=excluded)
    assert sorted(take(selection.offer(0))[0].tolist()) == keep
    quotas = {int(tag[1]): 7, int((tag[1] + 1) % 3): 2}
    selection = draw(where, 1, name, excluded=np.setdiff1d(np.flatnonzero(tag == tag[1]), [1]).tolist(), quotas=quotas)
    assert len(take(selection.offer(0))[0]) == 3
    nothing = draw(where, 1, name, excluded=range(600))
    assert nothing.counts.eligible == 0
    assert take(nothing.offer(5))[0].tolist() == []


def test_a_pending_task_is_selected_by_what_is_pending() -> None:
    """Selections see pending outcomes."""
    where = world([(1.0, 1.0, 40)])
    failures = gather(np.arange(39), np.zeros(39), np.full(39, 400))
    pending = replace(where.posterior, state=replace(where.posterior.state, pending=failures))
    rng = np.random.default_rng(1)
    chosen = [
        take(drawn(rng, replace(where, posterior=pending), batch_size=1, target=1.0).offer(0))[0][0] for _ in range(20)
    ]
    assert chosen == [39] * 20


def test_with_features_every_task_is_an_individual() -> None:
    """A run of item_response over features selects, rests and retires as any other."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 2)).astype(np.float32)
    tasks = Columns(50, {}, tag=np.arange(50, dtype=np.uint32) % 2, tags=("a", "b"), features=features).arranged()
    posterior = start(tasks, Hyperparameters(rest=1.0), "item_response")
    evidence = gather(np.arange(10), np.arange(10.0), np.full(10, 10))
    posterior = fold_all(posterior, tasks, [Report(evidence, 1), Retired(np.array([11, 13]))])
    draw = Draw(rng, posterior, tasks, SelectionSpec(batch_size=44, any_of=(0, 1)))
    assert draw.counts == Counts(asked=50, excluded=0, retired=2, resting=10, eligible=38)
    chosen, draws, resting = take(draw.offer(0))
    assert sorted(chosen[:38].tolist()) == [10, 12, *range(14, 50)]
    assert (np.diff(np.abs(draws[:38] - 0.5)) >= 0).all()
    assert resting == 6
    assert (chosen[38:] < 10).all()


@pytest.mark.parametrize("name", ["nearest", "partly uniform", "greedy"])
def test_cost_does_not_grow_with_the_dataset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarantee 5, counted in the draws that a selection makes."""
    made: list[int] = []
    propose, outright = ENVELOPE.propose, NEAREST.Nearest._draw

    def counting(rng: object, of: object, which: NDArray[np.int64]) -> object:
        made.append(len(which))
        return propose(rng, of, which)

    def counting_outright(self: object, rng: object, entity: object, count: NDArray[np.int64], *beyond: object) -> None:
        made.append(int(count.sum()))
        outright(self, rng, entity, count, *beyond)

    monkeypatch.setattr(NEAREST, "propose", counting)
    monkeypatch.setattr(NEAREST.Nearest, "_draw", counting_outright)
    draws = {}
    for size in (500, 50_000):
        shapes = [(1.0 + k, 21.0 - k, size) for k in range(20)]
        where = world(shapes, dict.fromkeys(range(300), (3.0, 4.0)))
        made.clear()
        for seed in range(20):
            draw(where, seed, name, excluded=range(500, 700)).offer(16)
        draws[size] = sum(made) / 20
    assert max(draws.values()) < 500
    assert draws[50_000] < draws[500] + 100
