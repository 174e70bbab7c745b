"""What is shown of the item_response model, what another run takes over, and how well it tracks a policy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.item_response import ItemResponse, alpha_beta, carry, deviating, start, summarise, update
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange

DEFAULT = Hyperparameters()


def arranged(
    features: NDArray[np.float64] | None = None,
    names: tuple[str, ...] = (),
    references: NDArray[np.float64] | None = None,
    reference_names: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
) -> Tasks:
    """Returns the tasks of columns; task i has tag i modulo their number."""
    size = len(references if features is None else features)  # type: ignore[arg-type]
    builder = StrataBuilder(len(reference_names))
    stratum = builder.add(None if references is None else references.astype(np.float32), None, None, size)
    return arrange(
        builder.strata(),
        stratum,
        np.arange(size) % len(tags) if tags else None,
        tags,
        reference_names=reference_names,
        features=None if features is None else features.astype(np.float32),
        feature_names=names,
    )


def train(tasks: Tasks, hardness: NDArray[np.float64], steps: int, seed: int = 0) -> tuple[ItemResponse, list[float]]:
    """Trains a synthetic policy whose ability grows by 1/60 a step, by 16 Thompson-sampled tasks x 16 rollouts.

    Returns the state, and the correlation of posterior mean and truth after each 20 steps.
    """
    rng, state, found = np.random.default_rng(seed), start(tasks, DEFAULT), []
    every = np.arange(len(tasks))
    for step in range(steps + 1):
        truth = 1 / (1 + np.exp(hardness - step / 60 + 3))
        alpha, beta = alpha_beta(state, tasks, every)
        if step % 20 == 0 and step:
            found.append(float(np.corrcoef(alpha / (alpha + beta), truth)[0, 1]))
        chosen = np.argpartition(np.abs(rng.beta(alpha, beta) - 0.5), 16)[:16]
        successes = rng.binomial(16, truth[chosen]).astype(np.float64)
        state = update(state, tasks, DEFAULT, gather(chosen, successes, np.full(16, 16.0)))
    return state, found


def test_tracks_a_policy_that_learns() -> None:
    """The correlation of posterior mean and truth is the prototype's within what seeds differ by (.915 over 12)."""
    means = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((2000, 8))
        hardness = features @ rng.standard_normal(8) * 0.7 + rng.standard_normal(2000)
        means.append(np.mean(train(arranged(features, tuple("abcdefgh")), hardness, 300, seed)[1]))
    prototype = np.array([0.874, 0.908, 0.899, 0.866])  # of the same features, hardness and number of steps
    np.testing.assert_allclose(means, prototype, atol=0.01)


def test_weights_tell_what_makes_tasks_hard() -> None:
    """An input that makes tasks harder has a weight clearly below 0, one without effect a weight that may be 0."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((1000, 2))
    tasks = arranged(features, ("length", "noise"))
    state, _ = train(tasks, 1.5 * features[:, 0] + 0.5 * rng.standard_normal(1000), 200)
    summary = summarise(state, tasks)
    length, noise = summary.weights
    assert (length.input, noise.input) == ("feature:length", "feature:noise")
    assert length.mean < -5 * length.standard_deviation < 0
    assert abs(noise.mean) < 5 * noise.standard_deviation
    assert 0.5 < summary.explained_share < 1
    assert not summary.inputs_explain_nothing


def test_ability_is_the_mean_predicted_logit() -> None:
    """Ability and its deviation are those of the mean over tasks of x . theta, whatever the columns."""
    rng = np.random.default_rng(4)
    references = rng.random((300, 2))
    tasks = arranged(rng.standard_normal((300, 2)), ("a", "b"), references, ("weak", "strong"), ("x", "y", "z"))
    state, _ = train(tasks, 3 - 4 * references[:, 0], 30)
    x = np.column_stack(
        (
            np.ones(300),
            tasks.inputs.references[tasks.stratum],
            np.eye(3)[np.arange(300) % 3],
            np.asarray(tasks.features, np.float64),
        )
    )
    summary = summarise(state, tasks)
    assert summary.ability == pytest.approx((x @ state.mean).mean(), rel=1e-9)
    variance = (x @ state.mean).var()
    assert summary.explained_share == pytest.approx(variance / (variance + state.spread), rel=1e-9)


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0])
def test_warns_if_the_inputs_explain_nothing(spread: float) -> None:
    """Features without effect are reported as such after 300 steps, not before the first outcome."""
    rng = np.random.default_rng(5)
    tasks = arranged(rng.standard_normal((2000, 16)), tuple("abcdefghijklmnop"))
    assert not summarise(start(tasks, DEFAULT), tasks).inputs_explain_nothing
    state, _ = train(tasks, np.sqrt(spread) * rng.standard_normal(2000), 300)
    assert summarise(state, tasks).inputs_explain_nothing


@pytest.mark.parametrize("steps", [10, 50, 100, 200, 300])
def test_does_not_warn_if_they_explain_a_fifth(steps: int) -> None:
    """Features that explain a fifth of the variance of difficulty never raise the warning."""
    rng = np.random.default_rng(6)
    features = rng.standard_normal((2000, 16))
    tasks = arranged(features, tuple("abcdefghijklmnop"))
    state, _ = train(tasks, features @ np.full(16, 0.15) + 1.2 * rng.standard_normal(2000), steps)
    assert not summarise(state, tasks).inputs_explain_nothing


def test_a_run_without_inputs_does_not_warn() -> None:
    """Without columns there is nothing that could explain."""
    tasks = arranged(np.empty((50, 0)))
    state, _ = train(tasks, np.zeros(50), 19)
    summary = summarise(state, tasks)
    assert summary.weights == ()
    assert not summary.inputs_explain_nothing


def test_carry_to_the_same_dataset_changes_nothing() -> None:
    """A fork goes on from the very state."""
    tasks = arranged(np.random.default_rng(7).standard_normal((100, 2)), ("a", "b"), tags=("x", "y"))
    state, _ = train(tasks, np.zeros(100), 19)
    carried = carry(state, tasks, tasks, np.arange(100))
    for got, expected in zip(deviating(carried, tasks), deviating(state, tasks), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_carry_goes_by_name_and_by_task() -> None:
    """Weights go to the inputs of their name, residuals to their task, and what is new starts at its prior."""
    rng = np.random.default_rng(8)
    old = arranged(rng.standard_normal((60, 2)), ("a", "b"), rng.random((60, 1)), ("weak",), ("x", "y"))
    state, _ = train(old, rng.standard_normal(60), 40)
    new = arranged(rng.standard_normal((50, 2)), ("b", "c"), rng.random((50, 2)), ("weak", "strong"), ("y", "z"))
    row = np.where(np.arange(50) < 30, np.arange(50)[::-1], -1)
    carried = carry(state, old, new, row)
    names = ("intercept", "reference:weak", "reference:strong", "tag:y", "tag:z", "feature:b", "feature:c")
    assert new.inputs.names == names
    assert old.inputs.names == ("intercept", "reference:weak", "tag:x", "tag:y", "feature:a", "feature:b")
    known, source = [0, 1, 3, 5], [0, 1, 3, 5]
    np.testing.assert_array_equal(carried.mean[known], state.mean[source])
    np.testing.assert_array_equal(carried.covariance[np.ix_(known, known)], state.covariance[np.ix_(source, source)])
    fresh = [2, 4, 6]
    np.testing.assert_array_equal(carried.mean[fresh], [0.5, 0, 0])
    np.testing.assert_array_equal(carried.covariance[fresh], np.diag([0, 0, 0.25, 0, 4, 0, 5])[fresh])
    before = dict(zip(state.residuals.tasks.tolist(), state.residuals.mean.tolist(), strict=True))
    after = dict(zip(carried.residuals.tasks.tolist(), carried.residuals.mean.tolist(), strict=True))
    assert after == {task: before[49 - task] for task in range(30) if 49 - task in before}
    assert len(after) > 5
    assert carried.spread == state.spread
