"""One selection: what is wished for, the draw for it, and what that comes to in the words of the API."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.posterior import Posterior, alpha_beta
from bots_server.core.selection import Candidates, Draw, take
from bots_server.runs.dataset import Dataset
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.turn import TURN

MANY_STRATA = 65_536  # from here on a draw takes some milliseconds


class Wish(NamedTuple):
    """What a selection asks for besides a seed, exclusions and tags; None: the run's."""

    batch_size: int
    target: float | None
    greedy: bool | None
    temperature: float | None


class Selection:
    """A selection of a run at a posterior, drawn for a wish from all tasks or from what the rest leaves of them.

    id:   names it in reports and leases; random, so that one object is one selection
    draw: where its tasks come from
    """

    def __init__(
        self,
        rng: np.random.Generator,
        run: storage.RunRecord,
        dataset: Dataset,
        posterior: Posterior,
        wish: Wish,
        *,
        excluded: NDArray[np.int64] | None = None,
        tags: Sequence[int] | None = None,
        quotas: Mapping[int, int] | None = None,
    ) -> None:
        self.id = uuid4().hex
        self._run, self._dataset, self._posterior = run, dataset, posterior
        self._answer: pb.SelectBatchResponse | None = None
        given = posterior.hyperparameters
        temperature = given.temperature if wish.temperature is None else wish.temperature
        # With a temperature, as many as all N tasks may be drawn.
        long = temperature > 0 or len(posterior.baseline_alpha) > MANY_STRATA
        self._turn: AbstractContextManager[object] = nullcontext() if long else TURN
        with self._turn:
            self.draw = Draw(
                rng,
                posterior,
                dataset.tasks,
                batch_size=wish.batch_size,
                target=given.target if wish.target is None else wish.target,
                greedy=given.greedy if wish.greedy is None else wish.greedy,
                temperature=temperature,
                uniform_fraction=given.uniform_fraction,
                excluded=excluded,
                tags=tags,
                quotas=quotas,
            )

    def parts(self, spare: int = 0) -> list[Candidates]:
        """Returns the parts of the batch, each with `spare` candidates more than it needs."""
        with self._turn:
            return self.draw.offer(spare)

    def answer(self) -> pb.SelectBatchResponse:
        """Returns the batch where no task is leased, with fewer tasks than wished for where fewer are eligible.

        It is made once; a selection is for one thread at a time.
        """
        if self._answer is None:
            tasks, draws = take(self.parts())
            ids = self._dataset.ids
            self._answer = pb.SelectBatchResponse(
                tasks=tasks.tolist(),
                ids=ids.names(tasks) if ids else None,
                means=self._means(tasks),
                draws=draws.tolist(),
                version=self._posterior.version,
                run_uid=self._run.uid,
                selection_id=self.id,
            )
        return self._answer

    def offer(self, parts: Sequence[Candidates]) -> storage.Offer:
        """Returns candidates, for the claim that takes those of them that are free."""
        tasks = np.concatenate([part.tasks for part in parts])
        return storage.Offer(
            selection_id=self.id,
            version=self._posterior.version,
            tasks=tasks.tolist(),
            means=self._means(tasks),
            draws=np.concatenate([part.draws for part in parts]).tolist(),
        )

    def _means(self, tasks: NDArray[np.int64]) -> list[float]:
        with self._turn:
            alpha, beta = alpha_beta(self._posterior, self._dataset.tasks, tasks)
        means: list[float] = (alpha / (alpha + beta)).tolist()
        return means
