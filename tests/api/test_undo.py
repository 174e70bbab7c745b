"""UndoReport: a run without one of its reports is the run that the other events give, to the last bit."""

import threading
from typing import Any

import grpc
import numpy as np
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.store import history
from tests.api.service import SECONDS, Run, Service, new_id, reason_of, serving

MODELS = ["EVIDENCE_MODEL_INTERPOLATION", "EVIDENCE_MODEL_ITEM_RESPONSE"]
SIZE = 40
SELECTIONS = [f"{number:032x}" for number in range(12)]


@pytest.fixture
def tasks(service: Service) -> Service:
    """A server with the dataset `tasks`: references, tags, and a feature."""
    rng = np.random.default_rng(3)
    weak = np.round(rng.random(SIZE) * 8) / 16
    service.dataset(
        "tasks",
        SIZE,
        tags=["even", "odd"] * (SIZE // 2),
        references={"weak": weak, "strong": weak + 0.375},
        features={"length": rng.random(SIZE)},
    )
    return service


def twin(service: Service, run: Run, name: str, without: set[int], **created: Any) -> Run:
    """Returns a run that was created as another and given the same events, but for some reports and for the undos."""
    other = service.create("tasks", name, **created)
    versions = {0: 0}
    for event in run.events(page_size=1000).events:
        match event.WhichOneof("kind"):
            case "report" if event.version not in without:
                of = event.report
                steps = {
                    step: getattr(of, step) for step in ("policy_step", "selection_policy_step") if of.HasField(step)
                }
                columns = {name: list(getattr(of, name)) for name in ("tasks", "successes", "rollouts", "effective")}
                other.report(**columns, selection_id=of.selection_id, **steps)
            case "hyperparameters":
                changed = event.hyperparameters.hyperparameters
                service.stub.UpdateRun(pb.UpdateRunRequest(run=other.ref, hyperparameters=changed), timeout=SECONDS)
            case "retire":
                request = pb.RetireTasksRequest(run=other.ref, tasks=event.retire.tasks, undo=event.retire.undo)
                service.stub.RetireTasks(request, timeout=SECONDS)
            case "restore":
                other.restore(version=versions[event.restore.version])
        versions[event.version] = other.info().version
    return other


def state(run: Run) -> tuple[Any, ...]:
    """Returns all that a run tells of its state, without its name, version and times."""
    summary = run.summary()
    values = summary.run.hyperparameters
    summary.ClearField("run")
    summary.ClearField("last_report_time")
    draws = run.select(6, seed=5).tasks
    return repr(summary), repr(values), list(draws), *(column.tolist() for column in run.posteriors())


def play(run: Run, rng: np.random.Generator, steps: int) -> None:
    """Reports parts of selections, several of which are open at a time, and outcomes of no selection."""
    for step in range(steps):
        chosen = rng.choice(SIZE, 5, replace=False)
        selection = str(rng.choice(SELECTIONS)) if step % 3 else ""
        successes = rng.integers(0, 9, 5).tolist()
        run.report(
            chosen.tolist(), successes, 8, selection_id=selection, policy_step=step, selection_policy_step=step // 2
        )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rollouts_per_update", [0, 100])
def test_run_without_a_report_is_what_the_other_events_give(
    tasks: Service, model: str, rollouts_per_update: int
) -> None:
    """With parts of open selections, pending rollouts, changes of hyperparameters, retired tasks and restores around
    it; and so it stays with the events that follow, on a server that comes later, and in a fork.
    """
    rng = np.random.default_rng(7)
    created = {"model": model, "rollouts_per_update": rollouts_per_update}
    run = tasks.create("tasks", "policy", **created)
    play(run, rng, 9)
    bad = run.report([1, 2, 3], [0, 0, 0], [1_000_000] * 3, selection_id=SELECTIONS[1]).version
    play(run, rng, 4)
    run.update(target=0.375, rest=0.25)
    tasks.stub.RetireTasks(pb.RetireTasksRequest(run=run.ref, tasks=[4, 5]), timeout=SECONDS)
    play(run, rng, 5)
    run.restore(version=run.info().version - 2)
    play(run, rng, 3)
    run.restore(version=2)  # before the report, and back to after it
    run.restore(version=run.info().version - 1)
    play(run, rng, 3)
    before = run.info().version
    assert run.undo(bad).version == before + 1
    assert state(run) == state(twin(tasks, run, "first", {bad}, **created))
    play(run, rng, 4)
    run.checkpoint("later")
    second = twin(tasks, run, "second", {bad}, **created)
    assert state(run) == state(second)
    point = pb.ForkPoint(run="policy")
    assert state(tasks.create("tasks", "fork", fork_from=point))[2:] == state(run)[2:]
    with serving(tasks.redis_url) as other:
        assert state(other.run("tasks", "policy")) == state(second)
    run.restore(version=before)
    assert state(run) == state(twin(tasks, run, "third", set(), **created)) != state(second)
    run.restore(checkpoint="later")
    second.restore(version=second.info().version)
    assert state(run) == state(second)
    (undone,) = [event for event in run.events(page_size=1000).events if event.HasField("undo")]
    assert (undone.version, undone.undo.version) == (before + 1, bad)


@pytest.mark.parametrize("order", [(3, 6), (6, 3)])
def test_two_reports_are_undone_in_any_order(tasks: Service, order: tuple[int, int], monkeypatch: Any) -> None:
    """Also if a snapshot lies between the two, so that the first undo's own state has the other report."""
    monkeypatch.setattr(history, "SNAPSHOT_EVENTS", 5)
    run = tasks.create("tasks", "policy")
    rng = np.random.default_rng(1)
    play(run, rng, 5)
    tasks.wait_until(lambda: tasks.sample("bots_snapshots_total", outcome="stored"))
    play(run, rng, 4)
    for version in order:
        run.undo(version)
    assert state(run) == state(twin(tasks, run, "twin", {3, 6}))
    kinds = [event.WhichOneof("kind") for event in run.events().events]
    assert kinds == ["report"] * 9 + ["undo"] * 2


def test_reports_that_arrive_meanwhile_stay(tasks: Service) -> None:
    """The undo follows them, and no report is lost or counted twice."""
    run = tasks.create("tasks", "policy")
    play(run, np.random.default_rng(0), 30)
    stop = threading.Event()

    def report(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.wait(0.02):  # as often as trainers do; undos take longer without a pause
            play(run, rng, 1)

    threads = [threading.Thread(target=report, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        made = [run.undo(version).version for version in (5, 20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    events = run.events(page_size=10_000).events
    assert [event.version for event in events if event.HasField("undo")] == made
    assert state(run) == state(twin(tasks, run, "twin", {5, 20}))


def test_only_a_report_that_counts_can_be_undone(policy: Run) -> None:
    """Not one that is undone, that a restore left behind, or that is no report; the message says which."""
    policy.report([1], [4])
    policy.report([2], [4])
    policy.update(target=0.25)
    policy.undo(2)
    policy.report([3], [4])
    policy.restore(version=1)
    for version, why in (
        (2, "version 6 went back to version 1"),
        (3, "it is not a report"),
        (5, "version 6 went back to version 1"),
    ):
        with pytest.raises(
            grpc.RpcError, match=f"version: got {version}, must be of a report that counts .*{why}"
        ) as no:
            policy.undo(version)
        assert (no.value.code(), reason_of(no.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "REPORT_NOT_COUNTED")
    assert policy.info().version == 6
    policy.restore(version=3)  # which still has the second report
    policy.undo(2)
    with pytest.raises(grpc.RpcError, match="version 8 undid it"):
        policy.undo(2)


def test_event_in_the_state_that_is_no_report_cannot_be_undone(policy: Run) -> None:
    """UpdateRun, RetireTasks and RestoreRun have their own way back."""
    policy.report([1], [4])
    policy.update(target=0.25)
    policy.stub.RetireTasks(pb.RetireTasksRequest(run=policy.ref, tasks=[2]), timeout=SECONDS)
    policy.restore(version=3)
    for version in 2, 3, 4:
        with pytest.raises(grpc.RpcError, match="it is not a report") as no:
            policy.undo(version)
        assert (no.value.code(), reason_of(no.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "REPORT_NOT_COUNTED")
    assert policy.info().version == 4


def test_version_that_the_history_lacks_is_not_found(policy: Run) -> None:
    """Not yet there, or below 1."""
    policy.report([1], [4])
    with pytest.raises(grpc.RpcError, match="version: got 2, must be between 1 and 1") as refused:
        policy.undo(2)
    assert reason_of(refused.value) == "VERSION_NOT_FOUND"
    with pytest.raises(grpc.RpcError, match="version: got 0, must be between 1 and") as refused:
        policy.undo(0)
    assert reason_of(refused.value) == "INVALID_FIELD"


def test_report_that_the_trimmed_history_no_longer_reaches_is_not_found(
    tasks: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest state that is kept has it."""
    monkeypatch.setattr(history, "SNAPSHOT_EVENTS", 4)
    monkeypatch.setattr(history, "HISTORY_EVENTS", 6)
    monkeypatch.setattr(history, "HISTORY_STRIDE", 1)
    run = tasks.create("tasks", "policy")
    rng = np.random.default_rng(1)

    def oldest() -> int:
        play(run, rng, 1)
        return int(run.events().events[0].version)

    tasks.wait_until(lambda: oldest() > 4)
    first, newest = run.events().events[0].version, run.info().version
    with pytest.raises(grpc.RpcError, match=f"version: got {first}, must be between {first + 1} and {newest}") as no:
        run.undo(first)
    assert reason_of(no.value) == "VERSION_NOT_FOUND"
    run.undo(first + 1)
    with pytest.raises(grpc.RpcError, match="undid it"):
        run.undo(first + 1)


def test_repeat_of_an_undo_is_its_first_answer(policy: Run) -> None:
    """Whatever happened since; the id of another undo is refused."""
    policy.report([1], [4])
    policy.report([2], [4])
    fields = {"request_id": new_id()}
    first = policy.undo(1, **fields)
    policy.report([3], [4])
    again = policy.undo(1, **fields)
    assert (first.version, first.repeated_request) == (3, False)
    assert (again.version, again.repeated_request, again.run_uid) == (3, True, first.run_uid)
    with pytest.raises(grpc.RpcError) as refused:
        policy.undo(2, **fields)
    assert reason_of(refused.value) == "REQUEST_ID_REUSED"
    assert policy.info().version == 4
