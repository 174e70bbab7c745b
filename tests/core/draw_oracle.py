"""Selection in its plain O(N) form, what the tests select from, and the test that two samples have one distribution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bots_server.core.coverage import restored
from bots_server.core.deviations import Deviations
from bots_server.core.draw import Draw, SelectionSpec, take
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.interpolation import Interpolation
from bots_server.core.posterior import Posterior, alpha_beta, individuals, start
from bots_server.core.strata import Strata
from bots_server.core.task_set import NO_TASKS, with_tasks
from bots_server.core.tasks import Tasks, arrange

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Probability that a statistical test fails if nothing is wrong.
ERROR = 1e-9


@dataclass(frozen=True)
class World:
    """Tasks with their posterior, and the same as plain columns.

    alpha, beta: `[N]`
    rank:        `[N]` 0: does not rest; 1: rests and comes back first; 2: rests
    kind:        `[N]` the stratum of a task; of the i-th deviating task: number of strata + i
    """

    tasks: Tasks
    posterior: Posterior
    alpha: Floats
    beta: Floats
    rank: NDArray[np.int8]
    kind: Ints


def world(
    strata: Sequence[tuple[float, float, int]],
    deviating: Mapping[int, tuple[float, float]] | None = None,
    *,
    tags: int = 0,
    previous: Sequence[int] = (),
    current: Sequence[int] = (),
    retired: Sequence[int] = (),
) -> World:
    """Returns tasks of strata (alpha, beta, size) in a shuffled order, some deviating by (alpha, beta).

    With `tags`, each task has one of as many, at random. The tasks of `current` and of `previous` rest.
    """
    order = np.random.default_rng(7)
    stratum = order.permutation(np.repeat(np.arange(len(strata)), [size for _, _, size in strata]))
    tag = order.integers(0, tags, len(stratum)) if tags else None
    prior = np.full(len(strata), 1e-9)
    none = np.empty((len(strata), 0), np.float32)
    tasks = arrange(Strata(none, prior, prior), stratum, tag, [f"tag {k}" for k in range(tags)])
    own = sorted((deviating or {}).items())
    deviations = Deviations(
        np.array([task for task, _ in own], np.int64),
        np.array([alpha for _, (alpha, _) in own], np.float64),
        np.array([beta for _, (_, beta) in own], np.float64),
    )
    alpha, beta = (np.array([row[column] for row in strata], np.float64) for column in (0, 1))
    first = start(tasks, Hyperparameters(rest=1.0), "interpolation")
    sets = [with_tasks(NO_TASKS, np.unique(np.array(held, np.int64)), len(tasks)) for held in (current, previous)]
    coverage = restored(tasks, 0, 0, NO_TASKS, *sets)
    state = replace(first.state, learned=Interpolation(None, alpha, beta, deviations), coverage=coverage)
    posterior = replace(first, state=state, retired=np.unique(np.array(retired, np.int64)))
    alpha, beta = alpha_beta(posterior, tasks, None)
    kind = tasks.stratum.astype(np.int64)
    kind[individuals(posterior, tasks).tasks] = len(strata) + np.arange(len(own))
    return World(tasks, posterior, alpha, beta, coverage.rank(np.arange(len(tasks))), kind)


def drawn(rng: np.random.Generator, where: World, *, target: float = 0.5, **asked: Any) -> Draw:
    """Returns one selection. Tags and their values may be lists, arrays and mappings in place of tuples."""
    given: dict[str, Any] = {
        name: tuple(value.items()) if isinstance(value, Mapping) else value for name, value in asked.items()
    }
    for name in ("any_of", "excluded"):
        if given.get(name) is not None:
            given[name] = tuple(np.asarray(given[name]).tolist())
    return Draw(rng, where.posterior, where.tasks, SelectionSpec(target=target, **given))


@dataclass(frozen=True)
class Batches:
    """B batches of n tasks: `tasks` `[B, n]` and `draws` `[B, n]`, in the order of selection."""

    tasks: Ints
    draws: Floats


def ours(where: World, batches: int, seed: int, **choice: Any) -> Batches:
    """Returns batches of the selection under test."""
    rng = np.random.default_rng(seed)
    taken = [take(drawn(rng, where, **choice).offer(0)) for _ in range(batches)]
    return Batches(np.array([tasks for tasks, _, _ in taken]), np.array([draws for _, draws, _ in taken]))


def plain(
    where: World,
    batches: int,
    seed: int,
    *,
    eligible: Sequence[int] | Ints | None = None,
    batch_size: int,
    target: float,
    greedy: bool = False,
    temperature: float = 0.0,
    uniform: int = 0,
) -> Batches:
    """Returns batches selected by a draw of every eligible task; `uniform` of each batch are drawn uniformly first."""
    rng = np.random.default_rng(seed)
    which = np.arange(len(where.tasks)) if eligible is None else np.asarray(eligible, np.int64)
    alpha, beta, shape = where.alpha[which], where.beta[which], (batches, len(which))
    if target > 0.5:  # from the other end: floats near 1 are coarse, and would tie
        failure_rates = rng.beta(beta, alpha, shape)
        pass_rates, score = 1 - failure_rates, np.abs(failure_rates - (1 - target))
    else:
        pass_rates = rng.beta(alpha, beta, shape)
        score = np.abs(pass_rates - target)
    if greedy:
        score = np.array(np.broadcast_to(np.abs(alpha / (alpha + beta) - target), shape))
    if temperature:
        score = score / temperature - rng.gumbel(size=shape)
    first = rng.random(shape).argsort(1)[:, :uniform]  # before all others
    np.put_along_axis(score, first, -1e9 - rng.random(first.shape), 1)
    if greedy and not temperature:
        order = np.lexsort((rng.random(shape), score))[:, :batch_size]
    else:  # no ties
        order = np.argpartition(score, batch_size - 1, 1)[:, :batch_size]
        order = np.take_along_axis(order, np.take_along_axis(score, order, 1).argsort(1), 1)
    draws = np.take_along_axis(np.full(shape, np.nan) if greedy else pass_rates, order, 1)
    draws[:, :uniform] = np.nan
    return Batches(which[order], draws)


def assert_same(a: Sequence[int] | Ints, b: Sequence[int] | Ints) -> None:
    """Fails if two samples of categories do not have the same distribution (chi-square)."""
    table = np.array([np.bincount(sample, minlength=max(np.max(a), np.max(b)) + 1) for sample in (a, b)])
    table = table[:, table.sum(0).argsort()]
    rare = np.cumsum(table.sum(0)) < 60  # too few for the chi-square distribution: one category
    table = np.concatenate((table[:, rare].sum(1, keepdims=True), table[:, ~rare]), 1)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] > 1:
        assert stats.chi2_contingency(table, correction=False).pvalue > ERROR, table


def assert_same_numbers(a: Floats, b: Floats) -> None:
    """Fails if two samples of numbers do not have the same distribution, or only one of them is all NaN."""
    none, no = np.isnan(a), np.isnan(b)
    assert none.all() == no.all()
    if not none.all():
        assert not np.isnan(np.concatenate((a, b))).any()
        edges = np.quantile(np.concatenate((a, b)), np.linspace(0, 1, 13)[1:-1])
        assert_same(np.digitize(a, edges), np.digitize(b, edges))


def assert_frequencies(counts: Sequence[int] | Ints, probabilities: Sequence[float] | Floats) -> None:
    """Fails if counts of categories do not fit exact probabilities (chi-square)."""
    expected = np.asarray(probabilities) * np.sum(counts)
    assert expected.min() >= 5, "too few for the chi-square distribution"
    assert stats.chisquare(counts, expected).pvalue > ERROR, np.array([counts, expected])


def assert_same_batches(where: World, a: Batches, b: Batches, target: float, *, by_task: bool = False) -> None:
    """Fails if two samples of batches do not have the same distribution.

    Compared are, one category a batch each: the task (or its kind) chosen first, in the middle and last; the distance
    of its draw; how many of the batch are of the most frequent kind.
    """
    category: Callable[[Ints], Ints] = (lambda tasks: tasks) if by_task else where.kind.take
    size = a.tasks.shape[1]
    for rank in {0, size // 2, size - 1}:
        assert_same(category(a.tasks[:, rank]), category(b.tasks[:, rank]))
        assert_same_numbers(np.abs(a.draws[:, rank] - target), np.abs(b.draws[:, rank] - target))
    most = np.bincount(where.kind.take(b.tasks.ravel())).argmax()
    assert_same((where.kind.take(a.tasks) == most).sum(1), (where.kind.take(b.tasks) == most).sum(1))
