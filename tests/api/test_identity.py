"""One identity: every call about a run names it by a RunRef, and the uid of another run is refused by all of them."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Service, reason_of, serving

METHODS = pb.DESCRIPTOR.services_by_name["TaskSelectionService"].methods
OF_RUNS = [method.name for method in METHODS if "run" in method.input_type.fields_by_name]

# What makes a request valid, besides the run.
VALID: dict[str, dict[str, Any]] = {
    "SelectBatch": {"batch_size": 2},
    "ReportOutcomes": {"tasks": [0], "successes": [1], "rollouts": [4]},
    "ReleaseSelection": {"selection_id": "0" * 32},
    "RetireTasks": {"tasks": [0]},
    "UpdateRun": {"hyperparameters": pb.Hyperparameters(target=0.9)},
    "CreateCheckpoint": {"name": "late"},
    "DeleteCheckpoint": {"name": "keep"},
    "RestoreRun": {"version": 0},
    "UndoReport": {"version": 1},
}


def call(service: Service, method: str, ref: pb.RunRef) -> Message | list[Message]:
    """Calls a method about a run with a request that is valid but for the run."""
    descriptor = next(one for one in METHODS if one.name == method)
    request = getattr(pb, descriptor.input_type.name)(run=ref, **VALID.get(method, {}))
    answer = getattr(service.stub, method)(request, timeout=SECONDS)
    return list(answer) if isinstance(answer, Iterator) else answer


def test_calls_about_a_run_carry_its_identity() -> None:
    """The 18 calls about a run have a RunRef in field 1; no other request has the name of a run."""
    assert len(OF_RUNS) == 18
    for method in METHODS:
        if method.name in OF_RUNS:
            field = method.input_type.fields_by_name["run"]
            assert (field.number, field.message_type) == (1, pb.RunRef.DESCRIPTOR)


@pytest.mark.parametrize("method", OF_RUNS)
def test_outdated_uid_is_refused_and_changes_nothing(letters: Service, method: str) -> None:
    """A call with the uid of a deleted run is RUN_REPLACED, changes nothing and does not drop the new run's replica."""
    old = letters.run("letters", "policy").info().ref
    letters.run("letters", "policy").delete()
    new = letters.create("letters", "policy", target=0.3)
    new.report([1], [2])
    new.checkpoint("keep")
    before, held = letters.state(), letters.sample("bots_replicas")
    with pytest.raises(grpc.RpcError) as refused:
        call(letters, method, old)
    assert reason_of(refused.value) == "RUN_REPLACED"
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert letters.state() == before
    assert letters.sample("bots_replicas") == held == 1


@pytest.mark.parametrize("method", OF_RUNS)
def test_run_deleted_through_another_server_is_noticed(letters: Service, method: str) -> None:
    """A server that holds a deleted run answers its uid with RUN_REPLACED, and its name with NOT_FOUND."""
    run = letters.run("letters", "policy")
    ref = run.info().ref
    run.select(1)
    with serving(letters.redis_url) as other:
        other.run("letters", "policy").delete()
    for asked, reason in ((ref, "RUN_REPLACED"), (run.ref, "RUN_NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as refused:
            call(letters, method, asked)
        assert reason_of(refused.value) == reason


def test_name_of_a_new_run_is_found_by_a_server_that_holds_the_old_one(letters: Service) -> None:
    """A call by name alone is answered by the run that has the name now, also if dataset and run were made anew."""
    run = letters.run("letters", "policy")
    run.report([0], [1])
    with serving(letters.redis_url) as other:
        other.stub.DeleteDataset(pb.DeleteDatasetRequest(name="letters", delete_runs=True), timeout=SECONDS)
        other.dataset("letters", 5)
        uid = other.create("letters", "policy").ref.uid
    assert len(run.select(5).tasks) == 5
    assert run.info().ref.uid == uid


def test_unknown_names_are_not_found(letters: Service) -> None:
    """A dataset or run that does not exist is NOT_FOUND, or RUN_REPLACED if the caller has a uid."""
    for run, reason in (
        (letters.run("letters", "other"), "RUN_NOT_FOUND"),
        (letters.run("others", "policy"), "DATASET_NOT_FOUND"),
        (letters.run("others", "policy", "0" * 32), "RUN_REPLACED"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            run.select(1)
        assert reason_of(refused.value) == reason
