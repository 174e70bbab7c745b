"""What can go wrong, by what the caller can do about it.

    BotsError
    ├── RefusedError             fix the call: the same call fails again
    │   ├── InvalidArgumentError      a value breaks a rule; the message names field, value and rule (also a ValueError)
    │   ├── NotFoundError             no such dataset, run, checkpoint or version
    │   ├── AlreadyExistsError        the name is taken by other content
    │   ├── FailedPreconditionError   right in itself, but not in this state: too few eligible tasks, a deleted run, ...
    │   └── UnauthenticatedError      the token is missing or wrong
    ├── TemporaryError           wait, then repeat: the same call may succeed
    │   ├── UnavailableError          the service or its store is away
    │   ├── DeadlineExceededError     no answer within the deadline
    │   ├── AbortedError              lost a race too often
    │   └── ResourceExhaustedError    the store is full, or too many watch
    └── BrokenError              give up, and tell who runs the service
        ├── UnimplementedError        the server is older than this client
        └── InternalError        a fault of the service

A report that failed with a TemporaryError may have been applied: repeat it with the same `request_id`.
KeyboardInterrupt and the like pass through as they are.
"""

from __future__ import annotations

import grpc


class BotsError(Exception):
    """A call to the service failed.

    code    canonical gRPC status code in capitals, such as "NOT_FOUND".
    reason  the service's word for programs, such as "RUN_NOT_FOUND"; empty where the error comes from elsewhere. The
            list is at the top of task_selection.proto.
    """

    code: str
    reason: str

    def __init__(self, message: str, *, code: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class RefusedError(BotsError):
    """Fix the call: the same call fails again."""


class InvalidArgumentError(RefusedError, ValueError):
    """A value breaks a rule; the message names field, value and rule. Nothing of the call is stored."""


class NotFoundError(RefusedError):
    """There is no such dataset, run, checkpoint or version."""


class AlreadyExistsError(RefusedError):
    """The name is taken by other content."""


class FailedPreconditionError(RefusedError):
    """The call is right in itself, but not in the present state."""


class UnauthenticatedError(RefusedError):
    """The token is missing or wrong."""


class TemporaryError(BotsError):
    """Wait, then repeat: the same call may succeed."""


class UnavailableError(TemporaryError):
    """The service or its store is away."""


class DeadlineExceededError(TemporaryError):
    """No answer came within the deadline."""


class AbortedError(TemporaryError):
    """The call lost a race too often."""


class ResourceExhaustedError(TemporaryError):
    """The store is full, or the server has as many watchers as it serves at once."""


class BrokenError(BotsError):
    """Give up, and tell who runs the service."""


class UnimplementedError(BrokenError):
    """The server does not know this call: it is older than this client."""


class InternalError(BrokenError):
    """The service has a fault."""


CLASS_OF_STATUS: dict[grpc.StatusCode, type[BotsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: UnauthenticatedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    # A server that goes down cancels what it has not answered.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.DATA_LOSS: InternalError,
}


def from_rpc(error: grpc.RpcError, target: str, timeout: float) -> BotsError:
    """Returns the error to raise for a failed call to `target` with a deadline of `timeout` seconds."""
    assert isinstance(error, grpc.Call), "gRPC raises errors that are calls"
    status = error.code()
    kind = CLASS_OF_STATUS.get(status, InternalError)
    metadata = {str(key): value for key, value in error.trailing_metadata() or ()}
    reason = metadata.get("bots-reason", "")
    message = error.details() or status.name
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"no answer within {timeout:.3g} s ({message})"
    if not reason:
        # It is not the service that speaks but the way to it: say where it leads.
        message = f"{target}: {message}"
    return kind(message, code=status.name, reason=reason if isinstance(reason, str) else reason.decode())
