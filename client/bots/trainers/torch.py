"""Trainers that take a torch Dataset, a batch sampler or a sampler: SkyRL, AReaL, OpenRLHF, cosmos-rl, your own loop.

    tasks = TaskDataset(dataset, run)
    for rows in DataLoader(tasks, batch_size=8, collate_fn=list):
        rewards = ...                                                  # [8, rollouts]
        tasks.report([row["bots"] for row in rows], rewards)

`TaskDataset` is the better one if the trainer's loader fetches whole batches (`__getitems__`, as torch's does): its
sampler goes on and only counts slots, so resuming selects nothing twice. `BatchSampler` and `Sampler` are for trainers
that take a sampler alone; they have a `state_dict`, which torchdata's StatefulDataLoader saves.

A loader's worker processes would fetch ahead, at posteriors that are stale, so they are refused: num_workers=0.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bots import columns
from bots.batch import joined
from bots.columns import Column
from bots.errors import invalid
from bots.run import Batch, Run
from bots.trainers.marks import MARK, batch_of
from bots.trainers.options import RangeOptions, RowOptions
from bots.trainers.supply import RowSupply
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TaskDataset:
    """A map-style dataset whose slots are filled with the rows that the service chooses.

    batch_size  number of tasks of a selection, if the loader fetches rows one by one; None: a selection for each fetch.
    mark        returns a row with its mark, by which it is reported; None: rows are mappings, with the mark under the
                key "bots".
    options     as in `TaskRows`.

    Its other attributes are those of `dataset`, such as a collate_fn.
    """

    def __init__(
        self,
        dataset: Any,
        run: Run,
        *,
        batch_size: int | None = None,
        mark: Callable[[Any, str], Any] | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        self.dataset = dataset
        self.run = run
        self.mark = mark or _mapping_with
        self._supply = RowSupply(TaskRows(run, dataset, **options), batch_size or 1)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # not made yet, or looked for by pickle
            raise AttributeError(name)
        return getattr(self.dataset, name)

    @property
    def policy_step(self) -> int | None:
        """The policy's training step at the next selection; None: not known."""
        return self._supply.policy_step

    @policy_step.setter
    def policy_step(self, step: int | None) -> None:
        self._supply.policy_step = step

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, slot: int) -> Any:
        """Returns one row."""
        return self.__getitems__([slot])[0]

    def __getitems__(self, slots: Sequence[int]) -> list[Any]:
        """Returns as many rows as there are slots: the service chooses them."""
        refuse_workers()
        return [self.mark(self.dataset[row], mark) for row, mark in self._supply.take(len(slots))]

    def report(
        self,
        marks: Sequence[str],
        rewards: Column,
        *,
        policy_step: int | None = None,
        **mapping: Unpack[RangeOptions],
    ) -> None:
        """Reports the `[tasks, rollouts]` rewards of marked rows, in any process.

        policy_step, mapping  as in `Batch.report_rewards`.
        """
        rewards = columns.plain(rewards)
        if len(rewards) != len(marks):
            raise invalid("rewards", f"{len(rewards)} rows", f"must be one for each of the {len(marks)} marks")
        selections: dict[str, list[int]] = {}
        batches = [batch_of(self.run, mark) for mark in marks]
        for place, batch in enumerate(batches):
            selections.setdefault(batch.selection_id, []).append(place)
        for places in selections.values():
            places.sort(key=lambda place: int(batches[place].positions[0]))
            joined([batches[place] for place in places]).report_rewards(
                [rewards[place] for place in places], policy_step=policy_step, **mapping
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the run's place for the trainer's checkpoint."""
        return self.run.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to a place if no other job is in the way, see `bots.resume`."""
        self.run.load_state_dict(state)


class BatchSampler:
    """Yields row numbers of a dataset, a selection each, without end or `steps` times.

    `pending` has the selections that were yielded, oldest first: take one with `pending.popleft()` and report it.

    options  as in `TaskRows`.
    """

    def __init__(
        self, dataset: Any, run: Run, batch_size: int, *, steps: int | None = None, **options: Unpack[RowOptions]
    ) -> None:
        self.run = run
        self.batch_size = batch_size
        self.steps = steps
        self.pending: deque[Batch] = deque(maxlen=1024)
        self._rows = TaskRows(run, dataset, **options)
        self._yielded = 0

    def __iter__(self) -> Iterator[Any]:
        while self.steps is None or self._yielded < self.steps:
            refuse_workers()
            batch = self._rows.select(self.batch_size)
            self._yielded += 1
            self.pending.append(batch)
            yield self._rows.rows_of(batch)
        self._yielded = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns how many batches were yielded, and the run's place."""
        return {"yielded": self._yielded, "run": self.run.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batches that were yielded, which are not selected again; see `bots.resume` for the run."""
        self._yielded = state["yielded"]
        self.run.load_state_dict(state["run"])


class Sampler(BatchSampler):
    """Yields the row numbers one by one, a selection for every `batch_size` of them."""

    def __iter__(self) -> Iterator[Any]:
        for rows in super().__iter__():
            yield from rows


def refuse_workers() -> None:
    """RuntimeError: this is a worker process of a DataLoader."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.utils.data.get_worker_info() is not None:
        raise RuntimeError("num_workers: must be 0: workers fetch ahead, at posteriors that are stale")


def _mapping_with(row: Any, mark: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise TypeError(f"dataset: got a row of {type(row).__name__}, must be mappings, or mark= must mark them")
    return {**row, MARK: mark}
