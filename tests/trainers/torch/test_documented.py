"""Trainers that are documented and cannot run here: their released data loading, executed alone with the dataset in it,
and the names that the page uses.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchdata", reason="run by make trainers")

import torch
from torch.utils.data import Dataset, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import bots
from bots.trainers import create_dataset
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.torch import BatchSampler, TaskDataset
from tests.trainers.wheels import defined, node, signatures, source

pytestmark = pytest.mark.filterwarnings("default")

ROWS: list[dict[str, Any]] = [{"prompt": f"task {row}", "answer": str(row)} for row in range(40)]
Space = types.SimpleNamespace


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where releases are downloaded to."""
    return tmp_path_factory.mktemp("wheels")


def text_of(wheels: Path, package: str, version: str, module: str) -> str:
    """Returns the text of a module of a release."""
    folder = wheels / package
    folder.mkdir(exist_ok=True)
    return source(package, version, module, folder)


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows."""
    create_dataset(client, "d", ROWS, dimensions=0)
    return client.create_run("d", "r")


def row_of(run: bots.Run, mark: str) -> str:
    """Returns the id of a mark's task."""
    return run.task_ids()[int(mark.split(":")[-1])]


class Rows(list[dict[str, Any]]):
    """Stands for a datasets.Dataset: a row is a dictionary of its own."""

    def __getitem__(self, row: Any) -> Any:
        return dict(super().__getitem__(row))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_skyrl_loads_selected_rows_and_groups_rewards_by_mark(run: bots.Run, wheels: Path, one_by_one: bool) -> None:
    """SkyRL 0.3.0: the mark is the uid of the group, with which rewards arrive; also fully asynchronous."""
    dataset = text_of(wheels, "skyrl", "0.3.0", "skyrl/train/dataset/dataset.py")
    prompts = object.__new__(defined(dataset, "PromptDataset"))
    prompts.dataframe, prompts.prompt_key, prompts.env_class_key = Rows(ROWS), "prompt", "env_class"
    build = defined(
        text_of(wheels, "skyrl", "0.3.0", "skyrl/train/utils/trainer_utils.py"),
        "build_dataloader",
        torch=torch,
        StatefulDataLoader=StatefulDataLoader,
        logger=logging.getLogger("skyrl"),
    )
    config = Space(
        trainer=Space(train_batch_size=8, eval_batch_size=8, seed=1, epochs=1),
        data=Space(dataloader=Space(num_workers=0, persistent_workers=False)),
    )
    tasks = TaskDataset(prompts, run, batch_size=8, text=lambda row: row[0], mark=lambda row, mark: (*row[:3], mark))
    uids: list[str] = []
    for batch in build(config, tasks, is_fully_async=one_by_one):
        for one in batch:
            assert one["prompt"] == f"task {one['env_extras']['answer']}"
            uids.append(one["uid"])
    assert (len(uids), len(set(uids)), run.stats.selections) == (40, 40, 5)
    tasks.report(uids[:8], [[0.0, 1.0]] * 8)
    assert run.summary().total.outcomes == 8
    trainer = text_of(wheels, "skyrl", "0.3.0", "skyrl/train/trainer.py")
    own = ["self", "generator_output", "uids", "metrics_generator_output", "metrics_uids"]
    assert signatures(trainer, "RayPPOTrainer")["postprocess_generator_output"] == own
    assert "postprocess_generator_output" not in ast.unparse(node(trainer, "RayPPOTrainer.eval"))


def test_areal_ranks_load_selected_rows_and_pass_the_mark_to_the_reward(
    run: bots.Run, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AReaL 1.0.4: each of two ranks selects its part; the workflow passes the columns of a row to the reward."""
    stub: Any = types.ModuleType("areal.infra.data_service.rdataset")
    stub.RDataset = stub._PrefetchAwareSampler = type("RDataset", (), {})
    for name in ("areal", "areal.infra", "areal.infra.data_service", stub.__name__):
        monkeypatch.setitem(sys.modules, name, stub if name == stub.__name__ else types.ModuleType(name))
    create = defined(
        text_of(wheels, "areal", "1.0.4", "areal/utils/dataloader.py"),
        "create_dataloader",
        StatefulDataLoader=StatefulDataLoader,
        DistributedSampler=DistributedSampler,
        ValidDatasetConfig=type("ValidDatasetConfig", (), {}),
    )
    config = Space(batch_size=8, shuffle=True, drop_last=True, num_workers=0)
    loaders = [create(TaskDataset(ROWS, run), rank, 2, config) for rank in range(2)]
    parts = [next(iter(loader)) for loader in loaders]
    assert [len(part) for part in parts] == [4, 4]
    assert run.stats.selections == 2

    compute = defined(
        text_of(wheels, "areal", "1.0.4", "areal/workflow/rlvr.py"),
        "RLVRWorkflow._compute_rewards",
        trace_session=lambda name: lambda function: function,
    )
    rewards = MarkedRewards(run, every_seconds=600)

    async def reward(*generated: Any, answer: str, bots: str | None = None, **others: Any) -> float:
        rewards.add(bots or "", float(int(answer) % 2))
        return float(int(answer) % 2)

    workflow = Space(tokenizer=Space(decode=str), async_reward_fn=reward)
    response = Space(output_tokens=[1], input_tokens=[1])
    for row in parts[0] + parts[1]:
        asyncio.run(compute(workflow, response, row["prompt"], row))
    rewards.send()
    run.flush()
    assert run.summary().total.outcomes == len({row["bots"].split(":")[-1] for row in parts[0] + parts[1]})


def test_openrlhf_loads_one_by_one_and_hands_the_label_to_the_reward(run: bots.Run, wheels: Path) -> None:
    """OpenRLHF 0.11.2: batch size 1; the label carries the mark; a filtered prompt is replaced by a single one."""
    dataset = text_of(wheels, "openrlhf", "0.11.2", "openrlhf/datasets/prompts_dataset.py")
    preprocess = defined(dataset, "preprocess_data", copy=copy)
    prompts_of = defined(
        dataset, "PromptDataset", Dataset=Dataset, tqdm=lambda rows, **_: rows, preprocess_data=preprocess
    )
    data = Space(input_key="prompt", label_key="answer")
    strategy = Space(args=Space(data=data), is_rank_0=lambda: True)
    prompts = prompts_of(ROWS, None, strategy)
    tasks = TaskDataset(
        prompts,
        run,
        batch_size=8,
        text=lambda row: row[1],
        mark=lambda row, mark: (row[0], row[1], f"{mark} {row[2]}", row[3]),
    )
    setup = defined(
        text_of(wheels, "openrlhf", "0.11.2", "openrlhf/utils/deepspeed/deepspeed.py"),
        "DeepspeedStrategy.setup_dataloader",
        StatefulDataLoader=StatefulDataLoader,
        dist=Space(is_initialized=lambda: False),
    )
    samples = text_of(wheels, "openrlhf", "0.11.2", "openrlhf/trainer/ppo_utils/samples_generator.py")
    collect = defined(samples, "_collect_prompt_batch")
    batches = iter(setup(Space(), tasks, 1, False, True, tasks.collate_fn, num_workers=0))
    found, labels, _, exhausted = collect(batches, 8)
    assert (run.stats.selections, exhausted) == (1, False)
    more, more_labels, _, _ = collect(batches, 1)
    assert run.stats.selections == 2
    for prompt, label in zip(found + more, labels + more_labels, strict=True):
        mark, _, answer = label.partition(" ")
        assert prompt == f"task {answer}"
        assert tasks._supply.rows.identity.of_row((None, prompt)) == row_of(run, mark)


def test_cosmos_rl_makes_the_batch_sampler_of_its_arguments(run: bots.Run, wheels: Path) -> None:
    """cosmos-rl 0.4.7: arguments are passed by the names of the function's parameters; rows keep their own numbers, by
    which it looks for reference answers.
    """
    fetcher = text_of(wheels, "cosmos-rl", "0.4.7", "cosmos_rl/dispatcher/data/data_fetcher.py")
    passed = next(
        [key.value for key in one.keys if isinstance(key, ast.Constant)]
        for one in ast.walk(ast.parse(fetcher))
        if isinstance(one, ast.Dict) and "num_replicas" in ast.unparse(one)
    )
    assert {"dataset", "batch_size"} <= set(passed)
    main = node(text_of(wheels, "cosmos-rl", "0.4.7", "cosmos_rl/launcher/worker_entry.py"), "main")
    assert {"dataset", "batch_sampler"} <= {argument.arg for argument in main.args.args}
    loaded = defined(
        text_of(wheels, "cosmos-rl", "0.4.7", "cosmos_rl/dispatcher/data/__init__.py"),
        "RLDataset",
        Dataset=Dataset,
        call_setup=lambda *_: None,
        RLPayload=type("RLPayload", (Space,), {}),
    )(ROWS, None)
    made: Any = lambda dataset, batch_size: BatchSampler(dataset, run, batch_size)  # noqa: E731 - as the page has it
    sampler = made(ROWS, 8)
    loader = torch.utils.data.DataLoader(loaded, batch_sampler=sampler, collate_fn=list)
    for row, payload in next(iter(loader)):
        assert payload.prompt == ROWS[row]
    sampler.pending.popleft().report_rewards([[0.0, 1.0]] * 8)
    assert run.summary().total.outcomes == 8


def test_trainers_on_trl_call_what_the_adapter_overrides(wheels: Path) -> None:
    """axolotl 0.19.0 subclasses GRPOTrainer, its variants for sequence parallelism and asynchrony have methods of their
    own; unsloth 2026.10.9 patches the text around the call; ms-swift 4.6.0 scores by a method of its own.
    """
    grpo = text_of(wheels, "axolotl", "0.19.0", "axolotl/core/trainers/grpo/trainer.py")
    assert signatures(grpo, "AxolotlGRPOTrainer") == {}
    assert ast.unparse(node(grpo, "AxolotlGRPOTrainer").bases[-1]) == "GRPOTrainer"
    assert "_generate_and_score_completions" in signatures(grpo, "AxolotlGRPOSequenceParallelTrainer")
    assert ast.unparse(node(grpo, "AxolotlAsyncGRPOTrainer").bases[-1]) == "FastAsyncGRPOTrainer"
    unsloth = text_of(wheels, "unsloth", "2026.10.9", "unsloth/models/rl_replacements.py")
    assert "rewards_per_func = self._calculate_rewards(inputs, prompts, completions, completion_ids_list)" in unsloth
    swift = text_of(wheels, "ms-swift", "4.6.0", "swift/rlhf_trainers/grpo_trainer.py")
    assert signatures(swift, "GRPOTrainer")["_compute_rewards_per_func"] == ["self", "samples"]
    assert "_calculate_rewards" not in swift
