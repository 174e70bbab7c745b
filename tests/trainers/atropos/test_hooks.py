"""The supply and the marked rewards in an environment of Atropos' own (`make trainers`)."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="run by make trainers")

from atroposlib.envs.base import BaseEnv

import bots
from bots.trainers import TaskRows, create_dataset
from bots.trainers.marked_rewards import MarkedRewards
from bots.trainers.supply import RowSupply

pytestmark = pytest.mark.filterwarnings("default")

ROWS: list[dict[str, Any]] = [{"prompt": f"{row} + 1 =", "passes": row % 5} for row in range(20)]
GROUP = 4


class SumEnv(BaseEnv):  # type: ignore[misc] # atroposlib is in another environment
    """As the page has it: `get_next_item` hands out marked rows, `collect_trajectories` reports the group's scores."""

    def __init__(self, supply: RowSupply, rewards: MarkedRewards) -> None:
        # Without super(): that opens connections to inference servers.
        self.config = types.SimpleNamespace(group_size=GROUP)
        self.supply, self.rewards, self.rollouts = supply, rewards, 0

    async def get_next_item(self) -> Any:
        """Returns a row with its mark."""
        ((row, mark),) = await asyncio.to_thread(self.supply.take, 1)
        return {**ROWS[row], "bots": mark}

    async def collect_trajectory(self, item: Any) -> Any:
        """Returns a rollout: of the four, as many score 1 as the row says."""
        self.rollouts += 1
        return {"tokens": [1], "masks": [1], "scores": float(self.rollouts % GROUP < item["passes"])}, []

    async def collect_trajectories(self, item: Any) -> Any:
        """Returns the group of BaseEnv, and reports its scores."""
        group, backlog = await super().collect_trajectories(item)
        self.rewards.add(item["bots"], *group["scores"])
        return group, backlog

    async def evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Evaluates nothing."""

    async def setup(self) -> None:
        """Sets up nothing."""


def test_groups_of_an_environment_are_one_update(client: bots.Client) -> None:
    create_dataset(client, "sums", ROWS, dimensions=0)
    run = client.create_run("sums", "r")
    env = SumEnv(RowSupply(TaskRows(run, ROWS), 8, ahead=True), MarkedRewards(run, every_seconds=600))
    before = run.info().version

    async def step() -> list[Any]:
        items = [await env.get_next_item() for _ in range(8)]
        for item in items:
            await env.collect_trajectories(item)
        return items

    items = asyncio.run(step())
    env.rewards.send()
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    passes = {int(item["bots"].split(":")[-1]): item["passes"] for item in items}
    assert dict(zip(event.kind.tasks.tolist(), event.kind.successes.tolist(), strict=True)) == passes
    assert list(event.kind.rollouts) == [GROUP] * 8
