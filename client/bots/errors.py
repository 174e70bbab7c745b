"""The errors that a call raises, by what the caller can do about them.

    BotsError
    ├── RefusedError             fix the call: the same call fails again
    │   ├── InvalidArgumentError      a value breaks a rule; the message has field, value and rule (also a ValueError)
    │   ├── NotFoundError             no such dataset, run, checkpoint or version
    │   ├── AlreadyExistsError        the name is taken by other content
    │   ├── FailedPreconditionError   not in this state: too few eligible tasks, a deleted run, ...
    │   ├── UnauthenticatedError      the token is missing or not valid
    │   ├── PermissionDeniedError     the token is valid, but not for this: its role is too low, or the name not its own
    │   └── QuotaExceededError        the identity has as much as a setting of the server allows
    ├── TemporaryError           wait and repeat: the same call may succeed
    │   ├── UnavailableError          the service or its store is away
    │   ├── DeadlineExceededError     no answer within the deadline
    │   ├── AbortedError              the call lost a race too often
    │   └── ResourceExhaustedError    the store is full, or the server has too many calls of the caller
    └── BrokenError              not retryable: report it to the operator
        ├── UnimplementedError        the server is older than this client
        ├── ForkedError               this process was forked in a way that gRPC does not survive (also a RuntimeError)
        ├── DamagedError              what the service stored is damaged; the message names it and says what to do
        └── InternalError             a fault of the service

A report that failed with a TemporaryError may have been applied. `Batch.report` repeats it safely; with `Run.report`
pass `request_id=error.request_id`. KeyboardInterrupt and other exceptions that are not errors pass unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from bots.v1 import error_details_pb2


class BotsError(Exception):
    """A call to the service failed.

    code              canonical gRPC status code in capitals, such as "NOT_FOUND".
    reason            the service's reason, such as "RUN_NOT_FOUND" (listed at the top of task_selection.proto); empty
                      if the service did not answer.
    request_id        the id of a call that changes something; pass it again to repeat that call safely. Empty: the call
                      has none.
    field_violations  field -> value and rule, for INVALID_FIELD.
    retry_seconds     the service's advice when to repeat; None: none given.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        request_id: str = "",
        field_violations: Mapping[str, str] | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.request_id = request_id
        self.field_violations = dict(field_violations or {})
        self.retry_seconds = retry_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class RefusedError(BotsError):
    """Fix the call: the same call fails again."""


class InvalidArgumentError(RefusedError, ValueError):
    """A value breaks a rule; the message has field, value and rule. Nothing of the call is stored."""


class NotFoundError(RefusedError):
    """There is no such dataset, run, checkpoint or version."""


class AlreadyExistsError(RefusedError):
    """The name is taken by other content."""


class FailedPreconditionError(RefusedError):
    """The call is valid, but not in the present state."""


class UnauthenticatedError(RefusedError):
    """The token is missing or not valid. A client whose token was valid before goes on as if the service were away."""


class PermissionDeniedError(RefusedError):
    """The token is valid, but not for this call: its role is too low, or it may not use the name."""


class QuotaExceededError(RefusedError):
    """The identity has as much as a setting of the server allows; the message has setting, use and limit."""


class TemporaryError(BotsError):
    """Wait and repeat: the same call may succeed."""


class UnavailableError(TemporaryError):
    """The service or its store is away."""


class DeadlineExceededError(TemporaryError):
    """No answer came within the deadline."""


class AbortedError(TemporaryError):
    """The call lost a race too often."""


class ResourceExhaustedError(TemporaryError):
    """The store is full, or the server has as many calls as it serves at once, in all or of this caller."""


class BrokenError(BotsError):
    """Not retryable: report it to the operator."""


class UnimplementedError(BrokenError):
    """The server does not know this call: it is older than this client."""


class ForkedError(BrokenError, RuntimeError):
    """This process was forked in a way that gRPC does not survive; the message says what to do."""


class DamagedError(BrokenError):
    """What the service stored of the run or dataset is damaged. It is never used; the message says what to do."""


class InternalError(BrokenError):
    """The service has a fault."""


CLASS_OF_STATUS: dict[grpc.StatusCode, type[BotsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    # A server that shuts down cancels the calls that it has not answered.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.DATA_LOSS: DamagedError,
}


class FailedCall(Protocol):
    """The part of a gRPC error that is read here; grpc.Call and grpc.aio.AioRpcError have it."""

    def code(self) -> Any: ...
    def details(self) -> Any: ...
    def trailing_metadata(self) -> Any: ...


def invalid(field: str, value: object, rule: str) -> InvalidArgumentError:
    """Returns the error for a value that breaks a rule, in the service's words. `rule` begins with "must"."""
    return InvalidArgumentError(
        f"{field}: got {value}, {rule}",
        code="INVALID_ARGUMENT",
        reason="INVALID_FIELD",
        field_violations={field: f"got {value}, {rule}"},
    )


def unreachable(error: BotsError) -> bool:
    """Returns whether the error says that the service was not reached, or did not answer in time."""
    return isinstance(error, DeadlineExceededError) or (isinstance(error, UnavailableError) and not error.reason)


def from_rpc(error: FailedCall, tried: str, timeout: float, request_id: str = "") -> BotsError:
    """Returns the error to raise for a failed call.

    tried    how the service was sought; part of the message if the service did not answer.
    timeout  deadline of the call in seconds.
    """
    status = error.code()
    metadata = {str(key): value for key, value in error.trailing_metadata() or ()}
    reason, violations, retry_seconds = _details(metadata.get("grpc-status-details-bin", b""))
    reason = reason or str(metadata.get("bots-reason", ""))
    kind = QuotaExceededError if reason == "QUOTA_EXCEEDED" else CLASS_OF_STATUS.get(status, InternalError)
    message = error.details() or status.name
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"no answer within {timeout:.3g} s"
    if not reason:
        message = f"{tried}: {message}"
    return kind(
        message,
        code=status.name,
        reason=reason,
        request_id=request_id,
        field_violations=violations,
        retry_seconds=retry_seconds,
    )


def _details(packed: bytes) -> tuple[str, dict[str, str], float | None]:
    """Returns (reason, field violations, retry delay in seconds) of a google.rpc.Status."""
    reason, violations, retry_seconds = "", dict[str, str](), None
    try:
        details = error_details_pb2.Status.FromString(packed).details
        for detail in details:
            match detail.type_url.rpartition("/")[2]:
                case "google.rpc.ErrorInfo":
                    reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
                case "google.rpc.BadRequest":
                    bad = error_details_pb2.BadRequest.FromString(detail.value)
                    violations |= {one.field: one.description for one in bad.field_violations}
                case "google.rpc.RetryInfo":
                    delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                    retry_seconds = delay.seconds + delay.nanos / 1e9
    except DecodeError:  # from a proxy that sends something else there
        pass
    return reason, violations, retry_seconds
