"""The ways to select and report that the bench compares; each goes through the same loop of a trainer."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np
from bots_server.core.selection import Draw, take
from numpy.typing import NDArray

import bots
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Posterior, Report, alpha_beta, fold, gather, start
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange
from tests.bench.plain import Plain
from tests.bench.workload import ROLLOUTS, Workload


class Side(Protocol):
    """Selects a batch, rolls it out and reports it."""

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        """Returns the seconds that the selection took, and those of the report."""


@dataclass
class PlainSide:
    """Plain numpy over all tasks."""

    work: Workload
    batch_size: int
    plain: Plain

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        begin = perf_counter()
        tasks = self.plain.select(rng, self.batch_size)
        selected = perf_counter() - begin
        successes, rollouts = self.work.outcomes(rng, tasks), np.full(self.batch_size, float(ROLLOUTS))
        begin = perf_counter()
        self.plain.update(tasks, successes, rollouts)
        return selected, perf_counter() - begin


@dataclass
class CoreSide:
    """Our core, in this process: the draw, and the fold."""

    work: Workload
    batch_size: int
    tasks: Tasks
    posterior: Posterior = field(init=False)

    def __post_init__(self) -> None:
        self.posterior = start(self.tasks, Hyperparameters())

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        begin = perf_counter()
        draw = Draw(rng, self.posterior, self.tasks, batch_size=self.batch_size, target=0.5)
        tasks, _ = take(draw.offer(spare=0))
        selected = perf_counter() - begin
        successes, rollouts = self.work.outcomes(rng, tasks), np.full(self.batch_size, float(ROLLOUTS))
        begin = perf_counter()
        report = Report(gather(tasks, successes, rollouts), None, None, 0)
        self.posterior = fold(self.posterior, self.tasks, report)
        return selected, perf_counter() - begin

    def plain(self) -> PlainSide:
        """Returns plain numpy in the same state."""
        alpha, beta = alpha_beta(self.posterior, self.tasks, None)
        references = self.work.weak, self.work.strong
        weak, strong = (None if column is None else column.astype(np.float64) for column in references)
        plain = Plain(alpha, beta, weak, strong)
        plain.capability = self.posterior.capability
        return PlainSide(self.work, self.batch_size, plain)


@dataclass
class ServiceSide:
    """The service, through the client library."""

    work: Workload
    batch_size: int
    run: bots.Run

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        begin = perf_counter()
        batch = self.run.select(self.batch_size)
        selected = perf_counter() - begin
        successes = self.work.outcomes(rng, batch.tasks)
        begin = perf_counter()
        batch.report(successes, ROLLOUTS)
        return selected, perf_counter() - begin


def arranged(work: Workload) -> Tasks:
    """Returns the tasks as our core has them."""
    builder = StrataBuilder(0.0)
    stratum: NDArray[np.uint32] = builder.add(work.weak, work.strong, None, None, len(work))
    return arrange(builder.strata(), stratum)
