"""The ways to select and report that the bench compares; each goes through the same loop of a trainer."""

from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Protocol

import numpy as np

import bots
from bots_server.core.draw import Draw, SelectionSpec, take
from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.inputs import Rows, matrix
from bots_server.core.interpolation import Interpolation
from bots_server.core.posterior import Posterior, Report, alpha_beta, fold, start
from bots_server.core.tasks import Tasks
from tests.bench.plain import PlainInterpolation, PlainItemResponse
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
    plain: PlainInterpolation | PlainItemResponse

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
        self.posterior = start(self.tasks, Hyperparameters(), self.work.model)

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        begin = perf_counter()
        draw = Draw(rng, self.posterior, self.tasks, SelectionSpec(batch_size=self.batch_size))
        tasks, _, _ = take(draw.offer(spare=0))
        selected = perf_counter() - begin
        successes, rollouts = self.work.outcomes(rng, tasks), np.full(self.batch_size, float(ROLLOUTS))
        begin = perf_counter()
        self.posterior = fold(self.posterior, self.tasks, Report(gather(tasks, successes, rollouts), time_ms=0))
        return selected, perf_counter() - begin

    def plain(self) -> PlainSide:
        """Returns plain numpy in the same state."""
        return PlainSide(self.work, self.batch_size, self._plain())

    def _plain(self) -> PlainInterpolation | PlainItemResponse:
        learned, tasks = self.posterior.state.learned, self.tasks
        if isinstance(learned, Interpolation):
            assert self.work.references is not None
            weak, strong = self.work.references.T.astype(np.float64)
            plain = PlainInterpolation(*alpha_beta(self.posterior, tasks, None), weak, strong)
            plain.capability = learned.capability
            return plain
        x = matrix(tasks.inputs, Rows(tasks.stratum, tasks.tag, tasks.features))
        given = learned.mean, learned.covariance, tasks.inputs.walk, learned.log_likelihood, learned.spread
        response, own = PlainItemResponse(x, *given), learned.residuals
        response.residual[own.tasks] = own.mean
        response.variance[own.tasks] = own.variance
        response.seen[own.tasks] = True
        return response


@dataclass
class ServiceSide:
    """The service, through the client library. rest: seconds between a report and the selection after it."""

    work: Workload
    batch_size: int
    run: bots.Run
    rest: float = 0.0

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        sleep(self.rest)
        begin = perf_counter()
        batch = self.run.select(self.batch_size)
        selected = perf_counter() - begin
        successes = self.work.outcomes(rng, batch.tasks)
        begin = perf_counter()
        batch.report(successes, ROLLOUTS)
        return selected, perf_counter() - begin


@dataclass
class AtOnceSide:
    """The service, asked as soon as the report is answered: before the next selection can be drawn ahead."""

    side: ServiceSide

    def step(self, rng: np.random.Generator) -> tuple[float, float]:
        _, reported = self.side.step(rng)
        selected, _ = self.side.step(rng)
        return selected, reported
