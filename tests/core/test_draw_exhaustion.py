"""An offer goes on until everything eligible is in it, and ends."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from bots_server.core.draw import Draw, SelectionSpec
from bots_server.core.draw.nearest import Nearest
from bots_server.core.draw.pool import Parts
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import start
from bots_server.core.strata import Strata
from bots_server.core.tasks import arrange


def test_strata_of_few_tasks_are_offered_to_the_last_task() -> None:
    """If all tasks but a few are leased, the offer goes on outward to every task, each of them once.

    A stratum of five may have all its tasks propose in vain before the last ring.
    """
    strata, each = 500, 5
    none = np.empty((strata, 0), np.float32)
    shapes = Strata(none, np.linspace(1.0, 3.0, strata), np.linspace(3.0, 1.0, strata))
    tasks = arrange(shapes, np.repeat(np.arange(strata, dtype=np.uint32), each))
    posterior = start(tasks, Hyperparameters(), "interpolation")
    for seed in range(10):
        draw = Draw(np.random.default_rng(seed), posterior, tasks, SelectionSpec(batch_size=1))
        (offer,) = draw.offer(len(tasks) - 1)
        assert offer.exhausted
        assert np.array_equal(np.sort(offer.tasks), np.arange(len(tasks)))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_draw_of_extreme_evidence_ends(target: float) -> None:
    """If floats have no digits left for the density, draws beyond a radius are not rejected forever."""
    strata = 500
    none = np.empty((strata, 0), np.float32)
    shapes = Strata(none, np.full(strata, 915962419422965.5), np.full(strata, 242371339361.5075))
    tasks = arrange(shapes, np.repeat(np.arange(strata, dtype=np.uint32), 2))
    posterior = start(tasks, Hyperparameters(), "interpolation")
    for seed in range(10):
        draw = Draw(np.random.default_rng(seed), posterior, tasks, SelectionSpec(batch_size=2, target=target))
        (offer,) = draw.offer(len(tasks))
        assert np.array_equal(np.sort(offer.tasks), np.arange(len(tasks)))
        assert ((offer.draws >= 0) & (offer.draws <= 1)).all()


def test_inverted_draws_have_the_distribution_of_rejected_ones() -> None:
    """Draws beyond a distance of the target, from the inverse, keep the law of those that rejection accepts.

    Of two samples of n = 20,000 the distribution functions differ by more than sqrt(-ln(1e-9 / 2) / n) with a
    probability of 1e-9 (Smirnov).
    """
    alpha, beta, target, limit, n = 2.0, 5.0, 0.4, 0.3, 20_000
    shape = np.array([alpha]), np.array([beta])
    rng = np.random.default_rng(7)
    nearest = Nearest(rng, *shape, np.array([1]), Parts(np.empty(0, np.int64), 1), target, np.array([1]))
    inverted = nearest._draw_beyond(rng, np.zeros(n, np.int64), np.full(n, limit))
    draws = rng.beta(alpha, beta, 20 * n) - target
    rejected = draws[np.abs(draws) > limit][:n]
    assert len(rejected) == n
    assert (np.abs(inverted) > limit).all()
    assert ks_2samp(inverted, rejected).statistic < np.sqrt(-np.log(1e-9 / 2) / n)
