"""Cost that does not grow with the dataset, by what is allocated: time is for the benchmark."""

import tracemalloc

import numpy as np

from bots_server.core.draw import Draw, SelectionSpec, take
from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Posterior, Report, fold, start
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange

BATCH = 32


def dataset(size: int) -> Tasks:
    """Returns tasks with references in sixteenths: 289 strata at most."""
    rng = np.random.default_rng(1)
    builder = StrataBuilder(2)
    stratum = builder.add((rng.integers(0, 17, (size, 2)) / 16).astype(np.float32), None, None, size)
    return arrange(builder.strata(), stratum, reference_names=("weak", "strong"))


def select(seed: int, posterior: Posterior, tasks: Tasks) -> np.ndarray:
    draw = Draw(np.random.default_rng(seed), posterior, tasks, SelectionSpec(batch_size=BATCH))
    return take(draw.offer(spare=0))[0]


def step(seed: int, posterior: Posterior, tasks: Tasks) -> Posterior:
    """Returns the posterior after a selection and its report."""
    rollouts = np.full(BATCH, 16.0)
    successes = np.random.default_rng(seed).integers(0, 17, BATCH).astype(np.float64)
    evidence = gather(select(seed, posterior, tasks), successes, rollouts)
    return fold(posterior, tasks, Report(evidence, time_ms=1))


def most_allocated(size: int) -> int:
    """Returns the bytes that one step needs at its height, after fifty steps."""
    tasks = dataset(size)
    posterior = start(tasks, Hyperparameters(), "interpolation")
    for seed in range(50):
        posterior = step(seed, posterior, tasks)
    tracemalloc.start()
    try:
        step(50, posterior, tasks)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_step_makes_no_array_of_the_datasets_size() -> None:
    """Cost does not grow with the dataset: up to 65,536 strata and with forgetting of 0.05 or more, select and report
    take the same time for 10 thousand and for 10 million tasks.

    Here: a step at a million tasks allocates less than one byte a task, and what it does at ten thousand but for a
    quarter, which the deviations that do not meet again explain.
    """
    small, large = most_allocated(10_000), most_allocated(1_000_000)
    assert large < 1_000_000
    assert large < 1.25 * small
