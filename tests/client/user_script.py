"""A user's training script, for mypy --strict; see test_surface.py. It is never run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import bots
from bots import aio

client = bots.Client(
    ["10.0.0.1:50051", "10.0.0.2:50051"], timeout=3, job="qwen", outbox="outbox", tls=bots.TLS("ca.pem")
)
dataset: bots.Dataset = client.create_dataset(
    "d", ids=["a", "b"], weak=np.array([0.1, 0.2]), references={"qwen": [0.5, None]}
)
run: bots.Run = client.create_run("d", "r", model="item_response", target=0.4, rest=1, policy="qwen-7b")
same: bots.Run = client.create_run(
    "d", "s", hyperparameters=bots.Hyperparameters(target=0.4), fork_from=bots.ForkPoint("r")
)
batch: bots.Batch = run.select(8, key="step-1", target={"math": 0.4}, tags="math", lease_seconds=60)
part: bots.Batch = batch[0::2]
version: int | None = part.report([1, 2, 3, 4], 8, policy_step=3)
told: bots.RewardsReported = batch.report_rewards([[1.0, None]] * 8, low=-1, success=0.5)
rows: npt.NDArray[np.int64] = batch.rows(repeat=8, rank=0, world=2)
free: int | None = run.report(["a"], 1.0, 4, request_id=bots.new_request_id())
alpha, beta = run.posteriors()
mean: npt.NDArray[np.float64] = alpha / (alpha + beta)
events: Iterator[bots.Event] = run.events(after_version=3)
target: float | None = run.info().hyperparameters.target
resumed: bots.Resumed[bots.Run] = run.load_state_dict(run.state_dict(), fork_as="t")
run = resumed.run
capability: float | None = run.summary().capability
pending: int = run.stats.reports_pending
with bots.Collector(run, rollouts=8, by="selection") as collector:
    collector.expect(batch)
    collector.add("a", 1.0)
run.update(drift=0.02).version.bit_length()
client.close()


async def main() -> None:
    async with aio.Client("localhost:50051") as client:
        run: aio.Run = await client.create_run("d", "r", greedy=True)
        batch: aio.Batch = await run.select(8)
        version: int | None = await batch[::2].report(1, 2)
        print(version, [event.version async for event in run.events()])


asyncio.run(main())
