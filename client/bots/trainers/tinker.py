"""tinker-cookbook: an RLDataset whose batches the service selects.

    dataset = BotsRLDataset(run, rows, build, batch_size=64, text="question")

`build` makes the EnvGroupBuilder of a row, as your own dataset's `get_batch` does. Each builder is wrapped, so that the
total rewards of its whole group are reported, also if the trainer then drops the group.

tinker-cookbook asks for each step's batch once, also after a resume. It does not save a state of its dataset: keep
`run.state_dict()` with your checkpoint, or let the run keep what it has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bots.run import Run
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.marks import marks
from bots.trainers.options import Options, split
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class ReportedGroup:
    """An EnvGroupBuilder that reports the total reward of each trajectory. Picklable if `builder` is."""

    builder: Any
    mark: str
    rewards: MarkedRewards

    async def make_envs(self) -> Sequence[Any]:
        """Returns the environments of the group."""
        return await self.builder.make_envs()  # type: ignore[no-any-return] # of the trainer

    async def compute_group_rewards(self, trajectory_group: list[Any], env_group: Sequence[Any]) -> list[Any]:
        """Returns the builder's rewards, and reports their sums with the rewards of the steps."""
        found = await self.builder.compute_group_rewards(trajectory_group, env_group)
        steps = [sum(step.reward for step in trajectory.transitions) for trajectory in trajectory_group]
        self.rewards.add(self.mark, *(steps[place] + reward for place, (reward, _) in enumerate(found)))
        return list(found)

    async def cleanup(self) -> None:
        """Cleans up after the builder."""
        await self.builder.cleanup()

    def logging_tags(self) -> list[str]:
        """Returns the builder's tags."""
        return list(self.builder.logging_tags())


class BotsRLDataset:
    """The training dataset, one selection a batch. It selects when it is asked, with a deadline (`Client(timeout=)`).

    rows        the tasks: mappings or any objects, see `text`.
    build       makes the EnvGroupBuilder of a row.
    batch_size  number of groups of a batch.
    options     as in `TaskRows` and `MarkedRewards`; a format penalty makes rewards below 0: low=-0.1.
    """

    def __init__(
        self,
        run: Run,
        rows: Any,
        build: Callable[[Any], Any],
        *,
        batch_size: int,
        **options: Unpack[Options],
    ) -> None:
        of_rows, of_rewards = split(options)
        self.rows = rows
        self.build = build
        self.batch_size = batch_size
        self.rewards = MarkedRewards(run, **of_rewards)
        self._tasks = TaskRows(run, rows, **of_rows)

    def get_batch(self, index: int) -> list[ReportedGroup]:
        """Returns the builders of the tasks that the service selects for step `index`."""
        batch = self._tasks.select(self.batch_size)
        places = zip(self._tasks.rows_of(batch), marks(batch), strict=True)
        return [ReportedGroup(self.build(self.rows[row]), mark, self.rewards) for row, mark in places]

    def __len__(self) -> int:
        """Returns the number of batches of one pass over the rows."""
        return len(self.rows) // self.batch_size
