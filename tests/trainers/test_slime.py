"""slime's data source and hook. slime is on no package index: stand-ins have the members of its base classes that the
hook uses, as its source of August 2026 has them (slime/rollout/data_source.py, slime/utils/types.py).
"""

from __future__ import annotations

import copy
import enum
import itertools
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

import bots
from bots.trainers import create_dataset
from bots.trainers.slime import bots_data_source, bots_report
from tests.trainers.page import example

ROWS: list[dict[str, Any]] = [{"prompt": f"task {row}", "metadata": {"id": f"t{row}"}} for row in range(30)]
GROUP = 4


@dataclass
class Sample:
    """slime.utils.types.Sample."""

    class Status(enum.Enum):
        """How a sample ended."""

        PENDING = "pending"
        COMPLETED = "completed"
        ABORTED = "aborted"

    prompt: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    reward: Any = None
    group_index: int | None = None
    index: int | None = None
    status: Status = Status.PENDING

    def get_reward_value(self, args: Any) -> Any:
        """Returns the reward, or its entry that --reward-key names."""
        return self.reward if not args.reward_key else self.reward[args.reward_key]


class RolloutDataSource:
    """slime.rollout.data_source.RolloutDataSource."""

    rows: ClassVar[list[dict[str, Any]]] = ROWS

    def __init__(self, args: Any) -> None:
        self.args = args
        self.sample_offset = self.sample_group_index = self.sample_index = 0
        samples = [Sample(f"<user>{row['prompt']}<assistant>", dict(row["metadata"])) for row in reversed(self.rows)]
        self.dataset = types.SimpleNamespace(origin_samples=samples, samples=samples)
        self.saved: list[Any] = []

    def get_samples(self, num_samples: int) -> list[list[Sample]]:
        """Returns the next groups of the file. Never asked of the hook, which is in its place."""
        prompts = self.dataset.samples[self.sample_offset : self.sample_offset + num_samples]
        self.sample_offset = (self.sample_offset + num_samples) % len(self.dataset.samples)
        return [[copy.deepcopy(prompt) for _ in range(self.args.n_samples_per_prompt)] for prompt in prompts]

    def save(self, rollout_id: Any) -> None:
        """Notes it."""
        self.saved.append(rollout_id)

    def load(self, rollout_id: Any = None) -> None:
        """Loads nothing."""


class RolloutDataSourceWithBuffer(RolloutDataSource):
    """slime.rollout.data_source.RolloutDataSourceWithBuffer: the buffer first, then super()."""

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self.buffer: list[list[Sample]] = []

    def get_samples(self, num_samples: int) -> list[list[Sample]]:
        """Returns groups of the buffer and then new ones."""
        found, self.buffer = self.buffer[:num_samples], self.buffer[num_samples:]
        return found + super().get_samples(num_samples=num_samples - len(found))

    def add_samples(self, samples: list[list[Sample]]) -> None:
        """Puts groups into the buffer."""
        self.buffer += samples


def stand_ins() -> dict[str, types.ModuleType]:
    """Returns slime's modules of which the hook imports."""
    module: Any = types.ModuleType("slime.rollout.data_source")
    module.RolloutDataSource, module.RolloutDataSourceWithBuffer = RolloutDataSource, RolloutDataSourceWithBuffer
    return {name: types.ModuleType(name) for name in ("slime", "slime.rollout")} | {module.__name__: module}


@pytest.fixture
def run(client: bots.Client, monkeypatch: pytest.MonkeyPatch) -> bots.Run:
    """A run over the rows, with the stand-ins in place."""
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    create_dataset(client, "sums", ROWS, id=lambda row: row["metadata"]["id"], dimensions=0)
    return client.create_run("sums", "r")


@pytest.fixture
def args(tmp_path: Path) -> Any:
    """slime's arguments."""
    return types.SimpleNamespace(
        n_samples_per_prompt=GROUP, rollout_batch_size=6, save=str(tmp_path), load=str(tmp_path), reward_key=None
    )


def source_of(run: bots.Run, args: Any) -> Any:
    """Returns the data source, made as slime makes it."""
    return bots_data_source(run, id=lambda sample: sample.metadata["id"])(args)


def test_groups_are_of_the_selected_tasks(run: bots.Run, args: Any) -> None:
    source = source_of(run, args)
    groups = source.get_samples(4) + source.get_samples(2)
    assert run.stats.selections == 1
    ids = run.task_ids()
    for place, group in enumerate(groups):
        assert [sample.index for sample in group] == [GROUP * place + rollout for rollout in range(GROUP)]
        assert {sample.group_index for sample in group} == {place}
        (mark,) = {sample.metadata["bots"] for sample in group}
        assert {sample.metadata["id"] for sample in group} == {ids[int(mark.split(":")[-1])]}
    assert all("bots" not in sample.metadata for sample in source.dataset.origin_samples)


def test_classes_of_the_page_select_and_report(run: bots.Run, args: Any, address: str) -> None:
    user: dict[str, Any] = {}
    exec(example("slime", address), user)
    groups = user["DataSource"](args).get_samples(6)
    for sample in itertools.chain.from_iterable(groups):
        sample.reward, sample.status = 1.0, Sample.Status.COMPLETED
    user["report"](args, groups, None)
    user["run"].flush()
    assert run.summary().total.outcomes == 6


def test_buffered_groups_come_first(run: bots.Run, args: Any) -> None:
    source = source_of(run, args)
    groups = source.get_samples(3)
    source.add_samples(groups[:2])
    assert source.get_samples(3)[:2] == groups[:2]


def test_all_groups_are_one_report(run: bots.Run, args: Any) -> None:
    """Groups of equal rewards too; an aborted sample and one without a reward are left out; the last of a fan-out
    counts.
    """
    groups: list[Any] = source_of(run, args).get_samples(6)
    for place, group in enumerate(groups):
        for rollout, sample in enumerate(group):
            sample.reward, sample.status = float(rollout < place), Sample.Status.COMPLETED
    groups[1][0].status = Sample.Status.ABORTED
    groups[2][0].reward = None
    groups[3] = [[Sample(reward=9.0), sample] for sample in groups[3]]
    before = run.info().version
    bots_report(run)(args, groups, None)
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert sorted(zip(event.kind.rollouts, event.kind.successes, strict=True)) == [
        (3, 0), (3, 1), (4, 0), (4, 3), (4, 4), (4, 4),
    ]  # fmt: skip


def test_entry_of_the_reward_key_is_reported(run: bots.Run, args: Any) -> None:
    args.reward_key = "acc"
    groups = source_of(run, args).get_samples(1)
    for sample in groups[0]:
        sample.reward, sample.status = {"acc": 1.0, "length": 700}, Sample.Status.COMPLETED
    before = run.info().version
    bots_report(run)(args, groups, None)
    run.flush()
    (event,) = run.events(after_version=before)
    assert isinstance(event.kind, bots.ReportEvent)
    assert list(event.kind.successes) == [4.0]


def test_place_of_the_run_is_saved_and_restored(run: bots.Run, args: Any) -> None:
    source = source_of(run, args)
    run.report(["t1"], [4], 4)
    before = run.posteriors()[0].tolist()
    source.save(7)
    run.report(["t1"], [4], 4)
    assert run.posteriors()[0].tolist() != before
    resumed = source_of(run, args)
    resumed.load(6)
    assert run.posteriors()[0].tolist() != before
    resumed.load(7)
    assert run.posteriors()[0].tolist() == before
    assert source.saved == [7]
