"""CreateRun, GetRun, ListRuns, UpdateRun, DeleteRun: runs are what was asked for, and listing them folds nothing."""

import time
from typing import Any

import grpc
import numpy as np
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import RULES
from bots_server.storage.v1 import storage_pb2 as storage
from tests.api.service import SECONDS, Service, reason_of, serving


def create(service: Service, name: str = "new", **fields: Any) -> pb.CreateRunResponse:
    return service.stub.CreateRun(pb.CreateRunRequest(dataset="letters", name=name, **fields), timeout=SECONDS)


def learn(**values: Any) -> pb.Hyperparameters:
    return pb.Hyperparameters(**values)


def test_equal_request_returns_the_run(letters: Service) -> None:
    """Every rank and every restart of a job may create its run; what UpdateRun changed since makes no difference."""
    asked: dict[str, Any] = {"hyperparameters": learn(target=0.3), "policy": "qwen-7b"}
    first = create(letters, **asked)
    letters.run("letters", "new").update(target=0.6)
    again = create(letters, **asked)
    assert (first.created, again.created) == (True, False)
    assert again.run.ref == first.run.ref
    assert again.run.hyperparameters.target == 0.6
    assert again.run.policy == "qwen-7b"


def test_fields_that_either_request_lacks_make_no_difference(letters: Service) -> None:
    """So a changed default, or a hyperparameter that is younger than the run, breaks no restarted job."""
    create(letters, hyperparameters=learn(target=0.3))
    for fields in (
        {},
        {"hyperparameters": learn(rest=0.25)},
        {"policy": "qwen-7b"},
        {"model": pb.EVIDENCE_MODEL_ITEM_RESPONSE},
    ):
        assert not create(letters, **fields).created


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"hyperparameters": learn(target=0.4)}, "hyperparameters.target is 0.3, not 0.4"),
        ({"policy": "llama"}, "policy is 'qwen-7b', not 'llama'"),
        ({"model": "EVIDENCE_MODEL_INTERPOLATION"}, "model is 'item_response', not 'interpolation'"),
        (
            {"fork_from": pb.ForkPoint(run="policy")},
            "fork_from.dataset is absent, not 'letters', fork_from.run is absent, not 'policy'",
        ),
    ],
)
def test_run_that_was_asked_for_differently_is_refused(
    letters: Service, fields: dict[str, Any], difference: str
) -> None:
    """ALREADY_EXISTS says what differs."""
    create(letters, hyperparameters=learn(target=0.3), policy="qwen-7b")
    with pytest.raises(grpc.RpcError) as refused:
        create(letters, **fields)
    assert reason_of(refused.value) == "RUN_EXISTS"
    assert difference in (refused.value.details() or "")


def test_run_of_an_older_server_is_compared_by_what_it_stated(letters: Service) -> None:
    """A record without a hyperparameter of today, and with another default, is the same run (review 1.6)."""
    record = letters.store.runs.get(letters.store.datasets.get("letters"), "policy")
    old = storage.RunRecord()
    old.CopyFrom(record)
    old.name, old.uid, old.requested.hyperparameters.target = "old", "1" * 32, 0.3
    old.requested.hyperparameters.ClearField("rest")
    old.hyperparameters.ClearField("rest")
    old.hyperparameters.forgetting = 0.2
    letters.store.runs.create(old)
    again = create(letters, "old", hyperparameters=learn(target=0.3, rest=0.5, forgetting=0.1))
    assert not again.created
    assert again.run.hyperparameters.rest == 0.5
    assert letters.run("letters", "old").select(2).version == 0


def test_model_that_is_not_stated_follows_from_the_dataset(service: Service) -> None:
    """Interpolation if the dataset has the references weak and strong and nothing else; otherwise item_response."""
    both = {"weak": [0.25] * 4, "strong": [0.5] * 4}
    columns: dict[str, dict[str, Any]] = {
        "both": {"references": both},
        "one": {"references": {"strong": [0.5] * 4}},
        "tagged": {"references": both, "tags": ["a", "a", "b", "b"]},
        "featured": {"references": both, "features": {"length": [1, 2, 3, 4]}},
        "nothing": {},
    }
    for name, given in columns.items():
        service.dataset(name, 4, **given)
        model = service.create(name, "run").info().model
        assert model == (pb.EVIDENCE_MODEL_INTERPOLATION if name == "both" else pb.EVIDENCE_MODEL_ITEM_RESPONSE), name


@pytest.mark.parametrize("model", ["interpolation", "item_response"])
def test_run_has_all_hyperparameters_of_its_model(letters: Service, model: str) -> None:
    """And none of the other model, which is refused in CreateRun and UpdateRun."""
    run = letters.create("letters", model, model=f"EVIDENCE_MODEL_{model.upper()}")
    own = {name for name, rule in RULES.items() if rule.model in (None, model)}
    assert {field.name for field, _ in run.info().hyperparameters.ListFields()} == own
    for name in RULES.keys() - own:
        with pytest.raises(grpc.RpcError, match=f"hyperparameters.{name}: got .*, must be absent"):
            run.update(**{name: 0.5 if name != "implicit_rollouts" else 1.0})


@pytest.mark.parametrize("stated", [False, True])
def test_fork_goes_on_from_a_posterior_of_the_same_dataset(letters: Service, stated: bool) -> None:
    """It takes the hyperparameters along that the request does not state, and starts its own history."""
    source = letters.run("letters", "policy")
    source.update(target=0.25)
    source.report([1, 2], [4, 0])
    expected = source.posteriors()
    source.report([1], [4])
    point = pb.ForkPoint(run="policy", version=2)
    made = create(letters, fork_from=point, hyperparameters=learn(target=0.75) if stated else None)
    assert made.run.forked_from == pb.ForkPoint(
        dataset="letters", run="policy", version=2, run_uid=source.info().ref.uid, kept_tasks=26
    )
    assert made.run.hyperparameters.target == (0.75 if stated else 0.25)
    assert made.run.model == pb.EVIDENCE_MODEL_INTERPOLATION
    fork = letters.run("letters", "new")
    np.testing.assert_array_equal(fork.posteriors(), expected)
    assert fork.info().version == 0
    assert not create(letters, fork_from=point).created
    assert not create(letters).created
    with serving(letters.redis_url) as other:
        np.testing.assert_array_equal(other.run("letters", "new").posteriors(), expected)


def test_fork_to_another_dataset_takes_the_posterior_along_by_id(letters: Service) -> None:
    """A dataset that gained and lost tasks: kept tasks keep their posterior, new ones start at their prior."""
    letters.run("letters", "policy").report([0, 1, 2], [4, 0, 2])
    alpha, beta = letters.run("letters", "policy").posteriors()
    letters.dataset("more", 27, ids=[f"new-{i}" for i in range(3)] + [chr(ord("b") + i) for i in range(24)])
    request = pb.CreateRunRequest(
        dataset="more", name="policy", fork_from=pb.ForkPoint(dataset="letters", run="policy")
    )
    forked = letters.stub.CreateRun(request, timeout=SECONDS).run.forked_from
    assert (forked.kept_tasks, forked.new_tasks, forked.dropped_tasks) == (24, 3, 2)
    now = letters.run("more", "policy").posteriors()
    np.testing.assert_array_equal(now[0], [1, 1, 1, *alpha[1:25]])
    np.testing.assert_array_equal(now[1], [1, 1, 1, *beta[1:25]])


def test_fork_to_another_dataset_needs_ids(letters: Service) -> None:
    """And the refusal says which dataset has none."""
    letters.dataset("bare", 26)
    request = pb.CreateRunRequest(
        dataset="bare", name="policy", fork_from=pb.ForkPoint(dataset="letters", run="policy")
    )
    with pytest.raises(grpc.RpcError, match=r"fork_from\.dataset: .*'bare' has none"):
        letters.stub.CreateRun(request, timeout=SECONDS)


def test_update_changes_the_fields_present(letters: Service) -> None:
    """The answer has the new values; the change is an event of the history."""
    run = letters.run("letters", "policy")
    updated = run.update(target=0.25, greedy=True)
    assert (updated.hyperparameters.target, updated.hyperparameters.greedy, updated.version) == (0.25, True, 1)
    assert run.info() == updated
    (event,) = run.events().events
    assert event.hyperparameters.hyperparameters == learn(target=0.25, greedy=True)


def test_runs_are_listed_by_name_in_pages(letters: Service) -> None:
    """next_page_token leads on; an empty one ends the list."""
    for number in range(5):
        create(letters, f"run-{number}")
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        request = pb.ListRunsRequest(dataset="letters", page_size=2, page_token=token)
        page = letters.stub.ListRuns(request, timeout=SECONDS)
        listed += [run.ref.name for run in page.runs]
        token, pages = page.next_page_token, pages + 1
    assert listed == ["policy", "run-0", "run-1", "run-2", "run-3", "run-4"]


def test_listing_folds_nothing(letters: Service) -> None:
    """1,000 runs, one of which has events that no server has folded, are listed in 100 ms, with their newest values."""
    record = letters.store.runs.get(letters.store.datasets.get("letters"), "policy")
    for number in range(999):
        record.name, record.uid = f"run-{number:03}", f"{number:032x}"
        letters.store.runs.create(record)
    with serving(letters.redis_url) as other:
        run = other.run("letters", "run-007")
        for _ in range(10):
            run.report([1], [1])
        run.update(target=0.25)
    held = letters.sample("bots_replicas")
    request = pb.ListRunsRequest(dataset="letters", page_size=1000)
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        runs = letters.stub.ListRuns(request, timeout=SECONDS).runs
        seconds.append(time.process_time() - begin)
    assert len(runs) == 1000
    assert (runs[8].ref.name, runs[8].version, runs[8].hyperparameters.target) == ("run-007", 11, 0.25)
    assert letters.sample("bots_replicas") == held
    assert min(seconds) < 0.1  # of server and client, without waits: the machine may be busy
