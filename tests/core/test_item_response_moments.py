"""The integrals over one logit, against adaptive quadrature."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import log_expit

from bots_server.core.item_response.moments import after_outcome, matching_beta
from tests.core.item_response_oracle import beta_of

LOGITS = [(0.0, 4.0), (2.0, 1.0), (-3.0, 9.0), (6.0, 0.25), (-8.0, 20.0), (1.0, 0.01)]
OUTCOMES = [(0, 8), (8, 8), (3, 8), (0.5, 1), (64, 128), (1, 1024), (1024, 1024), (512, 1024)]


def exact(mean: float, variance: float, k: float, n: float) -> tuple[float, float, float]:
    """Returns mean, variance and log normaliser of the product, integrated adaptively."""

    def log_product(x: float) -> float:
        normal = -((x - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)
        return float(normal + k * log_expit(x) + (n - k) * log_expit(-x))

    grid = np.linspace(mean - 60 * np.sqrt(variance), mean + 60 * np.sqrt(variance), 200_001)
    logs = np.array([log_product(x) for x in grid[::20]])
    peak, top = float(grid[::20][logs.argmax()]), float(logs.max())
    wide = 12 * np.sqrt(variance)
    low, high = peak - wide, peak + wide
    inside = [peak + shift for shift in (-1.0, -0.2, 0.0, 0.2, 1.0) if low < peak + shift < high]

    def moment(power: int, about: float = 0.0) -> float:
        value, _ = quad(
            lambda x: (x - about) ** power * np.exp(log_product(x) - top), low, high, points=inside, limit=2000
        )
        return float(value)

    mass = moment(0)
    first = moment(1) / mass
    return first, moment(2, first) / mass, float(np.log(mass) + top)


@pytest.mark.parametrize(("mean", "variance"), LOGITS)
@pytest.mark.parametrize(
    ("k", "n"), [(0, 8), (8, 8), (3, 8), (0.5, 1), (64, 128), (1, 1024), (1024, 1024), (512, 1024)]
)
def test_outcome_equals_adaptive_quadrature(mean: float, variance: float, k: float, n: float) -> None:
    """Mean, variance and normaliser of Normal x p^k (1 - p)^(n - k) are right to 2% of the deviation, for any n."""
    after, left, log_mass = (float(part[0]) for part in after_outcome(*np.array([[mean], [variance], [k], [n]])))
    first, second, log_total = exact(mean, variance, k, n)
    assert abs(after - first) < 0.02 * np.sqrt(second)
    assert left == pytest.approx(second, rel=0.02)
    assert log_mass == pytest.approx(log_total, abs=0.02)


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
