"""The item_response model: equal to its dense form, whatever the columns and the history."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.item_response import (
    ItemResponse,
    Residuals,
    alpha_beta,
    baseline,
    deviating,
    start,
    update,
    without_own,
)
from bots_server.core.item_response.model import residuals_of
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange
from tests.core.item_response_oracle import Oracle

Step = tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]

DEFAULT = Hyperparameters()


@dataclass(frozen=True)
class Dataset:
    """N tasks: references `[N, R]`, tags `[N]` or None, features `[N, F]`."""

    references: NDArray[np.float32]
    tags: tuple[int, ...] | None
    features: NDArray[np.float32]

    def arranged(self) -> Tasks:
        size, r, f = len(self.references), self.references.shape[1], self.features.shape[1]
        builder = StrataBuilder(r)
        stratum = builder.add(self.references if r else None, None, None, size)
        return arrange(
            builder.strata(),
            stratum,
            None if self.tags is None else np.array(self.tags),
            () if self.tags is None else [f"t{tag}" for tag in range(max(self.tags) + 1)],
            reference_names=[f"r{column}" for column in range(r)],
            features=self.features if f else None,
            feature_names=[f"f{column}" for column in range(f)],
        )

    def oracle(self, parameters: Hyperparameters) -> Oracle:
        tag = self.tags or ()
        drift, rho = parameters.drift, parameters.residual_memory
        return Oracle(self.references, tag, max(tag, default=-1) + 1, self.features, drift, rho)


def matrices(size: int, most: int, value: st.SearchStrategy[float]) -> st.SearchStrategy[NDArray[np.float32]]:
    """Returns a strategy for `[size, 0 to most]` float32, a part of it NaN."""
    entry = value | st.just(float("nan"))
    return st.integers(0, most).flatmap(
        lambda width: st.lists(entry, min_size=size * width, max_size=size * width).map(
            lambda entries: np.array(entries, np.float32).reshape(size, width)
        )
    )


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    size = draw(st.integers(1, 9))
    tags = draw(st.none() | st.lists(st.integers(0, 3), min_size=size, max_size=size).map(tuple))
    return Dataset(
        references=draw(matrices(size, 3, st.integers(0, 16).map(lambda k: k / 16))),
        tags=tags,
        features=draw(matrices(size, 3, st.integers(-8, 8).map(lambda k: k / 4))),
    )


@st.composite
def outcomes(draw: st.DrawFn, size: int) -> Step:
    tasks = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4, unique=True).map(sorted))
    rollouts = [draw(st.sampled_from([1, 2, 8, 16, 128, 1024])) for _ in tasks]
    shares = [draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=16)) for _ in tasks]
    return (
        tuple(tasks),
        tuple(n * share for n, share in zip(rollouts, shares, strict=True)),
        tuple(map(float, rollouts)),
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[Dataset, Hyperparameters, list[Step]]:
    dataset = draw(datasets())
    parameters = Hyperparameters(
        drift=draw(st.sampled_from([0.01, 0.0, 0.3])),
        residual_memory=draw(st.sampled_from([0.99, 1.0, 0.5, 1e-3, 0.0])),
    )
    return dataset, parameters, draw(st.lists(outcomes(len(dataset.references)), min_size=1, max_size=12))


def evidence(step: Step) -> Evidence:
    tasks, successes, rollouts = step
    return Evidence(np.array(tasks, np.int64), np.array(successes, np.float64), np.array(rollouts, np.float64))


def play(tasks: Tasks, parameters: Hyperparameters, history: Sequence[Step]) -> ItemResponse:
    state = start(tasks, parameters)
    for step in history:
        state = update(state, tasks, parameters, evidence(step))
    return state


def every(state: ItemResponse, tasks: Tasks) -> NDArray[np.float64]:
    """Returns `[2, N]` alpha and beta as selection reads them: by cell, and by task if it deviates."""
    by_cell, (own, *own_shapes) = np.stack(baseline(state, tasks)), deviating(state, tasks)
    shapes = np.full((2, len(tasks)), np.nan)
    if tasks.features is None:
        shapes[:, :] = by_cell[:, tasks.cell_of(np.arange(len(tasks)))]
    shapes[:, own] = own_shapes
    return shapes


@given(runs())
def test_equals_the_dense_form(run: tuple[Dataset, Hyperparameters, list[Step]]) -> None:
    """Alpha and beta equal those of the oracle within 1e-4, and the ability and s2 too, after every update."""
    dataset, parameters, history = run
    tasks, oracle = dataset.arranged(), dataset.oracle(parameters)
    state = start(tasks, parameters)
    np.testing.assert_allclose(every(state, tasks), oracle.alpha_beta(), rtol=0, atol=1e-4)
    for step in history:
        state = update(state, tasks, parameters, evidence(step))
        oracle.update(*step)
        np.testing.assert_allclose(every(state, tasks), oracle.alpha_beta(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(state.mean, oracle.m, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(state.covariance, oracle.p, rtol=1e-6, atol=1e-9)
        assert state.spread == pytest.approx(oracle.s2, rel=1e-6)


def test_equals_the_dense_form_when_residuals_are_forgotten() -> None:
    """A residual of which rho^n < 1e-10 is left is forgotten: its task is as if never evaluated, for s2 too."""
    dataset = Dataset(np.full((40, 1), 0.5, np.float32), None, np.empty((40, 0), np.float32))
    parameters = Hyperparameters(residual_memory=0.9, drift=0.001)
    tasks, oracle, state = dataset.arranged(), dataset.oracle(parameters), start(dataset.arranged(), parameters)
    rng = np.random.default_rng(0)
    dropped = 0
    for number in range(700):
        # Most outcomes are of the first tasks; each of the others has one, and later one more.
        task = number // 10 % 40 if number % 10 == 0 else int(rng.integers(4))
        step = ((task,), (float(rng.integers(17)),), (16.0,))
        before = len(state.residuals)
        state = update(state, tasks, parameters, evidence(step))
        dropped += before + (task not in state.residuals.tasks) > len(state.residuals)
        oracle.update(*step)
        np.testing.assert_allclose(every(state, tasks), oracle.alpha_beta(), rtol=0, atol=1e-4)
        assert state.spread == pytest.approx(oracle.s2, rel=1e-6)
    assert dropped > 30
    assert len(state.residuals) < 30


@pytest.mark.parametrize("features", [0, 4])
def test_equals_the_prototype_over_300_updates(features: int) -> None:
    """A policy that learns, 8 tasks x 16 rollouts an update: alpha and beta of all tasks, seen or not, after each."""
    rng, size = np.random.default_rng(11), 400
    dataset = Dataset(
        rng.random((size, 2)).astype(np.float32),
        tuple(rng.integers(0, 5, size).tolist()),
        rng.standard_normal((size, features)).astype(np.float32),
    )
    tasks, oracle = dataset.arranged(), dataset.oracle(DEFAULT)
    state, hardness = start(tasks, DEFAULT), 4 * rng.random(size) - 4 * dataset.references.mean(1)
    tried = np.flatnonzero(rng.random(size) < 0.75)
    for number in range(300):
        chosen = np.sort(rng.choice(tried, 8, replace=False))
        successes = rng.binomial(16, 1 / (1 + np.exp(hardness[chosen] + 1 - number / 100)))
        step = (tuple(chosen.tolist()), tuple(map(float, successes.tolist())), (16.0,) * 8)
        state = update(state, tasks, DEFAULT, evidence(step))
        oracle.update(*step)
        np.testing.assert_allclose(every(state, tasks), oracle.alpha_beta(), rtol=0, atol=1e-4)
    assert 250 < oracle.seen.sum() < 350
    np.testing.assert_array_equal(state.residuals.tasks, np.flatnonzero(oracle.seen))


def test_new_estimate_of_s2_moves_only_tasks_without_outcomes() -> None:
    """A task with outcomes has v <- rho^2 v + (1 - rho^2) s2 with the s2 before the update; all others have s2."""
    dataset = Dataset(np.empty((8, 0), np.float32), None, np.empty((8, 0), np.float32))
    tasks, parameters = dataset.arranged(), Hyperparameters(residual_memory=0.8)
    state = play(tasks, parameters, [((0,), (4.0,), (16.0,))])
    for task in range(1, 7):  # first outcomes, from which s2 is estimated anew
        before, variance = state.spread, state.residuals.variance[0]
        state = update(state, tasks, parameters, evidence(((task,), (16.0,), (16.0,))))
        assert abs(state.spread / before - 1) > 1e-3
        assert state.residuals.variance[0] == pytest.approx(0.64 * variance + 0.36 * before, rel=1e-12)
        np.testing.assert_array_equal(
            residuals_of(state, np.array([7, 0]))[1], [state.spread, state.residuals.variance[0]]
        )


def packed(state: ItemResponse) -> ItemResponse:
    """Returns the state as it comes back from bytes: other memory, and nothing of it writable."""

    def load(array: NDArray[Any]) -> NDArray[Any]:
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)

    residuals = {field.name: load(getattr(state.residuals, field.name)) for field in fields(Residuals)}
    arrays = {name: load(getattr(state, name)) for name in ("mean", "covariance", "log_likelihood")}
    return ItemResponse(**arrays, residuals=Residuals(**residuals))


def bits(state: ItemResponse) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Returns everything that a state holds, to the last bit."""
    parts = [getattr(state, name) for name in ("mean", "covariance", "log_likelihood")]
    parts += [getattr(state.residuals, field.name) for field in fields(Residuals)]
    return [(part.dtype.str, part.shape, part.tobytes()) for part in parts]


@given(runs(), st.sets(st.integers(0, 11)))
def test_same_bits_if_stored_between_updates(
    run: tuple[Dataset, Hyperparameters, list[Step]], stored: set[int]
) -> None:
    """Every array is the same, bit for bit, whether and when the state was stored and loaded between updates."""
    dataset, parameters, history = run
    tasks = dataset.arranged()
    state = start(tasks, parameters)
    for position, step in enumerate(history):
        if position in stored:
            state = packed(state)
        state = update(state, dataset.arranged() if position in stored else tasks, parameters, evidence(step))
    assert bits(state) == bits(play(tasks, parameters, history))


@given(runs(), st.lists(st.integers(0, 8), max_size=12))
def test_some_tasks_are_read_as_all_are(run: tuple[Dataset, Hyperparameters, list[Step]], wanted: list[int]) -> None:
    """alpha_beta of any tasks in any order is what cells and deviating tasks say; no update changes its input."""
    dataset, parameters, history = run
    tasks = dataset.arranged()
    states = [start(tasks, parameters)]
    for step in history:
        before = bits(states[-1])
        states.append(update(states[-1], tasks, parameters, evidence(step)))
        assert bits(states[-2]) == before
    which = np.array([task % len(tasks) for task in wanted], np.int64)
    shapes = every(states[-1], tasks)
    np.testing.assert_allclose(alpha_beta(states[-1], tasks, which), shapes[:, which], rtol=1e-11, atol=0)
    assert (shapes >= 0.02).all()
    own = states[-1].residuals
    np.testing.assert_array_equal(own.tasks, np.unique(own.tasks))
    assert (own.variance > 0).all()
    # Without its own outcomes a task is predicted as one of its cell that has none.
    if tasks.features is None:
        alpha, beta = baseline(states[-1], tasks)
        cell = tasks.cell_of(which)
        expected = alpha[cell] / (alpha[cell] + beta[cell])
        np.testing.assert_allclose(without_own(states[-1], tasks, which), expected, rtol=1e-11)


@pytest.mark.parametrize("tags", [None, 200])
def test_stays_positive_definite_in_a_long_run(tags: int | None) -> None:
    """After 2,000 updates of extreme outcomes everything is finite, and P symmetric and positive definite."""
    rng = np.random.default_rng(1)
    size = 400
    features = rng.standard_normal((size, 8)).astype(np.float32)
    features[:, 1] = features[:, 0]  # collinear
    features[:, 2] = 3.0  # constant
    features[:, 3] = np.nan
    features[0, 4] = 1e30  # an outlier
    dataset = Dataset(
        np.where(rng.random((size, 3)) < 0.3, np.nan, rng.random((size, 3))).astype(np.float32),
        None if tags is None else tuple((np.arange(size) % tags).tolist()),
        features,
    )
    tasks, state = dataset.arranged(), start(dataset.arranged(), DEFAULT)
    for number in range(2000):
        chosen = np.sort(rng.choice(size // 2, 1 + number % 16, replace=False))  # half of the tasks are never tried
        rollouts = rng.choice([1.0, 16.0, 1024.0], len(chosen))
        share = float(number // 500 % 2) if number % 3 else rng.random(len(chosen))  # all fail, then all succeed
        state = update(state, tasks, DEFAULT, Evidence(chosen, rollouts * share, rollouts))
    np.testing.assert_array_equal(state.covariance, state.covariance.T)
    assert np.linalg.eigvalsh(state.covariance)[0] > 0
    for part in (state.mean, state.covariance, state.residuals.mean, state.residuals.variance, every(state, tasks)):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("columns", [255, 0])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.5, 1.0])
def test_any_outcome_is_taken_at_any_width(columns: int, share: float) -> None:
    """256 inputs or none, from 1 to 1024 rollouts, all failed or all solved, 1,000 outcomes at once: all is finite."""
    rng = np.random.default_rng(2)
    dataset = Dataset(np.empty((1000, 0), np.float32), None, rng.standard_normal((1000, columns)).astype(np.float32))
    tasks, state = dataset.arranged(), start(dataset.arranged(), DEFAULT)
    rollouts = np.resize([1.0, 2.0, 1024.0], 1000)
    for _ in range(3):
        state = update(state, tasks, DEFAULT, Evidence(np.arange(1000), rollouts * share, rollouts))
        assert np.isfinite(every(state, tasks)).all()
        assert np.linalg.eigvalsh(state.covariance)[0] > 0


def test_rare_tags_share_one_effect() -> None:
    """The 128 tags of most tasks have an effect each, in order of their number; all others have one together."""
    tags = tuple(range(130)) + tuple(range(1, 130)) + tuple(range(2, 130))  # of 1, 2, 3, 3, ... tasks
    dataset = Dataset(np.empty((len(tags), 0), np.float32), tags, np.empty((len(tags), 0), np.float32))
    tasks = dataset.arranged()
    assert tasks.inputs.names == ("intercept", *(f"tag:t{tag}" for tag in range(2, 130)), "tag:other")
    state = play(tasks, DEFAULT, [((0,), (16.0,), (16.0,))])
    p = without_own(state, tasks, np.array([0, 1, 2]))
    assert p[0] == pytest.approx(p[1], rel=1e-12)
    assert p[0] > p[2] + 0.05


def test_a_prior_is_one_more_reference() -> None:
    """Priors other than Beta(1, 1) act by their mean, as references do; a task without one counts as the mean."""
    builder = StrataBuilder(0)
    alphas, betas = np.array([3.0, 1.0, 1.0, 60.0]), np.array([1.0, 1.0, 3.0, 20.0])
    stratum = builder.add(None, alphas, betas, 4)
    tasks = arrange(builder.strata(), stratum)
    assert tasks.inputs.names == ("intercept", "prior")
    alpha, beta = alpha_beta(start(tasks, DEFAULT), tasks, np.arange(4))
    p = alpha / (alpha + beta)
    assert p[0] == pytest.approx(p[3], rel=1e-12)
    assert p[0] > p[1] > p[2]
    assert tasks.inputs.references[:, 0].tolist() == pytest.approx([np.log(3), np.log(3) / 3, -np.log(3), np.log(3)])


def test_a_missing_reference_counts_as_the_mean_of_its_column() -> None:
    """Of references .2, .8, .8 and none, the last is the mean of the three logits."""
    dataset = Dataset(np.array([[0.2], [0.8], [0.8], [np.nan]], np.float32), None, np.empty((4, 0), np.float32))
    tasks = dataset.arranged()
    logits = tasks.inputs.references[tasks.stratum, 0]
    np.testing.assert_allclose(logits, np.log(4) * np.array([-1, 1, 1, 1 / 3]), rtol=1e-6)


def test_reading_all_tasks_takes_no_copy_of_the_features() -> None:
    """A dataset of 32 features takes below 200 bytes a task, alpha and beta of all tasks at their reading included."""
    size = 200_000
    rng = np.random.default_rng(9)
    features = rng.standard_normal((size, 32)).astype(np.float32)
    tasks = Dataset(np.empty((size, 0), np.float32), None, features).arranged()
    state = play(tasks, DEFAULT, [((0, 7), (4.0, 12.0), (16.0, 16.0))])
    deviating(state, tasks)  # what is allocated once
    assert tasks.features is not None
    columns = (tasks.features, tasks.stratum, tasks.members)
    tracemalloc.start()
    try:
        read = deviating(state, tasks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read[0]) == size
    assert (sum(column.nbytes for column in columns) + peak) / size < 200
