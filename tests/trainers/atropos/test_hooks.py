"""The example of the page on Atropos' own BaseEnv (`make trainers`)."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="run by make trainers")

from atroposlib.envs.base import BaseEnv

import bots
from bots.trainers import create_dataset
from tests.trainers.page import example

pytestmark = pytest.mark.filterwarnings("default")

ROWS: list[dict[str, Any]] = [{"prompt": f"{row} + 1 =", "passes": row % 5} for row in range(80)]
GROUP = 4


class SumEnv(BaseEnv):  # type: ignore[misc] # atroposlib is in another environment
    """An environment of a user."""

    def __init__(self) -> None:
        # Without super(): that opens connections to inference servers.
        self.config = types.SimpleNamespace(group_size=GROUP)
        self.rollouts = 0

    async def setup(self) -> None:
        """Sets up nothing."""

    async def get_next_item(self) -> Any:
        """Never asked: the class of the page does it."""
        raise AssertionError

    async def collect_trajectory(self, item: Any) -> Any:
        """Returns a rollout: of the four, as many score 1 as the row says."""
        self.rollouts += 1
        return {"tokens": [1], "masks": [1], "scores": float(self.rollouts % GROUP < item["passes"])}, []

    async def evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Evaluates nothing."""


def test_groups_of_an_environment_are_one_update(client: bots.Client) -> None:
    create_dataset(client, "sums", ROWS, dimensions=0)
    run = client.create_run("sums", "r")
    names: dict[str, Any] = {"MyEnv": SumEnv, "run": run, "rows": ROWS}
    exec(example("Atropos", ""), names)
    env = names["MyBotsEnv"]()
    before = run.info().version

    async def step() -> list[Any]:
        await env.setup()
        items = [await env.get_next_item() for _ in range(64)]
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
    assert list(event.kind.rollouts) == [GROUP] * len(passes)
