"""The integrals over one logit."""

import numpy as np
import pytest

from bots_server.core.item_response.moments import after_outcome, matching_beta
from tests.core.item_response_oracle import beta_of, product

LOGITS = [(0.0, 4.0), (2.0, 1.0), (-3.0, 9.0), (6.0, 0.25), (-8.0, 20.0), (1.0, 0.01)]
OUTCOMES = [(0, 8), (8, 8), (3, 8), (0.5, 1), (64, 128), (1, 1024), (1024, 1024), (512, 1024)]


@pytest.mark.parametrize(("mean", "variance"), LOGITS)
@pytest.mark.parametrize(("k", "n"), OUTCOMES)
def test_outcome_is_the_quadrature_of_the_model(mean: float, variance: float, k: float, n: float) -> None:
    """Mean, variance and normaliser of Normal x p^k (1 - p)^(n - k) are sums over 21 points about the mean."""
    after = [float(part[0]) for part in after_outcome(*np.array([[mean], [variance], [k], [n]]))]
    np.testing.assert_allclose(after, product(mean, variance, k, n), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(10_000,), (1_000, 6)])
def test_many_outcomes_are_each_as_if_alone(shape: tuple[int, ...]) -> None:
    """To the bit: outcomes are computed in blocks."""
    rng = np.random.default_rng(0)
    rollouts = rng.integers(1, 64, shape).astype(np.float64)
    columns = rng.normal(0, 3, shape), rng.random(shape) + 0.1, np.floor(rollouts * rng.random(shape)), rollouts
    together = np.array(after_outcome(*columns))
    for part in (slice(0, 1), slice(600, 700), slice(-1, None)):
        np.testing.assert_array_equal(np.array(after_outcome(*(column[part] for column in columns))), together[:, part])


def test_beta_has_the_moments_of_the_pass_rate() -> None:
    """Mean and variance of the Beta are those of the logit-normal."""
    mean, variance = np.array([0.0, 1.5, -4.0]), np.array([0.25, 1.0, 2.0])
    alpha, beta = matching_beta(mean, variance)
    samples = 1 / (1 + np.exp(-(mean[:, None] + np.sqrt(variance)[:, None] * np.linspace(-9, 9, 20_001))))
    density = np.exp(-0.5 * np.linspace(-9, 9, 20_001) ** 2)
    density /= density.sum()
    first, second = samples @ density, samples**2 @ density
    np.testing.assert_allclose(alpha / (alpha + beta), first, rtol=1e-6)
    expected = alpha * beta / ((alpha + beta) ** 2 * (alpha + beta + 1))
    np.testing.assert_allclose(expected, second - first**2, rtol=1e-4)


def test_beta_is_as_exact_for_easy_tasks_as_for_hard_ones() -> None:
    """Both ends of the scale are alike to the bit, and equal to extended precision."""
    mean, variance = (grid.ravel() for grid in np.meshgrid(np.linspace(0.2, 12, 60), [1e-3, 0.1, 1.0, 5.0, 25.0]))
    up, down = matching_beta(mean, variance), matching_beta(-mean, variance)
    np.testing.assert_array_equal(up[0], down[1])
    np.testing.assert_array_equal(up[1], down[0])
    np.testing.assert_allclose(up, beta_of(mean, variance), rtol=1e-9, atol=1e-5)
