"""The taskset with verifiers' own classes, and its tasks over the wire of an environment server (`make trainers`)."""

from __future__ import annotations

import asyncio
import itertools
import sys
import types
from typing import Any

import pytest

pytest.importorskip("verifiers.v1", reason="run by make trainers")

import verifiers.v1 as vf
from verifiers.v1.trace import Trace

import bots
from bots.trainers import create_dataset
from bots.trainers.verifiers import bots_taskset
from tests.trainers.page import example

pytestmark = pytest.mark.filterwarnings("default")


class SumData(vf.TaskData):  # type: ignore[misc] # verifiers is in another environment
    """A sum and its answer."""

    answer: int


class SumTask(vf.Task[SumData]):  # type: ignore[misc] # the same
    """Scored 1 if the trace's info has the answer."""

    @vf.reward  # type: ignore[untyped-decorator] # the same
    async def right(self, trace: Any) -> float:
        return float(trace.info["answer"] == self.data.answer)


class SumTaskset(vf.Taskset[SumTask]):  # type: ignore[misc] # the same
    """Twenty sums."""

    def load(self) -> Any:
        for number in range(20):
            yield SumTask(SumData(prompt=f"{number} + 1 =", answer=number + 1))


ROWS = [{"prompt": f"{number} + 1 ="} for number in range(19, -1, -1)]


@pytest.fixture
def run(client: bots.Client) -> bots.Run:
    """A run over the sums."""
    create_dataset(client, "sums", ROWS, dimensions=0)
    return client.create_run("sums", "r")


def test_tasks_come_without_end_as_selected(run: bots.Run) -> None:
    taskset = bots_taskset(SumTaskset, run, batch_size=8)(vf.TasksetConfig())
    assert type(taskset).INFINITE
    assert not taskset.bounded
    tasks = list(itertools.islice(taskset, 50))
    ids = run.task_ids()
    for position, task in enumerate(tasks):
        assert isinstance(task, SumTask)
        assert task.data.idx == position
        place = int(task.data.bots.split(":")[-1])
        assert ids[place] == create_id(task.data.prompt)
    assert run.stats.selections in (7, 8)


def create_id(prompt: str) -> str:
    """Returns the id of a prompt."""
    from bots.trainers import Identity

    return Identity().of_row({"prompt": prompt})


def test_key_of_a_task_does_not_change_with_the_selection(run: bots.Run) -> None:
    """prime-rl knows a task by its key."""
    taskset = bots_taskset(SumTaskset, run, batch_size=8)(vf.TasksetConfig())
    keys: dict[str, set[str]] = {}
    for task in itertools.islice(taskset, 60):
        keys.setdefault(task.data.prompt, set()).add(task.key)
    assert len(keys) == len({key for found in keys.values() for key in found})
    assert all(len(found) == 1 for found in keys.values())


def test_task_reports_where_it_is_scored(run: bots.Run) -> None:
    """The server rebuilds a task of its data, as EnvServer does, and scores each of its rollouts."""
    cls = bots_taskset(SumTaskset, run, batch_size=8, every_seconds=600)
    taskset = cls(vf.TasksetConfig())
    task = next(iter(taskset))
    task_cls = type(taskset).task_type()
    data = task_cls.data_type().model_validate(task.data.model_dump())
    assert not [name for name, field in task_cls.data_type().model_fields.items() if field.exclude]
    before = run.info().version
    for answer in (data.answer, -1, data.answer):
        rebuilt = task_cls(data, taskset.config.task)
        trace = trace_of(rebuilt, answer)
        asyncio.run(rebuilt.score(trace))
        assert trace.reward == float(answer == data.answer)
    from bots.trainers.marked_rewards import _ALIVE

    for rewards in _ALIVE:
        rewards.send()
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert (list(event.kind.successes), list(event.kind.rollouts)) == ([2.0], [3])
    assert event.kind.tasks.tolist() == [int(data.bots.split(":")[-1])]


def trace_of(task: Any, answer: int) -> Any:
    """Returns the trace of a rollout that answered so."""
    return Trace.model_construct(rewards={}, metrics={}, info={"answer": answer})


def test_module_of_the_page_yields_the_tasks_that_the_dataset_of_the_page_has(
    client: bots.Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = list(SumTaskset(vf.TasksetConfig()))
    create_dataset(client, "sums", tasks, text=lambda task: task.data.prompt_text, dimensions=0)
    run = client.create_run("sums", "r")
    module: Any = types.ModuleType("my_env")
    module.MyTaskset = SumTaskset
    monkeypatch.setitem(sys.modules, "my_env", module)
    user: dict[str, Any] = {}
    exec(example("verifiers", address).replace("batch_size=64", "batch_size=8"), user)
    task = next(iter(user["BotsTaskset"](vf.TasksetConfig())))
    assert create_id(task.data.prompt) == run.task_ids()[int(task.data.bots.split(":")[-1])]


def test_own_taskset_is_left_as_it_is_for_evaluation(run: bots.Run) -> None:
    bots_taskset(SumTaskset, run)
    assert not SumTaskset.INFINITE
    assert SumTaskset.task_type() is SumTask
    assert len(list(SumTaskset(vf.TasksetConfig()))) == 20
