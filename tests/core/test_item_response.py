"""The item_response model: equal to its dense form, whatever the columns and the history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.item_response import (
    ItemResponse,
    baseline,
    deviating,
    start,
    update,
)
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange
from tests.core.item_response_oracle import Oracle
from tests.strategies import examples

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
        return Oracle(self.references, self.tags, self.features, parameters.drift, parameters.residual_memory)


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


@examples(200)
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
