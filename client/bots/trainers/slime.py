"""slime: a data source for `--data-source-path` and a hook for `--rollout-all-samples-process-path`.

    # bots_slime.py
    run = bots.Client("localhost:50051", job="qwen-7b").run("gsm8k", "qwen-7b")
    DataSource = bots_data_source(run, id=lambda sample: sample.metadata["id"])
    report = bots_report(run)

    --data-source-path bots_slime.DataSource --rollout-all-samples-process-path bots_slime.report

All groups are reported, also those that a dynamic sampling filter drops. Evaluation does not pass the data source.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bots.run import Run
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.marks import MARK
from bots.trainers.options import RewardOptions, RowOptions
from bots.trainers.supply import RowSupply
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _prompt(sample: Any) -> Any:
    return sample.prompt


def bots_data_source(run: Run, **options: Unpack[RowOptions]) -> type[Any]:
    """Returns a subclass of slime's RolloutDataSourceWithBuffer whose new prompts the service selects.

    A selection is of `--rollout-batch-size` tasks, also if slime asks for fewer. Buffered samples of partial rollouts
    come first, as in slime. The run's place is saved beside slime's state of the data source.

    options  as in `TaskRows`, of a Sample; `text` is `sample.prompt` if it is not given. That has the chat template
             applied, so its digest is not that of the prompt in the file: an id in the metadata is the better choice.
    """
    from slime.rollout.data_source import RolloutDataSource, RolloutDataSourceWithBuffer

    of_rows: RowOptions = {"text": _prompt, **options}

    class Selected(RolloutDataSource):  # type: ignore[misc] # of a package without types
        def __init__(self, args: Any) -> None:
            super().__init__(args)
            rows = TaskRows(run, self.dataset.origin_samples, **of_rows)
            self._supply = RowSupply(rows, args.rollout_batch_size)

        def get_samples(self, num_samples: int) -> list[list[Any]]:
            return [self._group(row, mark) for row, mark in self._supply.take(num_samples)]

        def _group(self, row: int, mark: str) -> list[Any]:
            group = []
            for _ in range(self.args.n_samples_per_prompt):
                sample = copy.deepcopy(self.dataset.origin_samples[row])
                sample.metadata = {**(sample.metadata or {}), MARK: mark}
                sample.group_index, sample.index = self.sample_group_index, self.sample_index
                self.sample_index += 1
                group.append(sample)
            self.sample_group_index += 1
            return group

        def save(self, rollout_id: Any) -> None:
            super().save(rollout_id)
            path = _state_file(self.args.save, rollout_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(run.state_dict()))

        def load(self, rollout_id: Any = None) -> None:
            super().load(rollout_id)
            if self.args.load is not None and (path := _state_file(self.args.load, rollout_id)).exists():
                run.load_state_dict(json.loads(path.read_text()))

    # Its get_samples takes from the buffer and then asks its super(), which is Selected.
    class BotsDataSource(RolloutDataSourceWithBuffer, Selected):  # type: ignore[misc] # of a package without types
        pass

    return BotsDataSource


def bots_report(run: Run, **options: Unpack[RewardOptions]) -> Callable[[Any, list[Any], Any], None]:
    """Returns the hook that reports all groups of a rollout, one report a selection, in the background.

    A sample that was aborted, or has no reward, is left out. A rollout that fans out to several samples counts once, by
    its last. With `--reward-key` that entry of the reward counts. The options are those of `MarkedRewards`.
    """
    rewards = MarkedRewards(run, **options)

    def report(args: Any, all_samples: list[Any], data_source: Any) -> None:
        for sample in _rollouts(all_samples):
            if (mark := (sample.metadata or {}).get(MARK)) is not None:
                aborted = sample.status is type(sample).Status.ABORTED
                rewards.add(mark, None if aborted or sample.reward is None else sample.get_reward_value(args))
        rewards.send()

    return report


def _rollouts(groups: list[Any]) -> Iterator[Any]:
    for group in groups:
        for rollout in group:
            yield rollout[-1] if isinstance(rollout, list) else rollout


def _state_file(folder: str, rollout_id: Any) -> Path:
    return Path(folder) / "rollout" / f"bots_{rollout_id}.json"
