"""The rivals of the bench are the models, not something easier."""

import numpy as np
import pytest

from bots_server.core.inputs import Rows, matrix
from tests.bench.plain import PlainInterpolation, PlainItemResponse
from tests.bench.workload import workload
from tests.core import item_response_oracle
from tests.core.oracle import oracle
from tests.strategies import given_values


@pytest.mark.parametrize("references", [True, False])
def test_plain_interpolation_gives_the_posterior_of_the_oracle(references: bool) -> None:
    """Plain numpy of the bench and the oracle of the tests agree to rounding, with and without references."""
    rng = np.random.default_rng(7)
    size = 50
    weak = rng.integers(0, 9, size) / 16 if references else None
    strong = None if weak is None else weak + rng.integers(0, 8, size) / 16
    unknown, ones = np.full(size, np.nan), np.ones(size)
    each = {"weak": unknown if weak is None else weak, "strong": unknown if strong is None else strong}
    truth = oracle(each | {"prior_alpha": ones, "prior_beta": ones}, given_values({}))
    plain = PlainInterpolation(ones.copy(), ones.copy(), weak, strong)
    for _ in range(20):
        tasks = plain.select(rng, 8)
        successes = rng.integers(0, 17, 8).astype(np.float64)
        plain.update(tasks, successes, np.full(8, 16.0))
        truth.report(tasks.tolist(), successes.tolist(), [16.0] * 8)
    now = truth.now()
    assert plain.capability == pytest.approx(now.kappa)
    np.testing.assert_allclose(plain.alpha, now.alpha, rtol=1e-9)
    np.testing.assert_allclose(plain.beta, now.beta, rtol=1e-9)


def test_plain_item_response_gives_the_posterior_of_the_oracle() -> None:
    """Plain numpy of the bench and the oracle of the tests agree, but for the quadrature of narrow Betas."""
    rng = np.random.default_rng(7)
    work = workload(50, "features")
    assert work.features is not None
    tasks = work.arranged()
    truth = item_response_oracle.Oracle(np.empty((50, 0), np.float32), [0] * 50, 0, work.features)
    x = matrix(tasks.inputs, Rows(tasks.stratum, tasks.tag, tasks.features))
    prior = tasks.inputs
    plain = PlainItemResponse(x, prior.mean, np.diag(prior.variance), prior.walk, np.array(truth.grid), truth.s2)
    for _ in range(20):
        chosen = plain.select(rng, 8)
        successes = rng.integers(0, 17, 8).astype(np.float64)
        plain.update(chosen, successes, np.full(8, 16.0))
        truth.update(chosen.tolist(), successes.tolist(), [16.0] * 8)
    np.testing.assert_allclose(plain.alpha_beta(), truth.alpha_beta(), rtol=1e-6)
