"""Steps of trainers with and without the adapter, in the trainers' own classes, for tests.trainers.measure.

A step loads 32 of 10,000 tasks and scores 8 rollouts of each. Nothing is trained, except by TRL.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import bots
from bots.trainers import create_dataset

TASKS, BATCH, ROLLOUTS = 10_000, 32, 8
GENERATING, TRAINING = 0.05, 0.1  # seconds of a step in which a trainer is busy with other things
WINDOW = 0.05  # every_seconds of the adapters that have it
ROWS: list[dict[str, Any]] = [
    {
        "id": f"t{row}",
        "data_source": "sums",
        "prompt": f"{row}+1=",
        "answer": str(row + 1),
        "passes": row % 9,
        "rollouts": ROLLOUTS,
        "reward_model": {"ground_truth": str(row + 1)},
        "extra_info": {"index": row},
        "metadata": {"id": f"t{row}"},
    }
    for row in range(TASKS)
]


class Loop(Protocol):
    """A trainer at work.

    steps  number of steps with the adapter.
    """

    steps: int

    def step(self, adapted: bool) -> float:
        """Runs a step with or without the adapter; returns its seconds, less those of GENERATING and TRAINING."""

    def save(self) -> None:
        """Makes a checkpoint."""

    def resume(self) -> None:
        """Starts the trainer again with the checkpoint, up to its first batch."""


@dataclass(frozen=True)
class Loader:
    """A trainer's loading and scoring of batches.

    load   returns the next batch.
    score  gets the rewards of a batch where the trainer computes them.
    state  returns what the trainer saves.
    """

    load: Callable[[], Any]
    score: Callable[[Any], object]
    state: Callable[[], Any]


class Loading:
    """The loop over a loader: `make` returns one for a run (None: without the adapter) and a saved state (or None)."""

    def __init__(self, make: Callable[..., Loader], run: bots.Run, folder: Path) -> None:
        self._make, self._run, self._folder = make, run, folder
        self._plain, self._adapted = make(None, folder, None), make(run, folder, None)
        self._state: Any = None
        self.steps = 0

    def step(self, adapted: bool) -> float:
        """Loads and scores a batch."""
        loader = self._adapted if adapted else self._plain
        began = time.perf_counter()
        batch = loader.load()
        took = time.perf_counter() - began
        time.sleep(GENERATING * adapted)
        began = time.perf_counter()
        loader.score(batch)
        took += time.perf_counter() - began
        time.sleep(TRAINING * adapted)
        self.steps += adapted
        return took

    def save(self) -> None:
        """Keeps what the trainer saves of its loader."""
        self._state = self._adapted.state()

    def resume(self) -> None:
        """Loads the first batch after the checkpoint."""
        self._adapted = self._make(self._run, self._folder, self._state)
        self._adapted.load()


def reward(row: dict[str, Any], rollout: int) -> float:
    """Returns the reward of a rollout: of a task's 8, as many are solved as its `passes`."""
    return float(rollout < row["passes"])


def of_torch(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns torchdata's StatefulDataLoader over a TaskDataset."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    from bots.trainers.torch import TaskDataset

    tasks: Any = ROWS if run is None else TaskDataset(ROWS, run)
    loader = StatefulDataLoader(tasks, batch_size=BATCH, shuffle=True, collate_fn=list, drop_last=True)
    batches = _endless(loader, state)

    def score(rows: list[dict[str, Any]]) -> None:
        rewards = [[reward(row, rollout) for rollout in range(ROLLOUTS)] for row in rows]
        if run is not None:
            tasks.report([row["bots"] for row in rows], rewards)

    return Loader(lambda: next(batches), score, loader.state_dict)


def of_verl(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns verl's dataset, collate and loader, and a reward function that is called for each rollout."""
    from omegaconf import OmegaConf
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    from bots.trainers.verl import bots_compute_score, bots_dataset

    chat = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    files = [_written(folder / name, chat) for name in ("train.jsonl", "val.jsonl")]
    config = OmegaConf.create(
        {
            "train_files": files[0],
            "val_files": files[1],
            "train_batch_size": BATCH,
            "dataloader_num_workers": 0,
            "filter_overlong_prompts": False,
            "cache_dir": str(folder),
        }
    )
    made = RLHFDataset if run is None else bots_dataset(run)
    dataset = made(data_files=files[0], tokenizer=None, processor=None, config=config, max_samples=-1)
    loader = StatefulDataLoader(dataset, batch_size=BATCH, shuffle=True, collate_fn=collate_fn, drop_last=True)
    batches = _endless(loader, state)

    def plain(**given: Any) -> float:
        info = given["extra_info"]
        return reward(ROWS[info["index"]], info["rollout"])

    compute = plain if run is None else bots_compute_score(run, plain, every_seconds=WINDOW)

    def score(batch: Any) -> None:
        for info in batch["extra_info"]:
            for rollout in range(ROLLOUTS):
                compute(data_source="", solution_str="", ground_truth="", extra_info={**info, "rollout": rollout})

    return Loader(lambda: next(batches), score, loader.state_dict)


def of_trinity(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns Trinity's reader with its random selector, or ours by its dotted path, and the feedback of rewards."""
    from trinity.buffer.reader.file_reader import FileReader
    from trinity.common.config import DataSelectorConfig, FormatConfig, StorageConfig

    from bots.trainers.trinity import bots_selector

    data = folder / "data"
    data.mkdir(exist_ok=True)
    _written(data / "train.jsonl", ROWS)
    kind = "random"
    if run is not None:
        module: Any = types.ModuleType("bots_trinity_measured")
        module.Selector = bots_selector(run)
        sys.modules[module.__name__] = module
        kind = f"{module.__name__}.Selector"
    reader = FileReader(
        StorageConfig(
            name="sums",
            path=str(data),
            split="train",
            schema_type="task",
            batch_size=BATCH,
            total_epochs=100,
            enable_progress_bar=False,
            format=FormatConfig(prompt_key="prompt", response_key="answer"),
            default_workflow_type="math_workflow",
            data_selector=DataSelectorConfig(selector_type=kind),
        )
    )
    if state is not None:
        reader.load_state_dict(state)

    def score(tasks: list[Any]) -> None:
        indices = [task.index["index"] for task in tasks]
        values = [[reward(ROWS[index], rollout) for rollout in range(ROLLOUTS)] for index in indices]
        if run is not None:
            reader.feedback(indices=indices, values=values)

    return Loader(lambda: asyncio.run(reader.read()), score, reader.state_dict)


def of_verifiers(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns a taskset whose tasks are scored; like prime-rl, it saves how many were drawn and draws these again."""
    import verifiers.v1 as vf

    from bots.trainers.verifiers import bots_taskset
    from tests.trainers.verifiers.test_hooks import SumData, SumTask, SumTaskset, trace_of

    class Sums(SumTaskset):
        def load(self) -> Any:
            return (SumTask(SumData(prompt=row["prompt"], answer=row["answer"])) for row in ROWS)

    made = Sums if run is None else bots_taskset(Sums, run, batch_size=BATCH, every_seconds=WINDOW)
    tasks = itertools.cycle(made(vf.TasksetConfig())) if run is None else iter(made(vf.TasksetConfig()))
    drawn = state or 0
    for _ in range(drawn):
        next(tasks)

    def load() -> list[Any]:
        nonlocal drawn
        drawn += BATCH
        return list(itertools.islice(tasks, BATCH))

    trace = trace_of(None, -1)

    async def score_all(batch: list[Any]) -> None:
        for task in batch:
            row = ROWS[task.data.answer - 1]
            for rollout in range(ROLLOUTS):
                trace.rewards, trace.metrics = {}, {}
                trace.info["answer"] = task.data.answer if reward(row, rollout) else -1
                await task.score(trace)

    return Loader(load, lambda batch: asyncio.run(score_all(batch)), lambda: drawn)


def of_tinker(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns the builders of a batch, rolled out by tinker-cookbook with a policy that says one token."""
    from tinker_cookbook.rl.rollouts import do_group_rollout

    from bots.trainers.tinker import BotsRLDataset
    from tests.trainers.tinker.test_hooks import Policy, SumBuilder

    step = state or 0
    selected = None if run is None else BotsRLDataset(run, ROWS, SumBuilder, batch_size=BATCH, every_seconds=WINDOW)

    def load() -> list[Any]:
        nonlocal step
        step += 1
        if selected is not None:
            return selected.get_batch(step)
        first = step * BATCH % (TASKS - BATCH)
        return [SumBuilder(row) for row in ROWS[first : first + BATCH]]

    async def score(builders: list[Any]) -> None:
        await asyncio.gather(*(do_group_rollout(builder, Policy()) for builder in builders))

    return Loader(load, lambda builders: asyncio.run(score(builders)), lambda: step)


def of_slime(run: bots.Run | None, folder: Path, state: Any) -> Loader:
    """Returns the data source and the hook over stand-ins for slime's base classes."""
    from bots.trainers.slime import bots_data_source, bots_report
    from tests.trainers.test_slime import RolloutDataSource, RolloutDataSourceWithBuffer, Sample, stand_ins

    sys.modules.update(stand_ins())
    RolloutDataSource.rows = ROWS
    args = types.SimpleNamespace(
        n_samples_per_prompt=ROLLOUTS, rollout_batch_size=BATCH, save=str(folder), load=str(folder), reward_key=None
    )
    made, report = RolloutDataSourceWithBuffer, None
    if run is not None:
        made, report = bots_data_source(run, id=lambda sample: sample.metadata["id"]), bots_report(run)
    source: Any = made(args)
    if state is not None:
        source.load(state)

    def score(groups: list[list[Any]]) -> None:
        for group in groups:
            row = ROWS[int(group[0].metadata["id"][1:])]
            for rollout, sample in enumerate(group):
                sample.reward, sample.status = reward(row, rollout), Sample.Status.COMPLETED
        if report is not None:
            report(args, groups, source)

    return Loader(lambda: source.get_samples(BATCH), score, lambda: source.save(0) or 0)


LOADERS: dict[str, Callable[..., Loader]] = {
    "torch": of_torch,
    "verl": of_verl,
    "trinity": of_trinity,
    "verifiers": of_verifiers,
    "tinker": of_tinker,
    "slime": of_slime,
}
NAMES = ("trl", *LOADERS)


def loop_of(name: str, client: bots.Client, folder: Path) -> tuple[bots.Run, Loop]:
    """Returns a run over the rows, and the trainer."""
    text: Any = {"verl": lambda row: f"user: {row['prompt']}"}.get(name, "prompt")
    create_dataset(client, "sums", ROWS, text=text, id="id" if name == "slime" else None, dimensions=0)
    run = client.create_run("sums", name)
    if name == "trl":
        from tests.trainers.trl.paced import Paced

        return run, Paced(run, folder, ROWS, BATCH, ROLLOUTS)
    return run, Loading(LOADERS[name], run, folder)


def _endless(loader: Any, state: Any) -> Iterator[Any]:
    """Returns the batches of epoch after epoch, from a state that was saved or None."""
    if state is not None:
        loader.load_state_dict(state)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _written(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes rows as JSON lines, and returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
