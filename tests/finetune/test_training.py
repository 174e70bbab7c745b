"""The loop of the benchmark. Skipped without torch: `make finetune` has it."""

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import bots  # noqa: E402
from tests.api.service import serving  # noqa: E402
from tests.finetune import start  # noqa: E402
from tests.finetune.learning import evaluate  # noqa: E402
from tests.finetune.setting import DYNAMIC, TAGS_LENGTH, UNIFORM, Arm, Setting  # noqa: E402
from tests.finetune.tasks import draw_distinct  # noqa: E402
from tests.finetune.trace import Trace  # noqa: E402
from tests.finetune.training import Training  # noqa: E402

SETTING = Setting(tasks=300, held_out=30, steps=12, batch=2, rollouts=4, evaluate_every=4)


@pytest.fixture(scope="module")
def problem() -> start.Problem:
    """The problem of seed 0, with the start that is committed."""
    return start.problem(SETTING, 0, start.read(start.file_of(start.COMMITTED, "start")))


@pytest.fixture
def client(redis_url: str) -> Iterator[bots.Client]:
    """A client of a real server."""
    with serving(redis_url) as service, bots.Client(service.address, strict=True, timeout=20) as client:
        yield client


def trained(problem: start.Problem, arm: Arm, run: bots.Run | None = None) -> Trace:
    """Returns the trace of a training of SETTING."""
    training = Training(problem, SETTING, arm, run, 0)
    for _ in range(SETTING.steps):
        training.round()
    return training.trace()


def test_committed_start_covers_the_whole_range() -> None:
    """Its pass rates are as those of a start that was just made must be."""
    policy = start.load(start.read(start.file_of(start.COMMITTED, "start")))
    tasks = draw_distinct(np.random.default_rng(1), 1000)
    start.check(evaluate(policy, tasks).sampled, Setting().rollouts)


def test_start_that_solves_nothing_is_refused() -> None:
    """The message has the three shares."""
    with pytest.raises(ValueError, match=r"0\.00 always solved, 1\.00 never solved, 0\.00 sometimes solved"):
        start.check(np.zeros(10), 16)


def test_uniform_takes_each_task_once_an_epoch(problem: start.Problem) -> None:
    """24 tasks of 300 are distinct, and equal seeds train equally."""
    one, same = (trained(problem, UNIFORM) for _ in range(2))
    assert np.unique(one.tasks).size == one.tasks.size
    assert one.accuracy.tolist() == same.accuracy.tolist()
    assert one.updates.tolist() == [0, 4, 8, 12]


def test_dynamic_sampling_steps_when_a_batch_of_effective_groups_is_there(problem: start.Problem) -> None:
    """Groups whose rewards are equal do not count, and those above the batch are dropped."""
    found = trained(problem, DYNAMIC)
    effective = ((found.successes > 0) & (found.successes < SETTING.rollouts)).sum(axis=1)
    updates, kept = 0, 0
    for count in effective.tolist():
        kept += count
        if kept >= SETTING.batch:
            updates, kept = updates + 1, 0
    assert found.updates[-1] == updates < SETTING.steps


def test_service_selects_and_is_told_every_outcome(problem: start.Problem, client: bots.Client) -> None:
    """The run's history has the tasks and the successes of the trace, and equal seeds select equally."""
    client.create_dataset("tasks", **start.columns(TAGS_LENGTH, problem.tasks, dict))
    run, other = (client.create_run("tasks", name, model="item_response") for name in ("one", "other"))
    found = trained(problem, TAGS_LENGTH, run)
    reports = [event.kind for event in run.events() if isinstance(event.kind, bots.ReportEvent)]
    for tasks, successes, report in zip(found.tasks, found.successes, reports, strict=True):
        order = np.argsort(tasks)
        assert report.tasks.tolist() == tasks[order].tolist()
        assert report.successes.tolist() == successes[order].tolist()
    assert found.calibration[:, 0].sum() == pytest.approx(found.tasks.size)
    assert trained(problem, TAGS_LENGTH, other).tasks.tolist() == found.tasks.tolist()
