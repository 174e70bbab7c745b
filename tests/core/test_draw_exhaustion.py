"""An offer goes on until everything eligible is in it."""

import numpy as np

from bots_server.core.draw import Draw
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
        draw = Draw(np.random.default_rng(seed), posterior, tasks, batch_size=1, target=0.5)
        (offer,) = draw.offer(len(tasks) - 1)
        assert offer.exhausted
        assert np.array_equal(np.sort(offer.tasks), np.arange(len(tasks)))
