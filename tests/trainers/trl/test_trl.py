"""The adapter on TRL's own trainers, against a real service (`make trainers`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="run by make trainers")

import numpy as np
import transformers
from datasets import Dataset, IterableDataset

import bots
from bots.trainers import Identity, create_dataset
from tests.api.service import serving
from tests.trainers.page import example
from tests.trainers.trl.training import ROWS, config, model, solved, tokenizer, trainer_of, watched

# Trainers and torch warn of their own future; nothing here can mend it.
pytestmark = pytest.mark.filterwarnings("default")
SECONDS = 240


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the sums."""
    create_dataset(client, "sums", ROWS, dimensions=0)
    return client.create_run("sums", "r")


def reports(run: bots.Run) -> list[bots.ReportEvent]:
    """Returns the reports of a run's history."""
    return [event.kind for event in run.events() if isinstance(event.kind, bots.ReportEvent)]


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_each_selection_sees_the_report_before_it(run: bots.Run, tmp_path: Path, kind: str) -> None:
    """The step is the version: nothing is stale."""
    calls: list[dict[str, Any]] = []
    watched(run, calls)
    seen: list[set[str]] = []

    def reward(prompts: list[str], **columns: Any) -> list[float]:
        seen.append(set(prompts))
        return solved(prompts, **columns)

    trainer_of(run, str(tmp_path), kind=kind, reward_funcs=reward).train()
    assert [call["version"] - run.joined_version for call in calls] == [0, 1, 2, 3]
    ids = {row["prompt"]: row for row in ROWS}
    assert all(len(prompts) == 3 and prompts <= ids.keys() for prompts in seen)
    for call, report, prompts in zip(calls, reports(run), seen, strict=True):
        assert sorted(call["tasks"]) == report.tasks.tolist()
        assert report.rollouts.tolist() == [4, 4, 4]
        assert len(prompts) == 3


def test_trainer_of_the_page_selects_and_reports(run: bots.Run, tmp_path: Path) -> None:
    """Given a model, a tokenizer and settings of this test."""
    code = example("TRL", "").replace('model="Qwen/Qwen3-1.7B"', "model=model, processing_class=tokenizer")
    given = {"model": model(), "tokenizer": tokenizer(), "args": config("GRPO", str(tmp_path))}
    user = {"run": run, "dataset": Dataset.from_list(ROWS), "accuracy": solved, **given}
    exec(code.replace("GRPOConfig(max_steps=1000)", "args"), user)
    assert run.stats.selections == len(reports(run)) == 4


def test_rewards_reported_are_those_of_the_selected_prompts(run: bots.Run, tmp_path: Path) -> None:
    """Every rollout of 0+b is solved and no other is, whatever the order of the rows."""
    rows = Dataset.from_list(ROWS).shuffle(seed=3)
    trainer_of(
        run, str(tmp_path), rows=rows, reward_funcs=lambda prompts, **_: [float(p[0] == "0") for p in prompts]
    ).train()
    prompt_of = {Identity().of_row(row): row["prompt"] for row in ROWS}
    tasks = run.task_ids()
    for report in reports(run):
        for task, successes in zip(report.tasks, report.successes, strict=True):
            assert successes == (4 if prompt_of[tasks[task]][0] == "0" else 0)


def test_none_is_left_out_and_a_group_of_none_is_not_reported(run: bots.Run, tmp_path: Path) -> None:
    def reward(prompts: list[str], **_: Any) -> list[float | None]:
        return [None] * 4 + [None, 1.0, 0.0, 1.0] + [1.0] * 4

    trainer_of(run, str(tmp_path), reward_funcs=reward, settings={"max_steps": 2}).train()
    assert [sorted(report.rollouts.tolist()) for report in reports(run)] == [[3, 4], [3, 4]]


def test_evaluation_is_neither_chosen_nor_reported(run: bots.Run, tmp_path: Path) -> None:
    """With another number of generations than training has."""
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "num_generations_eval": 2,
        "per_device_eval_batch_size": 4,
    }
    trainer = trainer_of(run, str(tmp_path), evaluation=True, settings=settings)
    trainer.train()
    assert sum("eval_loss" in entry for entry in trainer.state.log_history) == 2
    assert run.stats.selections == 4
    assert [report.rollouts.sum() for report in reports(run)] == [12] * 4


def test_generations_that_are_used_again_are_selected_once(run: bots.Run, tmp_path: Path) -> None:
    """4 optimizer steps on one generation batch: one selection of twice the tasks, one report."""
    settings = {"steps_per_generation": 2, "num_iterations": 2, "max_steps": 8}
    trainer_of(run, str(tmp_path), settings=settings).train()
    assert run.stats.selections == 2
    assert [report.rollouts.tolist() for report in reports(run)] == [[4] * 6] * 2
    assert [report.policy_step for report in reports(run)] == [0, 4]


def test_several_reward_functions_need_a_choice(run: bots.Run, tmp_path: Path) -> None:
    def shape(prompts: list[str], **_: Any) -> list[float]:
        return [7.0] * len(prompts)

    with pytest.raises(bots.InvalidArgumentError, match="reward: got None, must be one of shape, solved"):
        trainer_of(run, str(tmp_path), reward_funcs=[shape, solved])
    with pytest.raises(bots.InvalidArgumentError, match="reward: got 'other', must be one of shape, solved"):
        trainer_of(run, str(tmp_path), reward_funcs=[shape, solved], reward="other")
    trainer_of(run, str(tmp_path), reward_funcs=[shape, solved], reward="solved", settings={"max_steps": 1}).train()
    assert len(reports(run)) == 1


def test_stream_of_rows_is_refused(run: bots.Run, tmp_path: Path) -> None:
    """By us, or by a TRL that takes none itself."""
    rows = IterableDataset.from_generator(lambda: iter(ROWS))
    with pytest.raises((bots.InvalidArgumentError, NotImplementedError), match=r"IterableDataset|[Ii]terable dataset"):
        trainer_of(run, str(tmp_path), rows=rows)


def test_another_dataset_is_refused(run: bots.Run, tmp_path: Path) -> None:
    rows = Dataset.from_list([*ROWS, {"prompt": "9+9=", "answer": "8"}])
    with pytest.raises(bots.FailedPreconditionError, match="1 rows are not its tasks"):
        trainer_of(run, str(tmp_path), rows=rows)


def test_shadow_leaves_the_trainers_own_selection(run: bots.Run, tmp_path: Path) -> None:
    """The prompts are those of the plain trainer, the reports are of them, and the summary compares."""

    def prompts_of(shadow: bool) -> tuple[list[str], Any]:
        seen: list[str] = []

        def reward(prompts: list[str], **columns: Any) -> list[float]:
            seen.extend(prompts)
            return solved(prompts, **columns)

        trainer = trainer_of(run, str(tmp_path), reward_funcs=reward, shadow=shadow)
        trainer.train()
        return seen, trainer

    seen, trainer = prompts_of(True)
    summary = trainer.bots_summary()
    assert (summary.outcomes, summary.selected) == (12, 12)
    assert [report.rollouts.tolist() for report in reports(run)] == [[4, 4, 4]] * 4
    sampler = list(trainer._get_train_sampler())[:48]
    assert seen == [trainer.train_dataset[row]["prompt"] for row in sampler]


def test_training_goes_on_while_the_service_is_away(redis_url: str, tmp_path: Path) -> None:
    """Three steps of uniform selection; what they reported arrives when the service is back."""
    with serving(redis_url) as first:
        port = int(first.address.rpartition(":")[2])
        client = bots.Client(first.address, timeout=1)
        create_dataset(client, "sums", ROWS, dimensions=0)
        run = client.create_run("sums", "r")
        trainer = trainer_of(run, str(tmp_path), settings={"max_steps": 2})
        trainer.train()
    trainer = trainer_of(run, str(tmp_path), settings={"max_steps": 3})
    trainer.train()
    assert run.stats.fallback_selections == 3
    with serving(redis_url, port=port):
        client.flush(30)
        assert len(reports(run)) == 5
        client.close()


class Job:
    """The training as a process of its own."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder

    def start(self, *, ranks: int = 1, **given: Any) -> subprocess.Popen[str]:
        """Returns the process, with its output in a pipe."""
        given = {"address": self.address, "output": str(self.folder / "out"), "result": str(self.folder / "r"), **given}
        module = ["-m", "tests.trainers.trl.training", json.dumps(given)]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_port", "0"]
        standalone = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        command = [sys.executable, *(launcher[:4] + standalone + module if ranks > 1 else module)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[str], code: int | None = 0) -> tuple[list[dict[str, Any]], str]:
        """Returns what each rank wrote, and the output, when the process has ended with the code (None: not 0)."""
        try:
            output, _ = process.communicate(timeout=SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        assert process.returncode == code or (code is None and process.returncode), output
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("r-*.json"))], output


@pytest.fixture
def job(address: str, tmp_path: Path) -> Job:
    """Trainings against the service."""
    return Job(address, tmp_path)


def test_ranks_share_one_selection_and_one_report(job: Job, client: bots.Client) -> None:
    """3 groups of 4 over 2 ranks: the second is split; the other rank calls nothing."""
    main, other = job.end(job.start(ranks=2, settings={"per_device_train_batch_size": 6, "max_steps": 3}))[0]
    assert (main["selections"], other["selections"]) == (3, 0)
    run = client.run("sums", "r")
    assert [report.rollouts.tolist() for report in reports(run)] == [[4, 4, 4]] * 3
    for call, report in zip(main["calls"], reports(run), strict=True):
        assert sorted(call["tasks"]) == report.tasks.tolist()


def test_error_of_rank_0_ends_every_rank(job: Job) -> None:
    """The dataset is refused on rank 0, and the other rank does not wait for it."""
    _, output = job.end(job.start(ranks=2, rows=[{"prompt": "x", "answer": "1"}]), code=None)
    assert "FailedPreconditionError: dataset sums: no row is one of its tasks" in output
    assert "RuntimeError: on rank 0: FailedPreconditionError" in output


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_training_resumes_with_the_checkpoints_posterior(job: Job, client: bots.Client, ranks: int) -> None:
    """Killed at the selection of step 5, with a checkpoint of step 4 and a report lost after it; it selects once before
    its first report.
    """
    if ranks > 1 and transformers.__version__ < "5":
        pytest.skip("transformers 4 cannot load an optimizer on several ranks on CPU (its map_location is cpu:0)")
    saving = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 12 // ranks}
    killed = job.start(ranks=ranks, settings=saving | {"max_steps": 8}, die_at=5)
    job.end(killed, code=-signal.SIGKILL if ranks == 1 else None)
    run = client.run("sums", "r")
    checkpoint = {one.name: one for one in run.checkpoints()}
    saved = json.loads((job.folder / "out" / "checkpoint-4" / "bots.json").read_text())
    before = run.info().version
    assert before == saved["version"] + 1
    kept = client.create_run("sums", "kept", fork_from=bots.ForkPoint(run="r", version=saved["version"]))
    ((resumed, *_), _) = job.end(job.start(ranks=ranks, settings=saving | {"max_steps": 6}, resume=True))
    at_selection = client.create_run("sums", "again", fork_from=bots.ForkPoint(run="r", version=before + 1))
    np.testing.assert_array_equal(at_selection.posteriors(), kept.posteriors())
    assert [call["call"] for call in resumed["calls"]] == ["load", "select", "select"]
    assert saved["checkpoint"] in checkpoint
    restored = [
        (event.version, event.kind.version) for event in run.events() if isinstance(event.kind, bots.RestoreEvent)
    ]
    assert restored == [(before + 1, saved["version"])]
    assert resumed["calls"][1]["version"] == before + 1
    assert resumed["steps"] == 6
