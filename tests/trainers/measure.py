"""Measures an adapter in the trainer's own loader, against a server in another process.

    python -m tests.trainers.measure {torch,verl,trinity} [--seconds 60]

Prints one JSON object. `python -m tests.trainers --measure` runs it in each environment and writes the table of
client/TRAINERS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bots
from bots.trainers import create_dataset
from tests.deploy import stack
from tests.valkey import free_port, valkey

TASKS, BATCH, ROLLOUTS = 10_000, 32, 8
STEPS = 100
TRAIN_SECONDS = 0.1  # what a step does beside loading and reporting
WINDOW_SECONDS = 0.05  # every_seconds of the adapters that have it
ROWS: list[dict[str, Any]] = [
    {
        "data_source": "sums",
        "prompt": f"{row} + 1 =",
        "answer": str(row + 1),
        "reward_model": {"ground_truth": str(row + 1)},
        "extra_info": {"index": row},
    }
    for row in range(TASKS)
]


@dataclass(frozen=True)
class Loop:
    """A trainer's loading and scoring of batches.

    load        returns the next batch.
    score       gets the rewards of a batch where the trainer computes them.
    state_dict  returns the state that the trainer saves of its loader.
    """

    load: Callable[[], Any]
    score: Callable[[Any], None]
    state_dict: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the adapter costs.

    overhead_ms  median time to load and score a batch of 32 tasks x 8 rollouts, less that without the adapter.
    stale        largest number of steps that were scored and that a selection did not see, if a step takes 0.1 s.
    resumed      selections from a resume to its first batch.
    stall_s      longest step, beyond the time to train, of those in which the service was away.
    delivered    reports delivered, of those made.
    """

    overhead_ms: float
    stale: int
    resumed: int
    stall_s: float
    delivered: str


def of_torch(run: bots.Run | None, folder: Path, state: Any = None) -> Loop:
    """Returns the loop of the page, in torchdata's StatefulDataLoader."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    from bots.trainers.torch import TaskDataset

    tasks: Any = ROWS if run is None else TaskDataset(ROWS, run)
    loader = StatefulDataLoader(tasks, batch_size=BATCH, shuffle=True, collate_fn=list, drop_last=True)
    if state is not None:
        loader.load_state_dict(state)
    batches = endless(loader)

    def score(rows: list[dict[str, Any]]) -> None:
        rewards = [[float(rollout < row["extra_info"]["index"] % 9) for rollout in range(ROLLOUTS)] for row in rows]
        if run is not None:
            tasks.report([row["bots"] for row in rows], rewards)

    return Loop(lambda: next(batches), score, loader.state_dict)


def of_verl(run: bots.Run | None, folder: Path, state: Any = None) -> Loop:
    """Returns verl's dataset, collate and loader, and a reward function that is called for each rollout."""
    from omegaconf import OmegaConf
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    from bots.trainers.verl import bots_compute_score, bots_dataset

    files = [folder / "train.jsonl", folder / "val.jsonl"]
    for file in files:
        chat = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
        file.write_text("".join(json.dumps(row) + "\n" for row in chat))
    config = OmegaConf.create(
        {
            "train_files": str(files[0]),
            "val_files": str(files[1]),
            "train_batch_size": BATCH,
            "dataloader_num_workers": 0,
            "filter_overlong_prompts": False,
            "cache_dir": str(folder),
        }
    )
    made = RLHFDataset if run is None else bots_dataset(run)
    dataset = made(data_files=config.train_files, tokenizer=None, processor=None, config=config, max_samples=-1)
    loader = StatefulDataLoader(dataset, batch_size=BATCH, shuffle=True, collate_fn=collate_fn, drop_last=True)
    if state is not None:
        loader.load_state_dict(state)
    batches = endless(loader)

    def plain(**given: Any) -> float:
        return float(given["extra_info"]["rollout"] < given["extra_info"]["index"] % 9)

    compute: Callable[..., Any] = plain
    if run is not None:
        compute = bots_compute_score(run, plain, every_seconds=WINDOW_SECONDS)

    def score(batch: Any) -> None:
        for info in batch["extra_info"]:
            for rollout in range(ROLLOUTS):
                compute(data_source="", solution_str="", ground_truth="", extra_info={**info, "rollout": rollout})

    return Loop(lambda: next(batches), score, loader.state_dict)


def of_trinity(run: bots.Run | None, folder: Path, state: Any = None) -> Loop:
    """Returns Trinity's reader with its random selector, or ours by its dotted path, and the feedback of rewards."""
    from trinity.buffer.reader.file_reader import FileReader
    from trinity.common.config import DataSelectorConfig, FormatConfig, StorageConfig

    from bots.trainers.trinity import bots_selector

    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    kind = "random"
    if run is not None:
        module: Any = type(sys)("bots_trinity_measured")
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
        values = [[float(rollout < index % 9) for rollout in range(ROLLOUTS)] for index in indices]
        if run is not None:
            reader.feedback(indices=indices, values=values)

    return Loop(lambda: asyncio.run(reader.read()), score, reader.state_dict)


LOOPS: dict[str, Callable[..., Loop]] = {"torch": of_torch, "verl": of_verl, "trinity": of_trinity}


def endless(loader: Any) -> Iterator[Any]:
    """Yields the batches of epoch after epoch."""
    while True:
        yield from loader


def steps(loop: Loop, number: int, after: Callable[[], object] = lambda: None) -> list[float]:
    """Returns the seconds that each of some steps took beside training; `after` is called when a batch is loaded."""
    took = []
    for _ in range(number):
        began = time.perf_counter()
        batch = loop.load()
        loaded = time.perf_counter() - began
        after()
        time.sleep(TRAIN_SECONDS)
        began = time.perf_counter()
        loop.score(batch)
        took.append(loaded + time.perf_counter() - began)
    return took


def measured(name: str, seconds: float) -> Measured:
    """Returns the figures of one adapter."""
    make = LOOPS[name]
    port = free_port()
    with tempfile.TemporaryDirectory() as place, valkey() as redis:
        folder = Path(place)
        serve = functools.partial(stack.bots_server, redis.url, "--port", str(port))
        plain = steps(make(None, folder), STEPS)
        with serve() as server:
            client = bots.Client(server.address, job="measured")
            text = (lambda row: f"user: {row['prompt']}") if name == "verl" else "prompt"
            create_dataset(client, "sums", ROWS, text=text, dimensions=0)
            run = client.create_run("sums", "r")
            loop = make(run, folder)
            scored, unseen = 0, [0]

            def seen() -> None:
                nonlocal scored
                unseen.append(scored - int(run.summary().total.rollouts) // (BATCH * ROLLOUTS))
                scored += 1

            took = steps(loop, STEPS, seen)
            state, before = loop.state_dict(), run.stats.selections
            make(run, folder, state).load()
            resumed = run.stats.selections - before
        away: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            away += steps(loop, 1)
        time.sleep(2 * WINDOW_SECONDS)  # the rewards of the last step are sent
        with serve():
            client.flush(60)
            updates = run.summary().updates
            client.close()
    return Measured(
        overhead_ms=1000 * (statistics.median(took) - statistics.median(plain)),
        stale=max(unseen),
        resumed=resumed,
        stall_s=max(away),
        delivered=f"{updates} of {STEPS + len(away)}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=LOOPS)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the service is away")
    given = parser.parse_args()
    print(json.dumps(dataclasses.asdict(measured(given.name, given.seconds))))


if __name__ == "__main__":
    main()
