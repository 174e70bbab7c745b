"""The dataset and the reward function in verl's own loader, collate and reward manager (`make trainers`)."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="run by make trainers")

import numpy as np
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler

import bots
from bots.trainers import create_dataset
from bots.trainers.verl import bots_compute_score, bots_dataset
from tests.trainers.page import example

pytestmark = pytest.mark.filterwarnings("default")

ROWS: list[dict[str, Any]] = [
    {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": f"{row} + 1 ="}],
        "reward_model": {"ground_truth": str(row + 1)},
        "extra_info": {"index": row},
    }
    for row in range(24)
]


class Tokenizer:
    """Decodes token 1 as the right answer of nothing; enough for a reward manager."""

    def decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(str(int(token)) for token in tokens)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes rows as JSON lines, and returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the rows, which the trainer reads in another order."""
    create_dataset(client, "sums", ROWS, dimensions=0)
    return client.create_run("sums", "r")


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """verl's data configuration."""
    return OmegaConf.create(
        {
            "train_files": write(tmp_path / "train.jsonl", ROWS[::-1]),
            "val_files": write(tmp_path / "val.jsonl", ROWS[:6]),
            "train_batch_size": 8,
            "shuffle": True,
            "seed": 1,
            "dataloader_num_workers": 0,
            "filter_overlong_prompts": False,
            "cache_dir": str(tmp_path / "cache"),
            "custom_cls": {"path": None, "name": None},
        }
    )


def dataset_of(cls: Any, config: Any, files: str = "train_files") -> Any:
    """Returns a dataset, made with the arguments of verl's create_rl_dataset."""
    return cls(data_files=config[files], tokenizer=None, processor=None, config=config, max_samples=-1)


def loader(dataset: Any, config: Any, batch_size: int = 8) -> Any:
    """Returns verl's training loader."""
    from verl.utils.dataset.rl_dataset import collate_fn

    try:
        from verl.trainer.ppo.utils import create_rl_sampler
    except ImportError:  # before 0.9 it is in main_ppo, which imports the engines; this is what it makes
        sampler = RandomSampler(dataset)
    else:
        sampler = create_rl_sampler(config, dataset)
    return StatefulDataLoader(
        dataset, batch_size=batch_size, num_workers=0, drop_last=True, collate_fn=collate_fn, sampler=sampler
    )


def test_verl_loads_the_classes_from_the_file_of_the_page(
    run: bots.Run, address: str, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import get_dataset_class

    (tmp_path / "my_rewards.py").write_text("def my_compute_score(solution_str, **given):\n    return 0.25\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    user_file = tmp_path / "bots_verl.py"
    user_file.write_text(example("verl", address, 1))
    config.custom_cls = {"path": str(user_file), "name": "TaskDataset"}
    dataset = dataset_of(get_dataset_class(config), config)
    batch = next(iter(loader(dataset, config)))
    assert len(set(batch["index"].tolist())) == 8
    reward = {"custom_reward_function": {"path": str(user_file), "name": "compute_score"}}
    compute_score = get_custom_reward_fn(OmegaConf.create({"reward": reward, **reward}))
    info = batch["extra_info"][0]
    assert compute_score(data_source="sums", solution_str="", ground_truth="", extra_info=info) == 0.25


def test_dataset_of_the_page_is_that_of_verls_file(client: bots.Client, address: str, config: Any) -> None:
    """Made by the first example, of another kind of file."""
    code = example("verl", address).replace('"parquet", data_files="train.parquet"', '"json", data_files=train_files')
    exec(code, dict(config))
    dataset = dataset_of(bots_dataset(client.run("sums", "r")), config)
    assert len(dataset._supply.rows.missing) == 0


def test_rows_are_the_selected_tasks_whatever_the_order_of_the_file(run: bots.Run, config: Any) -> None:
    """One selection a batch; each sees the report of the batch before; the mark names the row's task."""
    dataset = dataset_of(bots_dataset(run), config)
    ids = run.task_ids()
    for step, batch in enumerate(loader(dataset, config)):
        assert run.stats.selections == step + 1
        for prompt, info in zip(batch["raw_prompt"], batch["extra_info"], strict=True):
            task = int(info["bots"].split(":")[-1])
            assert dataset._supply.rows.identity.of_row({"prompt": prompt}) == ids[task]
    assert run.stats.selections == 3


def test_loader_of_single_rows_selects_whole_batches(run: bots.Run, config: Any) -> None:
    """Asynchronous trainers and DAPO set gen_batch_size to 1."""
    for _ in loader(dataset_of(bots_dataset(run), config), config, batch_size=1):
        pass
    assert run.stats.selections == len(ROWS) // 8


def test_validation_is_not_selected(run: bots.Run, config: Any) -> None:
    dataset = dataset_of(bots_dataset(run), config, "val_files")
    batch = next(iter(loader(dataset, config, batch_size=6)))
    assert sorted(batch["index"].tolist()) == list(range(6))
    assert all("bots" not in info for info in batch["extra_info"])
    assert run.stats.selections == 0


def test_resume_selects_once_and_restores_the_run(run: bots.Run, config: Any) -> None:
    """data.pt has the run's place; what was reported since is undone."""
    first = loader(dataset_of(bots_dataset(run), config), config)
    batches = iter(first)
    next(batches)
    run.report([run.task_ids()[0]], [4], 4)
    before = run.posteriors()
    state = first.state_dict()
    run.report([run.task_ids()[0]], [4], 4)
    selections = run.stats.selections
    second = loader(dataset_of(bots_dataset(run), config), config)
    second.load_state_dict(state)
    next(iter(second))
    assert run.stats.selections == selections + 1
    np.testing.assert_array_equal(run.posteriors(), before)


def test_worker_processes_and_equal_files_are_refused(run: bots.Run, config: Any) -> None:
    config.dataloader_num_workers = 8
    with pytest.raises(bots.InvalidArgumentError, match="dataloader_num_workers: got 8, must be 0"):
        dataset_of(bots_dataset(run), config)
    config.val_files = config.train_files
    with pytest.raises(bots.InvalidArgumentError, match="val_files"):
        dataset_of(bots_dataset(run), config)


@pytest.fixture(params=["naive", "dapo"])
def manager(request: pytest.FixtureRequest) -> Any:
    """Makes verl's reward managers."""
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    settings: dict[str, Any] = {
        "reward": {"reward_kwargs": {}},
        "reward_model": {"reward_kwargs": {}},
        "data": {},
        "actor_rollout_ref": {"rollout": {}},
    }
    cls = get_reward_manager_cls(request.param)
    return lambda compute_score: cls(OmegaConf.create(settings), Tokenizer(), compute_score)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reward_manager_reports_marked_rows(run: bots.Run, config: Any, manager: Any, asynchronous: bool) -> None:
    """By the real reward manager, on the batch that the real loader collated; groups of equal rewards count too."""
    from verl import DataProto

    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
        return {"score": 2.0 * (solution_str == "1") - 1, "acc": solution_str == "1"}

    async def compute_score_async(*args: Any, **kwargs: Any) -> Any:
        return compute_score(*args, **kwargs)

    function = bots_compute_score(run, compute_score_async if asynchronous else compute_score, score="acc")
    collated = [
        next(iter(loader(dataset_of(bots_dataset(run), config, files), config, 6)))
        for files in ("train_files", "val_files")
    ]

    async def score(made: Any, tokens: int, batch: dict[str, Any], place: int) -> Any:
        tensors = {"responses": torch.tensor([[tokens]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
        others = {
            name: np.array([batch[name][place]], dtype=object) for name in ("data_source", "reward_model", "extra_info")
        }
        data = DataProto.from_dict(tensors=tensors, non_tensors=others)
        return await made.run_single(data)

    async def score_all() -> list[Any]:
        made = manager(function)
        places = [(tokens, batch, place) for batch in collated for place in range(6) for tokens in (1, place % 2)]
        return [await score(made, *place) for place in places]

    before = run.info().version
    results = asyncio.run(score_all())
    assert {result["reward_score"] for result in results} == {1.0, -1.0}
    from bots.trainers.marked_rewards import _ALIVE

    for rewards in _ALIVE:
        rewards.send()
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert sorted(event.kind.successes) == [1.0] * 3 + [2.0] * 3
    assert list(event.kind.rollouts) == [2] * 6


def test_version_is_one_of_those_that_the_page_names() -> None:
    assert importlib.metadata.version("verl").startswith(("0.7.", "0.8.", "0.9."))
