"""Interpolation: the capability, what it says about tasks that were not evaluated, and one reference alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.interpolation import alpha_beta as some_alpha_beta
from bots_server.core.interpolation import (
    capability,
    carry,
    implicit_evidence,
    implicit_pass_rates,
    start,
    update,
    without_own,
)
from tests.strategies import Columns

NAN = float("nan")


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_the_first_estimate_of_a_full_span_starts_the_capability() -> None:
    """kappa_hat = (mean(k/n) - mean(w)) / (mean(s) - mean(w)), over the tasks that have references."""
    observed = np.array([0.25, 0.75, 0.0])
    assert capability(None, f32(0, 0.5, NAN), f32(0.5, 1, NAN), observed) == 0.5
    assert capability(None, f32(0, 0.5), f32(0.0625, 0.5625), observed[:2]) is None


def test_later_estimates_move_it_by_a_tenth() -> None:
    """kappa <- kappa + 0.1 omega (kappa_hat - kappa), omega = min(1, (span / 0.1)^2)."""
    assert capability(2.0, f32(0), f32(1), np.array([1.0])) == pytest.approx(2 - 0.1)
    assert capability(0.5, f32(0), f32(0.05), np.array([0.05])) == pytest.approx(0.5 + 0.1 * 0.25 * 0.5)


def test_one_report_never_throws_the_capability_far() -> None:
    """kappa_hat is clipped to [-1, 2], and references that hardly differ weigh next to nothing."""
    assert capability(None, f32(0), f32(0.125), np.array([1.0])) == 2.0
    assert capability(None, f32(0.5), f32(0.625), np.array([0.0])) == -1.0
    assert capability(0.5, f32(0.5), f32(0.501), np.array([1.0])) == pytest.approx(0.5, abs=2e-5)


@pytest.mark.parametrize("previous", [None, 0.25])
def test_it_stays_if_nothing_tells_it(previous: float | None) -> None:
    """Without references, or if the mean references are equal, kappa stays."""
    one = np.ones(2)
    assert capability(previous, f32(NAN, NAN), f32(NAN, NAN), one) == previous
    assert capability(previous, f32(0, 0.5), f32(0.5, 0), one) == previous


def test_implicit_pass_rates_lie_between_0_and_1() -> None:
    """~p = clip(w + kappa (s - w), 0, 1), also if the policy is below the weak or above the strong model."""
    weak, strong = f32(0.25, 0.5, 1, NAN), f32(0.75, 1, 0, NAN)
    np.testing.assert_array_equal(implicit_pass_rates(0.5, weak, strong), [0.5, 0.75, 0.5, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(2.0, weak, strong), [1, 1, 0, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(-1.0, weak, strong), [0, 0, 1, NAN])
    np.testing.assert_array_equal(implicit_pass_rates(None, weak, strong), [NAN] * 4)


def test_implicit_evidence_needs_references_and_a_capability() -> None:
    """m rollouts at the implicit pass rate, and nothing for a stratum without references or before any kappa."""
    tasks = Columns(2, {"weak": f32(0.25, NAN), "strong": f32(0.75, NAN)}).arranged()
    for kappa, rollouts, expected in [
        (1.0, 8.0, [[6, 0], [2, 0]]),
        (None, 8.0, [[0, 0], [0, 0]]),
        (1.0, 0.0, [[0, 0], [0, 0]]),
    ]:
        np.testing.assert_array_equal(implicit_evidence(kappa, tasks, rollouts), expected)


def test_one_reference_is_enough() -> None:
    """`strong` alone is the way from 0, `weak` alone the way to 1; other references are not used."""
    tasks = Columns(3, {"strong": f32(0.5, NAN, 1), "other": f32(0, 0, 0), "weak": f32(NAN, 0.5, NAN)}).arranged()
    state = start(tasks, Hyperparameters())
    state = update(state, tasks, Hyperparameters(), gather(np.array([0]), np.array([4.0]), np.array([16])))
    assert state.capability == 0.5
    assert without_own(state, tasks, np.arange(3)).tolist() == [0.25, 0.75, 0.5]


def test_a_posterior_is_carried_by_row() -> None:
    """Kept tasks have the pseudo-counts beyond their prior that they had; new ones start at their prior."""
    weak, strong = f32(0, 0, 0.25, 0.25, 0.25, NAN), f32(1, 1, 0.75, 0.75, 0.75, NAN)
    old = Columns(6, {"weak": weak, "strong": strong}).arranged()
    state = start(old, Hyperparameters())
    evidence = gather(np.array([0, 2]), np.array([4.0, 8.0]), np.array([16, 8]))
    for _ in range(3):
        state = update(state, old, Hyperparameters(), evidence)
    row = np.array([3, -1, 0, 2, -1, 4, 5, -1])
    prior = np.array([1.0, 1, 2, 1, 1, 2, 1, 3])
    new = Columns(
        8, {"strong": np.array([0.75, 0.5, 0.5, 0.75, 0.75, 0.75, 0.1, 0.1], np.float32)}, prior, prior
    ).arranged()
    alpha, beta = some_alpha_beta(state, old, np.arange(6))
    carried = carry(state, old, new, row)
    assert carried.capability == state.capability
    got = some_alpha_beta(carried, new, np.arange(8))
    for counts, was in zip(got, (alpha, beta), strict=True):
        np.testing.assert_allclose(counts, prior + np.where(row < 0, 0, was.take(row) - 1), rtol=0, atol=1e-5)
