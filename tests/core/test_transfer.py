"""A run that goes on from another one's posterior, over the same dataset or another."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Posterior, alpha_beta, fold
from bots_server.core.statistics import SIZE
from bots_server.core.transfer import transfer
from tests.core.test_posterior import begun, bits, folded, play, report
from tests.strategies import Columns, Outcomes, Step, columns, runs


@given(folded())
def test_a_fork_goes_on_from_every_bit(run: tuple[Columns, list[Posterior], list[Step]]) -> None:
    """Over the same dataset the fork has the model's state, what rests and what is retired; its statistics are new."""
    dataset, (*_, state), _ = run
    tasks = dataset.arranged()
    fork = transfer(state, tasks, tasks, np.arange(len(tasks)), state.hyperparameters)
    assert (fork.version, fork.model, fork.open, fork.state.updates) == (0, state.model, (), 0)
    for got, expected in zip(alpha_beta(fork, tasks, None), alpha_beta(state, tasks, None), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=0)
    assert bits(fork.state.pending) == bits(state.state.pending)
    assert fork.retired.tolist() == state.retired.tolist()
    every = np.arange(len(tasks))
    assert fork.state.coverage.rank(every).tolist() == state.state.coverage.rank(every).tolist()
    assert (fork.state.coverage.evaluations, len(fork.state.coverage.ever)) == (0, 0)
    assert bits(fork.state.total) == bits(np.zeros(SIZE))


@given(st.data())
def test_evidence_goes_along_by_task(data: st.DataObject) -> None:
    """On another dataset a kept task has its evidence, and a new one its prior."""
    dataset, begin, history = data.draw(runs())
    old, new = dataset.arranged(), data.draw(columns()).arranged()
    state = play(old, begun(old, begin), history)[1][-1]
    shared = data.draw(st.permutations(range(len(old))))[: data.draw(st.integers(0, min(len(old), len(new))))]
    row = np.full(len(new), -1)
    row[data.draw(st.permutations(range(len(new))))[: len(shared)]] = shared
    given_values = replace(state.hyperparameters, rollouts_per_update=10**9)
    moved = transfer(state, old, new, row, given_values)
    kept = row >= 0
    columns_of = zip(
        alpha_beta(state, old, None),
        alpha_beta(moved, new, None),
        (old.strata.prior_alpha, old.strata.prior_beta),
        (new.strata.prior_alpha, new.strata.prior_beta),
        strict=True,
    )
    for was, now, old_prior, new_prior in columns_of:
        evidence = np.where(kept, (was - old_prior.take(old.stratum)).take(row), 0)
        np.testing.assert_allclose(now - new_prior.take(new.stratum), evidence, rtol=1e-9, atol=1e-5)
    rank = state.state.coverage.rank(row)
    assert moved.state.coverage.rank(np.arange(len(new))).tolist() == np.where(kept, rank, 0).tolist()
    retired = kept & np.isin(row, state.retired)
    assert moved.retired.tolist() == np.flatnonzero(retired).tolist()


def test_a_transferred_run_learns_on() -> None:
    """Carried evidence is forgotten like any other, and pending outcomes are applied if they are enough by now."""
    old, new = Columns(2, {}).arranged(), Columns(3, {}).arranged()
    state = fold(begun(old, {"rollouts_per_update": 100}), old, report(Outcomes((0, 1), (8.0, 0.0), (8, 8))))
    moved = transfer(state, old, new, np.array([-1, -1, 0]), Hyperparameters())
    assert alpha_beta(moved, new, None)[0].tolist() == [1, 1, 9]
    assert (moved.state.updates, len(moved.state.pending)) == (1, 0)
    later = fold(moved, new, report(Outcomes((0,), (0.0,), (8,))))
    np.testing.assert_allclose(alpha_beta(later, new, None)[0], [1, 1, 1 + 8 * 0.9])
