"""verifiers, for prime-rl: a taskset whose tasks the service selects.

    # my_bots_env.py
    run = bots.Client("localhost:50051", job="qwen-7b").run("gsm8k", "qwen-7b")
    BotsTaskset = bots_taskset(MyTaskset, run)
    __all__ = ["BotsTaskset"]

    taskset = { id = "my_bots_env" }          # of the training source; evaluation names your own taskset

The taskset is infinite, and selects ahead in a thread, because prime-rl draws tasks in its event loop. A task reports
its reward when it is scored, in whichever process that is. prime-rl saves no state of a taskset: the run keeps what it
has learned, and a resume draws the tasks that were drawn before once more, without rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bots.run import Run
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.marks import MARK
from bots.trainers.options import Options, split
from bots.trainers.supply import RowSupply
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _prompt(task: Any) -> Any:
    return task.data.prompt_text


def bots_taskset(base: type[Any], run: Run, *, batch_size: int = 64, **options: Unpack[Options]) -> type[Any]:
    """Returns a subclass of a Taskset that yields its tasks without end, as the service selects them.

    batch_size  number of tasks of a selection; those ahead were selected before the newest reports.
    options     as in `TaskRows`, of a Task (`id=lambda task: task.data.id`; `text` is `task.data.prompt_text` if it is
                not given), and as in `MarkedRewards`; the reward is `trace.reward`.
    """
    from pydantic import create_model
    from verifiers.v1.task import Task, task_key

    task_type = base.task_type()
    data_type: Any = task_type.data_type()
    # The mark is a part of the data, which is what reaches the process that scores.
    marked: dict[str, Any] = {MARK: (str | None, None)}
    marked_data: Any = create_model(f"Marked{data_type.__name__}", __base__=data_type, **marked)
    of_rows, of_rewards = split({"text": _prompt, **options})
    rewards = MarkedRewards(run, **of_rewards)

    class MarkedTask(task_type):  # type: ignore[misc,valid-type] # a base that is known at run time
        @classmethod
        def data_type(cls) -> Any:
            return marked_data

        @property
        def key(self) -> str:
            """The base's key, without the mark and the position, which differ each time a task is selected."""
            if task_type.key is not Task.key:
                return str(super().key)
            return str(task_key(self.data.model_dump(mode="json", exclude_none=True, exclude={MARK, "idx"})))

        async def score(self, trace: Any, runtime: Any = None) -> None:
            await super().score(trace, runtime)
            mark = getattr(self.data, MARK)
            if mark is not None and not self.scoring_deferred:
                scored = any(reward is not None for reward in trace.rewards.values())
                rewards.add(mark, trace.reward if scored else None)

    class BotsTaskset(base):  # type: ignore[misc] # a base that is known at run time
        INFINITE = True

        @classmethod
        def task_type(cls) -> Any:
            return MarkedTask

        def load(self) -> Iterator[Any]:
            tasks = list(super().load())
            rows = TaskRows(run, tasks, **of_rows)
            supply = RowSupply(rows, batch_size, ahead=True)
            while True:
                ((row, mark),) = supply.take(1)
                task = tasks[row]
                yield MarkedTask(marked_data.model_validate({**task.data.model_dump(), MARK: mark}), task.config)

    return BotsTaskset
