"""Trinity-RFT: a selector of the taskset, and an operator of the experience pipeline that counts rollouts.

    # bots_trinity.py
    run = bots.Client("localhost:50051", job="qwen-7b").run("gsm8k", "qwen-7b")
    Selector = bots_selector(run, text="question")
    Rewards = bots_operator()

    buffer.explorer_input.tasksets[0].data_selector.selector_type: bots_trinity.Selector
    data_processor.experience_pipeline.operators[0].name: bots_trinity.Rewards

Trinity hands the operator's counts to `feedback` of the selector, which knows the selections. The operator takes the
place of `pass_rate_calculator`, which hands over means of experiences: of those the numbers of rollouts are not known,
and a rollout of several turns counts several times. Put it first, before operators that filter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bots.errors import invalid
from bots.run import Run
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.marks import marks
from bots.trainers.options import Options, split
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


def bots_selector(run: Run, **options: Unpack[Options]) -> type[Any]:
    """Returns a selector for `selector_type`, by its dotted path.

    options  as in `TaskRows` and `MarkedRewards`.
    """
    from trinity.buffer.selector.selector import BaseSelector

    of_rows, of_rewards = split(options)

    class BotsSelector(BaseSelector):  # type: ignore[misc] # of a package without types
        def __init__(self, data_source: Any, config: Any) -> None:
            super().__init__(data_source, config)
            self._rows = TaskRows(run, data_source.dataset, **of_rows)
            self._rewards = MarkedRewards(run, **of_rewards)
            # By row, of its last selection: earlier ones may never get rewards, as rollouts fail and jobs resume.
            self._marks: dict[int, str] = {}

        def get_indices(self, batch_size: int, return_extra_info: bool = False) -> list[int]:
            batch = self._rows.select(batch_size)
            rows = self._rows.rows_of(batch)
            self._marks.update(zip(rows, marks(batch), strict=True))
            return rows

        def feedback(self, indices: Sequence[int], values: Sequence[Sequence[float | None]]) -> None:
            """Reports lists of rewards by row, each for the row's last selection; a row without one is left out."""
            for row, rewards in zip(indices, values, strict=True):
                if not isinstance(rewards, Sequence):
                    raise invalid("values", rewards, "must be lists of rewards: use bots_operator as the operator")
                if mark := self._marks.get(int(row)):
                    self._rewards.add(mark, *rewards)
            self._rewards.send()

        def state_dict(self) -> dict[str, Any]:
            return {"bots": run.state_dict()}

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            # At a fresh start Trinity passes {"current_index": 0}.
            if "bots" in state_dict:
                run.load_state_dict(state_dict["bots"])

    return BotsSelector


def bots_operator() -> type[Any]:
    """Returns an operator that hands the rewards of each task's rollouts to the selector."""
    from trinity.buffer.operators.experience_operator import ExperienceOperatorV1
    from trinity.common.constants import SELECTOR_METRIC

    class BotsRewards(ExperienceOperatorV1):  # type: ignore[misc] # of a package without types
        async def process(self, exps: list[Any]) -> tuple[list[Any], dict[str, Any]]:
            return exps, {SELECTOR_METRIC: rewards_by_task(exps)}

    return BotsRewards


def rewards_by_task(exps: Sequence[Any]) -> dict[Any, dict[str, list[Any]]]:
    """Returns taskset -> {"indices": rows, "values": a list of rewards for each}.

    A rollout of several steps counts once, by the reward of its last step. Experiences with equal run and step are
    different rollouts: workflows need not number them.
    """
    last: dict[str, int] = {}
    for exp in exps:
        last[exp.eid.rid] = max(exp.eid.step, last.get(exp.eid.rid, exp.eid.step))
    found: dict[Any, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for exp in exps:
        if exp.eid.step == last[exp.eid.rid]:
            index = exp.info["task_index"]
            found[index["taskset_id"]][index["index"]].append(exp.reward)
    return {taskset: {"indices": list(tasks), "values": list(tasks.values())} for taskset, tasks in found.items()}
