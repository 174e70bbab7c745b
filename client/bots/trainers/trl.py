"""TRL: GRPOTrainer and RLOOTrainer, from 0.24 on, with the batch that the service chooses.

    Trainer = bots_trainer(GRPOTrainer, run=run)
    trainer = Trainer(model=..., reward_funcs=..., args=GRPOConfig(max_steps=1000, ...), train_dataset=dataset)
    trainer.train(resume_from_checkpoint=...)

The trainer's own sampler goes on, and its indices only count rows: the rows are chosen when completions are generated,
so a selection sees every report before it, and resuming selects nothing twice.

 * Rank 0 alone calls the service. It selects once a generation batch, and the ranks share the rows, also if a group is
   split over ranks. If a call raises an error there, it raises on every rank.
 * Rewards are reported once a generation batch, from the tensor that TRL has gathered. None is left out. Evaluation is
   neither chosen nor reported.
 * `bots.json` in each checkpoint has the run's place; resuming from the checkpoint goes back to it (see `bots.resume`).
 * `num_train_epochs` has no meaning, as no sampler decides which rows are used: set `max_steps`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bots.errors import TemporaryError, invalid
from bots.run import Batch, Run
from bots.summary import Shadow
from bots.trainers.options import RangeOptions, RowOptions
from bots.trainers.shadow import ShadowReports
from bots.trainers.tasks import Field, Identity, TaskRows

logger = logging.getLogger("bots")

T = TypeVar("T")

STATE_FILE = "bots.json"

if TYPE_CHECKING:
    from typing_extensions import Unpack

    class Mixed:
        """The trainer's class, for a type checker."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def _generate_and_score_completions(self, inputs: Any) -> Any: ...
        def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any: ...
        def _save_checkpoint(self, model: Any, trial: Any) -> None: ...
        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None: ...
else:
    Mixed = object


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the adapter needs to know.

    run           the run to select from and to report to. Every rank gives it, rank 0 uses it.
    reward        name or place of the reward function that says whether a task was solved, or a function of the rewards
                  `[completions, functions]`; None: the only one.
    low, high, success  as in `Batch.report_rewards`.
    shadow        the trainer keeps its own selection, see `bots.trainers.shadow`.
    text, id, skip_unknown  as in `TaskRows`.
    select        options of `Run.select`, such as {"lease_seconds": 600, "tags": "algebra"}.
    """

    run: Run
    reward: str | int | Callable[[Any], Any] | None = None
    low: float = 0.0
    high: float = 1.0
    success: float | None = None
    shadow: bool = False
    text: Field = "prompt"
    id: Field | None = None
    skip_unknown: bool = False
    select: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mapping(self) -> dict[str, Any]:
        """How rewards become successes."""
        return {"low": self.low, "high": self.high, "success": self.success}


class TrainerOptions(RowOptions, RangeOptions, total=False):
    """As in `Settings`."""

    reward: str | int | Callable[[Any], Any] | None
    shadow: bool


def bots_trainer(trainer: type[Any], *, run: Run, **options: Unpack[TrainerOptions]) -> type[Any]:
    """Returns a subclass of GRPOTrainer, RLOOTrainer, or a subclass of these, that selects and reports.

    The arguments are those of `Settings`; the class is made and used as the trainer's.
    """
    return type(f"Bots{trainer.__name__}", (BotsMixin, trainer), {"bots": Settings(run=run, **options)})


class BotsMixin(Mixed):
    """The part of a trainer that selects and reports: `class MyTrainer(BotsMixin, GRPOTrainer): bots = Settings(...)`.

    Raises on every rank, when the trainer is made: InvalidArgumentError if a setting or the dataset does not fit,
    FailedPreconditionError if the dataset is not the service's.
    """

    bots: Settings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bots_batch: Batch | None = None
        self._bots_ids: list[str] | None = None
        self._bots_check()
        self._bots_rows: TaskRows | None = None
        self._bots_shadow: ShadowReports | None = None
        self._bots_on_main(self._bots_open)

    def bots_summary(self) -> Shadow:
        """Returns what the run says of shadow mode, on any rank (a call of the service)."""
        return self.bots.run.summary().total.shadow

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._bots_batch = self._bots_ids = None
        if self.model.training:
            inputs = self._bots_watched(inputs) if self.bots.shadow else self._bots_chosen(inputs)
        outputs: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return outputs

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            self._bots_on_main(lambda: self._bots_report(rewards))
        return rewards

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Before the trainer's own files: a checkpoint that is whole has it.
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        self._bots_on_main(lambda: self._bots_save(folder))
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._bots_on_main(lambda: self._bots_load(Path(checkpoint)))

    # ------------------------------------------------------------------------------------------------ on every rank

    def _bots_check(self) -> None:
        dataset = self.train_dataset
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise invalid("train_dataset", type(dataset).__name__, "must have a length and rows by number (a Dataset)")
        shape = getattr(self.accelerator, "parallelism_config", None)
        if shape is not None and getattr(shape, "non_data_parallel_size", 1) > 1:
            raise invalid("parallelism_config", shape, "must be data-parallel alone")
        names = self.reward_func_names
        reward = self.bots.reward
        if reward is None and len(names) > 1:
            raise invalid("reward", None, f"must be one of {', '.join(names)}, as there are several reward functions")
        if isinstance(reward, str) and names.count(reward) != 1:
            raise invalid("reward", repr(reward), f"must be one of {', '.join(names)}")
        if isinstance(reward, int) and not 0 <= reward < len(names):
            raise invalid("reward", reward, f"must be between 0 and {len(names) - 1}")

    def _bots_chosen(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns this rank's part of the rows that the service chose, in place of as many of the trainer's."""
        chosen = self._bots_on_main(lambda: self._bots_select(len(inputs) * self.accelerator.num_processes))
        first = self.accelerator.process_index * len(inputs)
        places = [row for row in chosen for _ in range(self.num_generations)][first : first + len(inputs)]
        names = inputs[0].keys()  # without the columns that the trainer has removed
        fetch = getattr(self.train_dataset, "__getitems__", None)  # of a Dataset: all at once
        rows = fetch(places) if fetch is not None else [self.train_dataset[row] for row in places]
        return [{name: value for name, value in row.items() if name in names} for row in rows]

    def _bots_watched(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the trainer's own rows; rank 0 notes the ids of all ranks, one a group."""
        from accelerate.utils import gather_object

        identity = Identity(self.bots.text, self.bots.id)
        self._bots_ids = gather_object([identity.of_row(row) for row in inputs])[:: self.num_generations]
        self._bots_on_main(self._bots_begin)
        return inputs

    def _bots_on_main(self, work: Callable[[], T]) -> T:
        """Returns on every rank what `work` returns on rank 0, or raises there what it raises, and its text elsewhere.

        No rank is left waiting in a collective operation for one that has raised.
        """
        if self.accelerator.num_processes == 1:
            return work()
        from accelerate.utils import broadcast_object_list

        result: list[Any] = [None, None]
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            try:
                result[0] = work()
            except Exception as error:
                failure = error
                result[1] = f"{type(error).__name__}: {error}"
        broadcast_object_list(result)
        if failure is not None:
            raise failure
        if result[1] is not None:
            raise RuntimeError(f"on rank 0: {result[1]}")
        answer: T = result[0]
        return answer

    # ------------------------------------------------------------------------------------------------ on rank 0

    def _bots_open(self) -> None:
        bots = self.bots
        self._bots_rows = TaskRows(
            bots.run, self.train_dataset, text=bots.text, id=bots.id, skip_unknown=bots.skip_unknown
        )
        if bots.shadow:
            self._bots_shadow = ShadowReports(self._bots_rows, **bots.mapping)

    def _bots_select(self, completions: int) -> list[int]:
        assert self._bots_rows is not None
        batch = self._bots_rows.select(
            completions // self.num_generations, policy_step=self.state.global_step, **self.bots.select
        )
        if len(batch) * self.num_generations != completions:
            raise invalid("select", f"{len(batch)} tasks", f"must be {completions // self.num_generations}")
        self._bots_batch = batch
        return self._bots_rows.rows_of(batch)

    def _bots_begin(self) -> None:
        assert self._bots_shadow is not None
        assert self._bots_ids is not None
        self._bots_shadow.begin(len(self._bots_ids), self.state.global_step)

    def _bots_report(self, rewards: Any) -> None:
        reward = self.bots.reward
        if callable(reward):
            values = reward(rewards)
        else:
            values = rewards[:, self.reward_func_names.index(reward) if isinstance(reward, str) else reward or 0]
        groups = values.reshape(-1, self.num_generations)
        batch, ids, step = self._bots_batch, self._bots_ids, self.state.global_step
        self._bots_batch = self._bots_ids = None
        if batch is not None:
            batch.report_rewards(groups, policy_step=step, **self.bots.mapping)
        elif ids is not None and self._bots_shadow is not None:
            self._bots_shadow.report(ids, groups, step)

    def _bots_save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE_FILE).write_text(json.dumps(self.bots.run.state_dict()))
        if self._bots_shadow is not None:
            try:
                logger.warning("run %s at step %d: %s", self.bots.run.name, self.state.global_step, self.bots_summary())
            except TemporaryError as error:
                logger.info("run %s: no summary: %s", self.bots.run.name, error)

    def _bots_load(self, folder: Path) -> None:
        file = folder / STATE_FILE
        if not file.exists():
            logger.warning("run %s is kept: %s has no %s", self.bots.run.name, folder.name, STATE_FILE)
            return
        resumed = self.bots.run.load_state_dict(json.loads(file.read_text()))
        logger.warning("run %s: %s at version %s", self.bots.run.name, resumed.action, resumed.version)
