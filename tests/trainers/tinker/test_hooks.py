"""The dataset with tinker-cookbook's own classes and group rollout (`make trainers`)."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

pytest.importorskip("tinker_cookbook", reason="run by make trainers")

import tinker
from tinker_cookbook.completers import StopCondition, TokenCompleter, TokensWithLogprobs
from tinker_cookbook.rl.rollouts import do_group_rollout
from tinker_cookbook.rl.types import Env, EnvGroupBuilder, RLDataset, StepResult

import bots
from bots.trainers import create_dataset
from bots.trainers.tinker import BotsRLDataset
from tests.trainers.page import example

pytestmark = pytest.mark.filterwarnings("default")

ROWS = [{"question": f"{row} + 1 =", "passes": row % 5} for row in range(20)]
GROUP = 4


class SumEnv(Env):  # type: ignore[misc] # tinker-cookbook is in another environment
    """One step of a given reward."""

    def __init__(self, reward: float) -> None:
        self.reward = reward

    async def initial_observation(self) -> Any:
        """Returns an empty prompt."""
        return tinker.ModelInput.empty(), []

    async def step(self, action: Any, *, extra: Any = None) -> Any:
        """Ends the episode."""
        empty = tinker.ModelInput.empty()
        return StepResult(reward=self.reward, episode_done=True, next_observation=empty, next_stop_condition=[])


class SumBuilder(EnvGroupBuilder):  # type: ignore[misc] # the same
    """A group of which the first `passes` get 0.5 of the step and 0.5 of the group."""

    def __init__(self, row: Any) -> None:
        self.passes, self.rollouts = row["passes"], row.get("rollouts", GROUP)

    async def make_envs(self) -> Any:
        """Returns the environments."""
        return [SumEnv(0.5 * (rollout < self.passes)) for rollout in range(self.rollouts)]

    async def compute_group_rewards(self, trajectory_group: Any, env_group: Any) -> Any:
        """Returns the other half."""
        return [(env.reward, {}) for env in env_group]

    def logging_tags(self) -> list[str]:
        """Returns a tag."""
        return ["sums"]


class Policy(TokenCompleter):  # type: ignore[misc] # the same
    """Says one token."""

    async def __call__(self, model_input: Any, stop: StopCondition) -> Any:
        return TokensWithLogprobs(tokens=[1], maybe_logprobs=[0.0])


@pytest.fixture
def dataset(client: bots.Client) -> Any:
    """The dataset over a run."""
    create_dataset(client, "sums", ROWS, text="question", dimensions=0)
    run = client.create_run("sums", "r")
    return BotsRLDataset(run, ROWS[::-1], SumBuilder, batch_size=8, text="question", every_seconds=600)


def test_total_rewards_of_whole_groups_are_reported(dataset: Any) -> None:
    run = dataset.rewards.run
    builders = dataset.get_batch(0)
    assert run.stats.selections == 1
    passes = {builder.mark.split(":")[-1]: builder.builder.passes for builder in builders}
    before = run.info().version
    for builder in builders:
        group = asyncio.run(do_group_rollout(pickle.loads(pickle.dumps(builder.builder)), Policy()))
        assert sum(group.get_total_rewards()) == builder.builder.passes
        asyncio.run(do_group_rollout(builder, Policy()))
    dataset.rewards.send()
    run.flush()
    (event,) = run.events(after_version=before)
    assert dict(zip(map(str, event.kind.tasks), event.kind.successes, strict=True)) == passes
    assert list(event.kind.rollouts) == [GROUP] * 8


def test_builder_survives_pickling(dataset: Any) -> None:
    """Executors of rollouts are other processes."""
    (builder, *_) = dataset.get_batch(0)
    copy = pickle.loads(pickle.dumps(builder))
    assert (copy.mark, copy.logging_tags()) == (builder.mark, ["sums"])


def test_dataset_and_builder_have_the_members_of_the_base_classes(dataset: Any) -> None:
    """tinker-cookbook calls them and never asks for their class."""
    (builder, *_) = dataset.get_batch(0)
    for base, made in ((RLDataset, dataset), (EnvGroupBuilder, builder)):
        assert [name for name in vars(base) if callable(getattr(base, name)) and not hasattr(made, name)] == []
    assert len(dataset) == 2


def test_dataset_of_the_page_wraps_the_builders_of_a_user(dataset: Any, address: str) -> None:
    user: dict[str, Any] = {"rows": ROWS, "make_group_builder": lambda row, group_size: SumBuilder(row)}
    exec(example("tinker", address).replace("batch_size=64", "batch_size=8"), user)
    assert [type(builder.builder) for builder in user["dataset"].get_batch(0)] == [SumBuilder] * 8
