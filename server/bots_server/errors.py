"""The errors that the service answers with. `api/status.py` turns them into gRPC statuses.

The branches say what the caller can do:

    Failure
    ├── InvalidRequest       correct the call           InvalidField · RequestIdReused
    ├── NotFound             name something else        DatasetNotFound · RunNotFound · CheckpointNotFound ·
    │                                                   VersionNotFound
    ├── AlreadyExists        choose another name        DatasetExists · RunExists · CheckpointExists
    ├── FailedPrecondition   read the state again       TooFewEligible · RunReplaced · RequestTooOld · VersionMismatch ·
    │                                                   ReportNotCounted · DatasetHasRuns · KeyOccupied
    ├── Conflict             repeat
    ├── Exhausted            wait, or make room         TooManyCalls · CallTooLong · UploadTooSlow ·
    │                                                   QuotaExceeded · StoreFull
    ├── Unavailable          wait, then repeat          StoreUnavailable · NotDurable · ServerTooOld · ServerStopping
    ├── Damaged              delete or repair it        RunDamaged · DatasetDamaged
    ├── DeadlineExceeded     allow more time
    ├── BadToken             send a valid token
    └── AccessDenied         ask for another role       RoleTooLow · NameNotAllowed
"""

from __future__ import annotations

from typing import ClassVar, Self

SHOWN = 100  # characters of a field or value in a message, so that a status fits into gRPC's 8 KiB of metadata
SHOWN_TAGS = 8  # in a message


def cut(text: str) -> str:
    """Returns text that fits into a message, with its closing quote and bracket."""
    return text if len(text) <= SHOWN else text[: SHOWN - 2] + "…" + text[-2:]


class Failure(Exception):
    """An error to answer with; `str()` is the message.

    reason:        the word of `bots-reason`; the head of `proto/bots/v1/task_selection.proto` lists them
    retry_seconds: when a repeat can succeed at the earliest; None: a repeat fails again
    """

    reason: ClassVar[str]
    retry_seconds: ClassVar[float | None] = None

    def __init_subclass__(cls, reason: str | None = None) -> None:
        if reason is not None:
            cls.reason = reason

    def again(self) -> Self:
        """Returns an equal error without a traceback, to be raised by another thread."""
        other = type(self).__new__(type(self), *self.args)
        other.__dict__.update(self.__dict__)
        return other


class InvalidRequest(Failure):
    pass


class Described(str):
    """A value in words, which a message shows without quotes: for lengths, and for absence."""

    def __repr__(self) -> str:
        return str(self)


class InvalidField(InvalidRequest, reason="INVALID_FIELD"):
    """A field breaks a rule, which starts with "must" (guarantee 7)."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field, self.value, self.rule = cut(field), value, rule
        super().__init__(f"{self.field}: {self.description}")

    @property
    def description(self) -> str:
        """Returns the value and the rule."""
        return f"got {cut(repr(self.value))}, {self.rule}"


class RequestIdReused(InvalidRequest, reason="REQUEST_ID_REUSED"):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id: got {request_id!r}, must not have been used for a request with other content")


class NotFound(Failure):
    pass


class DatasetNotFound(NotFound, reason="DATASET_NOT_FOUND"):
    def __init__(self, dataset: str) -> None:
        super().__init__(f"dataset: got {dataset!r}, must be the name of a dataset")


class RunNotFound(NotFound, reason="RUN_NOT_FOUND"):
    def __init__(self, dataset: str, run: str) -> None:
        super().__init__(f"run: got {run!r}, must be the name of a run of dataset {dataset!r}")


class CheckpointNotFound(NotFound, reason="CHECKPOINT_NOT_FOUND"):
    def __init__(self, run: str, checkpoint: str) -> None:
        super().__init__(f"checkpoint: got {checkpoint!r}, must be the name of a checkpoint of run {run!r}")


class VersionNotFound(NotFound, reason="VERSION_NOT_FOUND"):
    def __init__(self, run: str, version: int, oldest: int, newest: int) -> None:
        super().__init__(f"version: got {version}, must be between {oldest} and {newest}, which run {run!r} has")


class AlreadyExists(Failure):
    pass


class DatasetExists(AlreadyExists, reason="DATASET_EXISTS"):
    def __init__(self, dataset: str, difference: str = "") -> None:
        because = f" ({difference})" if difference else ""
        super().__init__(f"name: got {dataset!r}, must not be taken by a dataset with other content{because}")


class RunExists(AlreadyExists, reason="RUN_EXISTS"):
    def __init__(self, dataset: str, run: str, difference: str) -> None:
        super().__init__(
            f"name: got {run!r}, must not be taken by a run of dataset {dataset!r} that was asked for differently "
            f"({difference})"
        )


class CheckpointExists(AlreadyExists, reason="CHECKPOINT_EXISTS"):
    def __init__(self, run: str, checkpoint: str, version: int) -> None:
        super().__init__(f"name: got {checkpoint!r}, must not be taken by version {version} of run {run!r}")


class FailedPrecondition(Failure):
    pass


class TooFewEligible(FailedPrecondition, reason="TOO_FEW_ELIGIBLE"):
    def __init__(self, batch_size: int, counts: str) -> None:
        super().__init__(f"batch_size: got {batch_size}, must be at most the number of eligible tasks ({counts})")


class RunReplaced(FailedPrecondition, reason="RUN_REPLACED"):
    def __init__(self, run: str, run_uid: str) -> None:
        super().__init__(f"run.uid: got {run_uid!r}, must be the uid of run {run!r}; that one is deleted")


class RequestTooOld(FailedPrecondition, reason="REQUEST_TOO_OLD"):
    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id: got {request_id!r}, must not be older than the ids that are remembered; whether it was "
            "applied is not known"
        )


class VersionMismatch(FailedPrecondition, reason="VERSION_MISMATCH"):
    def __init__(self, expected_version: int, version: int) -> None:
        super().__init__(f"expected_version: got {expected_version}, must be the run's version, {version}")


class ReportNotCounted(FailedPrecondition, reason="REPORT_NOT_COUNTED"):
    def __init__(self, version: int, why: str) -> None:
        super().__init__(f"version: got {version}, must be of a report that counts in the run's state ({why})")


class DatasetHasRuns(FailedPrecondition, reason="DATASET_HAS_RUNS"):
    def __init__(self, dataset: str, runs: int) -> None:
        super().__init__(f"delete_runs: got False, must be true to delete dataset {dataset!r} with its {runs} runs")


class KeyOccupied(FailedPrecondition, reason="KEY_OCCUPIED"):
    def __init__(self, key: str, what: str) -> None:
        super().__init__(
            f"Redis: the key {key} {what}; another application uses this Redis: delete the key, or use another database"
        )


class Conflict(Failure, reason="CONFLICT"):
    retry_seconds = 0.0


class Exhausted(Failure):
    pass


class TooManyCalls(Exhausted, reason="TOO_MANY_CALLS"):
    retry_seconds = 0.5  # to refuse a call takes about as much of the server as to serve a small one

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(f"the server serves at most {limit} {what} at once")


class CallTooLong(Exhausted, reason="CALL_TOO_LONG"):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"max_call_seconds: a long call must take at most {seconds:g} s")


class UploadTooSlow(Exhausted, reason="UPLOAD_TOO_SLOW"):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"max_idle_seconds: got no message for {seconds:g} s, must be sent without such a pause")


class QuotaExceeded(Exhausted, reason="QUOTA_EXCEEDED"):
    """A setting of the server would be exceeded. A request cannot raise it."""

    def __init__(self, setting: str, limit: int, use: int, more: int, what: str) -> None:
        super().__init__(f"{setting}: got {use} {what} in use and {more} more, must be at most {limit}")


class StoreFull(Exhausted, reason="STORE_FULL"):
    retry_seconds = 10.0

    def __init__(self, what: str) -> None:
        super().__init__(f"Redis accepts no more data: {what}")


class Unavailable(Failure):
    retry_seconds = 1.0


class StoreUnavailable(Unavailable, reason="STORE_UNAVAILABLE"):
    def __init__(self, what: str) -> None:
        super().__init__(f"Redis {what}")


class NotDurable(Unavailable, reason="NOT_DURABLE"):
    def __init__(self, what: str) -> None:
        super().__init__(f"stored, but not yet as durably as configured: {what}; repeat with the same request_id")


class ServerTooOld(Unavailable, reason="SERVER_TOO_OLD"):
    def __init__(self, what: str, needed: int, reader: int) -> None:
        super().__init__(f"{what} needs reader version {needed}, and this server has {reader}; upgrade it")


class ServerStopping(Unavailable, reason="SERVER_STOPPING"):
    retry_seconds = 0.0

    def __init__(self) -> None:
        super().__init__("the server is stopping; repeat the call on another one")


class Damaged(Failure):
    """What Redis has under a key is not what was stored there, or is missing; it is not used."""

    advice: ClassVar[str]

    def __init__(self, key: str, what: str) -> None:
        self.key, self.what = key, what
        super().__init__(f"stored data is damaged: {key} {what}; {self.advice}")


class RunDamaged(Damaged, reason="RUN_DAMAGED"):
    advice = "restore the run from a checkpoint, or delete it"


class DatasetDamaged(Damaged, reason="DATASET_DAMAGED"):
    advice = "create the dataset again with the same content, or delete it"


class DeadlineExceeded(Failure, reason="DEADLINE_EXCEEDED"):
    def __init__(self) -> None:
        super().__init__("the caller's time is over")


class BadToken(Failure, reason="BAD_TOKEN"):
    def __init__(self) -> None:
        super().__init__("authorization: must be a valid bearer token, or the client's certificate must be known")


class AccessDenied(Failure):
    pass


class RoleTooLow(AccessDenied, reason="ROLE_TOO_LOW"):
    def __init__(self, identity: str, role: str, needed: str) -> None:
        super().__init__(f"role: got {role!r}, which {identity!r} has, must be {needed!r} or higher")


class NameNotAllowed(AccessDenied, reason="NAME_NOT_ALLOWED"):
    def __init__(self, field: str, name: str, identity: str, patterns: tuple[str, ...]) -> None:
        super().__init__(f"{field}: got {name!r}, must match {cut(','.join(patterns))}, which {identity!r} may use")
