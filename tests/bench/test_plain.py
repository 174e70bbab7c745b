"""The rival of the bench is the method, not something easier."""

import numpy as np
import pytest

from tests.bench.plain import Plain
from tests.core.oracle import Oracle


@pytest.mark.parametrize("references", [True, False])
def test_the_rival_of_the_bench_gives_the_posterior_of_the_oracle(references: bool) -> None:
    """Plain numpy of the bench and the oracle of the tests agree to rounding, with and without references."""
    rng = np.random.default_rng(7)
    size = 50
    weak = rng.integers(0, 9, size) / 16 if references else None
    strong = None if weak is None else weak + rng.integers(0, 8, size) / 16
    unknown = np.full(size, np.nan)
    oracle = Oracle(
        unknown if weak is None else weak, unknown if strong is None else strong, np.ones(size), np.ones(size)
    )
    plain = Plain(np.ones(size), np.ones(size), weak, strong)
    for _ in range(20):
        tasks = plain.select(rng, 8)
        successes = rng.integers(0, 17, 8).astype(np.float64)
        rollouts = np.full(8, 16.0)
        plain.update(tasks, successes, rollouts)
        oracle.report(tasks.tolist(), successes.tolist(), rollouts.tolist())
    assert plain.capability == pytest.approx(oracle.kappa)
    np.testing.assert_allclose(plain.alpha, oracle.alpha, rtol=1e-9)
    np.testing.assert_allclose(plain.beta, oracle.beta, rtol=1e-9)
