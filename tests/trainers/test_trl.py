"""The adapter for TRL in front of a stand-in that calls the overridden methods as GRPOTrainer does, without torch; the
folder trl has the tests on TRL itself (`make trainers`).
"""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bots
from bots.trainers import Identity, create_dataset
from bots.trainers.trl import bots_trainer

ROWS: list[dict[str, Any]] = [{"prompt": f"task {row}", "answer": row} for row in range(30)]
GROUP, BATCH = 4, 3


class StandIn:
    """Generation batches of 3 groups of 4, on one rank: the members that the adapter reads, and the calls it hooks."""

    def __init__(self, folder: Path, functions: int = 1) -> None:
        self.train_dataset = ROWS
        self.model = types.SimpleNamespace(training=True)
        self.accelerator = types.SimpleNamespace(num_processes=1, process_index=0, is_main_process=True)
        self.state = types.SimpleNamespace(global_step=0)
        self.num_generations = GROUP
        self.reward_func_names = [f"f{number}" for number in range(functions)]
        self.folder = folder
        self.trained: list[str] = []

    def step(self, rows: list[dict[str, Any]]) -> None:
        """Generates and scores one batch."""
        self._generate_and_score_completions(rows)
        self.state.global_step += 1

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.trained = [row["prompt"] for row in inputs]
        self._calculate_rewards(inputs, self.trained, [], [])
        return {}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        """One reward function: the first rollout of each group is solved, the last cannot be scored."""
        return np.tile([1.0, 0.0, 0.0, np.nan], len(inputs) // GROUP)[:, None].repeat(len(self.reward_func_names), 1)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        assert (self.folder / f"checkpoint-{self.state.global_step}" / "bots.json").exists()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Loads nothing."""


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "d", ROWS, dimensions=0)
    return client.create_run("d", "r")


def drawn_by_trainer() -> list[dict[str, Any]]:
    """Returns what the trainer's own sampler yields."""
    return [row for row in ROWS[:BATCH] for _ in range(GROUP)]


def test_each_batch_is_selected_and_reported_once(run: bots.Run, tmp_path: Path) -> None:
    trainer: Any = bots_trainer(StandIn, run=run)(tmp_path)
    ids = run.task_ids()
    for step in range(3):
        trainer.step(drawn_by_trainer())
        assert run.stats.selections == step + 1
        report = list(run.events())[-1].kind
        assert isinstance(report, bots.ReportEvent)
        assert {ids[task] for task in report.tasks} == {Identity().of_row({"prompt": one}) for one in trainer.trained}
        assert trainer.trained == [one for one in trainer.trained[::GROUP] for _ in range(GROUP)]
        assert (report.successes.tolist(), report.rollouts.tolist()) == ([1.0] * BATCH, [3] * BATCH)
        assert (report.policy_step, report.selection_policy_step) == (step, step)


def test_evaluation_is_neither_selected_nor_reported(run: bots.Run, tmp_path: Path) -> None:
    trainer: Any = bots_trainer(StandIn, run=run)(tmp_path)
    trainer.model.training = False
    trainer.step(drawn_by_trainer())
    assert trainer.trained == [row["prompt"] for row in drawn_by_trainer()]
    assert (run.stats.selections, run.stats.reports) == (0, 0)


def test_checkpoint_has_the_place_of_the_run(run: bots.Run, tmp_path: Path) -> None:
    trainer: Any = bots_trainer(StandIn, run=run)(tmp_path)
    trainer.step(drawn_by_trainer())
    trainer._save_checkpoint(None, None)
    assert json.loads((tmp_path / "checkpoint-1" / "bots.json").read_text())["version"] == run.info().version
    before = run.posteriors()
    trainer.step(drawn_by_trainer())
    resumed: Any = bots_trainer(StandIn, run=run)(tmp_path)
    resumed._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-1"))
    np.testing.assert_array_equal(run.posteriors(), before)


def test_reward_function_must_be_named_if_there_are_several(run: bots.Run, tmp_path: Path) -> None:
    with pytest.raises(bots.InvalidArgumentError, match="reward: got None, must be one of f0, f1"):
        bots_trainer(StandIn, run=run)(tmp_path, functions=2)
    bots_trainer(StandIn, run=run, reward="f1")(tmp_path, functions=2)
