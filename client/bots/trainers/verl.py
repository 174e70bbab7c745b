"""verl 0.7 to 0.9: a dataset class for `data.custom_cls` and a reward function for `reward.custom_reward_function`.

    # bots_verl.py
    run = bots.Client("localhost:50051", job="qwen-7b").run("gsm8k", "qwen-7b")
    TaskDataset = bots_dataset(run)
    compute_score = bots_compute_score(run, my_compute_score)

    data.custom_cls.path=bots_verl.py data.custom_cls.name=TaskDataset data.dataloader_num_workers=0
    reward.custom_reward_function.path=bots_verl.py reward.custom_reward_function.name=compute_score

The dataset of `data.train_files` answers each batch of verl's sampler with the rows that the service selects, and marks
them in `extra_info`; so groups that verl filters are reported, and validation is not. The run's place is saved in
data.pt, and restored when the first batch is fetched after a resume.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bots.errors import invalid
from bots.run import Run
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.marks import MARK
from bots.trainers.options import RewardOptions, RowOptions
from bots.trainers.supply import RowSupply
from bots.trainers.tasks import TaskRows

if TYPE_CHECKING:
    from typing_extensions import Unpack


def bots_dataset(run: Run, *, base: type[Any] | None = None, **options: Unpack[RowOptions]) -> type[Any]:
    """Returns a subclass of verl's RLHFDataset whose training rows the service selects.

    A selection is of `data.train_batch_size` tasks, also if verl fetches them one by one (asynchronous trainers, DAPO).

    base     a subclass of RLHFDataset to build on.
    options  as in `TaskRows`.

    Making a dataset raises InvalidArgumentError if `data.dataloader_num_workers` is not 0, or if the files for training
    and validation are the same.
    """
    from verl.utils.dataset.rl_dataset import RLHFDataset

    parent: Any = base or RLHFDataset

    class BotsRLHFDataset(parent):  # type: ignore[misc] # a base that is known at run time
        def __init__(self, data_files: Any, tokenizer: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(data_files, tokenizer, config, *args, **kwargs)
            self._supply: RowSupply | None = None
            training, validation = _files(config.get("train_files")), _files(config.get("val_files"))
            if training == validation:
                raise invalid("data.val_files", validation, "must not be data.train_files")
            if _files(data_files) == validation:
                return
            if (workers := config.get("dataloader_num_workers", 0)) != 0:
                raise invalid("data.dataloader_num_workers", workers, "must be 0: workers select far ahead of reports")
            rows = TaskRows(run, self.dataframe, **options)
            self._supply = RowSupply(rows, config.get("train_batch_size", 1))

        def __getitem__(self, slot: int) -> Any:
            return self.__getitems__([slot])[0]

        def __getitems__(self, slots: Sequence[int]) -> list[Any]:
            if self._supply is None:
                return [super(BotsRLHFDataset, self).__getitem__(slot) for slot in slots]
            return [self._marked(row, mark) for row, mark in self._supply.take(len(slots))]

        def _marked(self, row: int, mark: str) -> Any:
            item = super().__getitem__(row)
            item["extra_info"] = {**item["extra_info"], MARK: mark}
            return item

        def state_dict(self) -> dict[str, Any]:
            """Returns the run's place, which StatefulDataLoader saves; nothing of the validation dataset."""
            return {} if self._supply is None else run.state_dict()

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            """Goes back to a place if no other job is in the way, see `bots.resume`."""
            if state:
                run.load_state_dict(state)

    return BotsRLHFDataset


def bots_compute_score(
    run: Run,
    compute_score: Callable[..., Any] | None = None,
    *,
    score: str = "score",
    **options: Unpack[RewardOptions],
) -> Callable[..., Any]:
    """Returns a reward function that reports the rewards of the rows that the service selected.

    It is asynchronous if `compute_score` is, and takes its arguments by name, as verl passes them. verl calls it in
    several processes (`reward.num_workers`); each reports what came to it, see `bots.trainers.marked_rewards`.

    compute_score       yours; None: verl's default_compute_score.
    score               entry that is reported if it returns a mapping, such as "acc".
    options             as in `MarkedRewards`.
    """
    if compute_score is None:
        from verl.utils.reward_score import default_compute_score

        compute_score = default_compute_score
    scored = compute_score
    rewards = MarkedRewards(run, **options)

    def reported(result: Any, extra_info: Mapping[str, Any] | None) -> Any:
        if extra_info is not None and MARK in extra_info:
            rewards.add(extra_info[MARK], result[score] if isinstance(result, Mapping) else result)
        return result

    if inspect.iscoroutinefunction(scored):

        @functools.wraps(scored)
        async def waiting(*, extra_info: Any = None, **arguments: Any) -> Any:
            return reported(await scored(extra_info=extra_info, **arguments), extra_info)

        return waiting

    @functools.wraps(scored)
    def blocking(*, extra_info: Any = None, **arguments: Any) -> Any:
        return reported(scored(extra_info=extra_info, **arguments), extra_info)

    return blocking


def _files(files: Any) -> list[str]:
    if files is None:
        return []
    return [files] if isinstance(files, str) else [str(file) for file in files]
