"""Everything that the service says no with. Raised once, where it is known; one interceptor turns it into a status.

The tree goes by what the caller can do:

    Failure
    ├── InvalidRequest       mend the call         InvalidField · RequestIdReused
    ├── NotFound             name something else   DatasetNotFound · RunNotFound · CheckpointNotFound · VersionNotFound
    ├── AlreadyExists        take another name     DatasetExists · RunExists · CheckpointExists
    ├── FailedPrecondition   look again            TooFewEligible · RunReplaced · RequestTooOld · VersionMismatch ·
    │                                              DatasetHasRuns
    ├── Conflict             repeat
    ├── Exhausted            make room             TooManyStreams · StoreFull
    ├── Unavailable          wait, then repeat     StoreUnavailable · NotDurable
    └── BadToken             show a valid token

`code` is the canonical status, `reason` the word for programs that goes out as trailing metadata `bots-reason`; both
are listed at the head of `proto/bots/v1/task_selection.proto`.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class Failure(Exception):
    """An answer that is an error: `str()` is the message, complete as it stands."""

    code: ClassVar[grpc.StatusCode]
    reason: ClassVar[str]


class InvalidRequest(Failure):
    code = grpc.StatusCode.INVALID_ARGUMENT


class InvalidField(InvalidRequest):
    """Bad input is refused whole, with the field, the value and the rule in the message; nothing of it is stored."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, value: object, rule: str) -> None:
        shown = repr(value)
        super().__init__(f"{field} = {shown if len(shown) <= 200 else shown[:200] + '…'}: {rule}")
        self.field, self.value, self.rule = field, value, rule


class RequestIdReused(InvalidRequest):
    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id = {request_id!r}: was used for a request of other content")


class NotFound(Failure):
    code = grpc.StatusCode.NOT_FOUND


class DatasetNotFound(NotFound):
    reason = "DATASET_NOT_FOUND"

    def __init__(self, dataset: str) -> None:
        super().__init__(f"dataset = {dataset!r}: there is no such dataset")


class RunNotFound(NotFound):
    reason = "RUN_NOT_FOUND"

    def __init__(self, dataset: str, run: str) -> None:
        super().__init__(f"run = {run!r}: there is no such run of dataset {dataset!r}")


class CheckpointNotFound(NotFound):
    reason = "CHECKPOINT_NOT_FOUND"

    def __init__(self, run: str, checkpoint: str) -> None:
        super().__init__(f"checkpoint = {checkpoint!r}: there is no such checkpoint of run {run!r}")


class VersionNotFound(NotFound):
    reason = "VERSION_NOT_FOUND"

    def __init__(self, run: str, version: int, oldest: int, newest: int) -> None:
        super().__init__(f"version = {version}: run {run!r} has the versions {oldest} to {newest}")


class AlreadyExists(Failure):
    code = grpc.StatusCode.ALREADY_EXISTS


class DatasetExists(AlreadyExists):
    reason = "DATASET_EXISTS"

    def __init__(self, dataset: str) -> None:
        super().__init__(f"dataset = {dataset!r}: the name is taken by a dataset of other content")


class RunExists(AlreadyExists):
    reason = "RUN_EXISTS"

    def __init__(self, dataset: str, run: str, difference: str) -> None:
        super().__init__(f"run = {run!r}: the name is taken by another run of dataset {dataset!r} ({difference})")


class CheckpointExists(AlreadyExists):
    reason = "CHECKPOINT_EXISTS"

    def __init__(self, run: str, checkpoint: str, version: int) -> None:
        super().__init__(f"checkpoint = {checkpoint!r}: the name is taken by version {version} of run {run!r}")


class FailedPrecondition(Failure):
    code = grpc.StatusCode.FAILED_PRECONDITION


class TooFewEligible(FailedPrecondition):
    reason = "TOO_FEW_ELIGIBLE"

    def __init__(self, batch_size: int, counts: str) -> None:
        super().__init__(f"batch_size = {batch_size}: fewer tasks are eligible ({counts})")


class RunReplaced(FailedPrecondition):
    reason = "RUN_REPLACED"

    def __init__(self, run: str, run_uid: str) -> None:
        super().__init__(f"run_uid = {run_uid!r}: that run {run!r} is deleted; a new run of the name has another uid")


class RequestTooOld(FailedPrecondition):
    reason = "REQUEST_TOO_OLD"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id = {request_id!r}: is older than the oldest that is remembered (request_memory): nobody can "
            "know whether it was applied"
        )


class VersionMismatch(FailedPrecondition):
    reason = "VERSION_MISMATCH"

    def __init__(self, expected_version: int, version: int) -> None:
        super().__init__(f"expected_version = {expected_version}: the run's version is {version}")


class DatasetHasRuns(FailedPrecondition):
    reason = "DATASET_HAS_RUNS"

    def __init__(self, dataset: str, runs: int) -> None:
        super().__init__(f"name = {dataset!r}: the dataset has {runs} runs; delete_runs takes them along")


class Conflict(Failure):
    code = grpc.StatusCode.ABORTED
    reason = "CONFLICT"


class Exhausted(Failure):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class TooManyStreams(Exhausted):
    reason = "TOO_MANY_STREAMS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the server serves {limit} streams at once, and that many are open")


class StoreFull(Exhausted):
    reason = "STORE_FULL"

    def __init__(self, what: str) -> None:
        super().__init__(f"Redis takes no more data: {what}")


class Unavailable(Failure):
    code = grpc.StatusCode.UNAVAILABLE


class StoreUnavailable(Unavailable):
    reason = "STORE_UNAVAILABLE"

    def __init__(self, what: str) -> None:
        super().__init__(f"Redis cannot be reached or does not answer in time: {what}")


class NotDurable(Unavailable):
    reason = "NOT_DURABLE"

    def __init__(self, what: str) -> None:
        super().__init__(f"stored, but not as durably as asked: {what}; a repeat with the same request_id is safe")


class BadToken(Failure):
    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "BAD_TOKEN"

    def __init__(self) -> None:
        super().__init__("authorization: the bearer token is missing or not one of the server's")
