"""Errors travel as a status with bots-reason, and as google.rpc details that any client reads."""

import grpc
import pytest

from bots.v1 import error_details_pb2 as details
from bots_server import errors
from bots_server.api.status import Bug, code_of, trailing_metadata
from tests.api.service import Run, reason_of, status_of


def described(status: details.Status) -> dict[str, bytes]:
    """Returns the details by the last part of their type URL."""
    prefix = "type.googleapis.com/google.rpc."
    assert all(one.type_url.startswith(prefix) for one in status.details)
    return {one.type_url.removeprefix(prefix): one.value for one in status.details}


def test_invalid_field_is_a_field_violation(policy: Run) -> None:
    """The field, the value and the rule are in the message and in BadRequest."""
    with pytest.raises(grpc.RpcError) as refused:
        policy.select(0)
    error = refused.value
    message = "batch_size: got 0, must be between 1 and 10000"
    assert (error.code(), error.details(), reason_of(error)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        message,
        "INVALID_FIELD",
    )
    status = status_of(error)
    assert (status.code, status.message) == (3, message)
    found = described(status)
    assert found.keys() == {"ErrorInfo", "BadRequest"}
    assert details.ErrorInfo.FromString(found["ErrorInfo"]) == details.ErrorInfo(reason="INVALID_FIELD", domain="bots")
    assert details.BadRequest.FromString(found["BadRequest"]) == details.BadRequest(
        field_violations=[details.FieldViolation(field="batch_size", description="got 0, must be between 1 and 10000")]
    )


FAILURES: list[tuple[errors.Failure, grpc.StatusCode, float | None]] = [
    (errors.RequestIdReused("id"), grpc.StatusCode.INVALID_ARGUMENT, None),
    (errors.DatasetNotFound("d"), grpc.StatusCode.NOT_FOUND, None),
    (errors.RunExists("d", "r", "model"), grpc.StatusCode.ALREADY_EXISTS, None),
    (errors.RunReplaced("r", "uid"), grpc.StatusCode.FAILED_PRECONDITION, None),
    (errors.Conflict("repeat"), grpc.StatusCode.ABORTED, 0.0),
    (errors.TooManyCalls(3, "calls of one caller"), grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5),
    (errors.StoreFull("OOM"), grpc.StatusCode.RESOURCE_EXHAUSTED, 10.0),
    (errors.StoreUnavailable("away"), grpc.StatusCode.UNAVAILABLE, 1.0),
    (errors.NotDurable("slow"), grpc.StatusCode.UNAVAILABLE, 1.0),
    (errors.ServerTooOld("run 'r'", 2, 1), grpc.StatusCode.UNAVAILABLE, 1.0),
    (errors.ServerStopping(), grpc.StatusCode.UNAVAILABLE, 0.0),
    (errors.DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED, None),
    (errors.BadToken(), grpc.StatusCode.UNAUTHENTICATED, None),
    (Bug(), grpc.StatusCode.INTERNAL, None),
]


@pytest.mark.parametrize(("failure", "code", "retry_seconds"), FAILURES)
def test_each_branch_has_its_code_and_says_when_to_repeat(
    failure: errors.Failure, code: grpc.StatusCode, retry_seconds: float | None
) -> None:
    """RetryInfo is there if a repeat can succeed."""
    assert code_of(failure) is code
    reason, binary = trailing_metadata(failure)
    assert reason == ("bots-reason", failure.reason)
    assert binary[0] == "grpc-status-details-bin"
    assert isinstance(binary[1], bytes)
    status = details.Status.FromString(binary[1])
    assert (status.code, status.message) == (code.value[0], str(failure))
    found = described(status)
    if retry_seconds is None:
        assert "RetryInfo" not in found
    else:
        delay = details.RetryInfo.FromString(found["RetryInfo"]).retry_delay
        assert delay.ToTimedelta().total_seconds() == retry_seconds


def test_every_failure_has_a_reason_of_the_proto() -> None:
    """The head of the proto lists the reasons of all errors but those that are gRPC's own."""
    with open("proto/bots/v1/task_selection.proto") as file:
        head = file.read().split("syntax =")[0]
    leaves, left = set(), [errors.Failure]
    while left:
        below = left.pop().__subclasses__()
        left += below
        leaves |= {one.reason for one in below if "reason" in vars(one) and one.__module__ == "bots_server.errors"}
    assert {reason for reason in leaves if reason not in head} == {"DEADLINE_EXCEEDED"}


def test_error_is_raised_again_without_its_traceback() -> None:
    """An equal error for each thread that waited, so that tracebacks do not pile up on one object."""
    with pytest.raises(errors.InvalidField) as raised:
        raise errors.InvalidField("job", "x", "must be y")
    error, again = raised.value, raised.value.again()
    assert again is not error
    assert (str(again), again.field, again.__traceback__) == (str(error), "job", None)
