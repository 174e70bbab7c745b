"""Errors as gRPC statuses: code, message, `bots-reason`, and the details of google.rpc in `grpc-status-details-bin`."""

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from bots.v1 import error_details_pb2 as details
from bots_server import errors

BRANCHES = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Damaged: grpc.StatusCode.DATA_LOSS,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.BadToken: grpc.StatusCode.UNAUTHENTICATED,
    errors.AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
}


class Bug(errors.Failure, reason="BUG"):
    """Answers an exception that is no Failure. The log has its traceback."""

    def __init__(self) -> None:
        super().__init__("this is a bug in the server; its log has the traceback")


def code_of(failure: errors.Failure) -> grpc.StatusCode:
    """Returns the canonical code of an error."""
    return next((code for branch, code in BRANCHES.items() if isinstance(failure, branch)), grpc.StatusCode.INTERNAL)


def trailing_metadata(failure: errors.Failure) -> tuple[tuple[str, str | bytes], ...]:
    """Returns the trailing metadata of an error."""
    status = details.Status(code=code_of(failure).value[0], message=str(failure))
    status.details.append(packed(details.ErrorInfo(reason=failure.reason, domain="bots")))
    if isinstance(failure, errors.InvalidField):
        violation = details.FieldViolation(field=failure.field, description=failure.description)
        status.details.append(packed(details.BadRequest(field_violations=[violation])))
    if failure.retry_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(failure.retry_seconds * 1e9))
        status.details.append(packed(details.RetryInfo(retry_delay=delay)))
    return ("bots-reason", failure.reason), ("grpc-status-details-bin", status.SerializeToString())


def packed(detail: Message) -> Any:
    """Returns a detail under the type URL of the google.rpc message that it repeats."""
    return Any(type_url=f"type.googleapis.com/google.rpc.{detail.DESCRIPTOR.name}", value=detail.SerializeToString())
