"""Interpolation: the capability, and what it says about tasks that were not evaluated."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bots_server.core.evidence import capability, implicit_evidence, implicit_pass_rates
from bots_server.core.strata import Strata

NAN = float("nan")


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_the_first_estimate_starts_the_capability() -> None:
    """kappa_hat = (mean(k/n) - mean(w)) / (mean(s) - mean(w)), over the tasks that have references."""
    observed = np.array([0.25, 0.75, 0.0])
    assert capability(None, 0.9, f32(0, 0.5, NAN), f32(0.5, 1, NAN), observed) == 0.5


def test_later_estimates_smooth_it() -> None:
    """kappa <- smoothing kappa + (1 - smoothing) kappa_hat."""
    assert capability(2.0, 0.75, f32(0), f32(1), np.array([1.0])) == 0.75 * 2 + 0.25 * 1


@pytest.mark.parametrize("previous", [None, 0.25])
def test_it_stays_where_nothing_is_said(previous: float | None) -> None:
    """Without references, or where the mean references are less than 1e-3 apart, kappa stays."""
    one = np.ones(2)
    assert capability(previous, 0.9, f32(NAN, NAN), f32(NAN, NAN), one) == previous
    assert capability(previous, 0.9, f32(0, 0.5), f32(0.5, 0.0009), one) == previous
    assert capability(previous, 0.0, f32(0, 0.5), f32(0.5, 0.25), one) == 6.0


def test_implicit_pass_rates_lie_between_0_and_1() -> None:
    """~p = clip(w + kappa (s - w), 0, 1), also where the policy is below the weak or above the strong model."""
    weak, strong = f32(0.25, 0.5, 1, NAN), f32(0.75, 1, 0, NAN)
    np.testing.assert_array_equal(implicit_pass_rates(0.5, weak, strong), [0.5, 0.75, 0.5, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(2.0, weak, strong), [1, 1, 0, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(-1.0, weak, strong), [0, 0, 1, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(None, weak, strong), [NAN] * 4)


def test_implicit_evidence_needs_references_and_a_capability() -> None:
    """m rollouts at the implicit pass rate, and nothing for a stratum without references or before any kappa."""
    strata = Strata(f32(0.25, NAN), f32(0.75, NAN), np.ones(2), np.ones(2))
    for kappa, rollouts, expected in [
        (1.0, 8.0, [[6, 0], [2, 0]]),
        (None, 8.0, [[0, 0], [0, 0]]),
        (1.0, 0.0, [[0, 0], [0, 0]]),
    ]:
        np.testing.assert_array_equal(implicit_evidence(kappa, strata, rollouts), expected)
