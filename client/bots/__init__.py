"""Client of BOTS as a service: which tasks should the policy of the day train on?

    import bots

    client = bots.Client("localhost:50051")
    client.create_dataset("guru-math", weak=weak, strong=strong)
    run = client.create_run("guru-math", "qwen-7b", target=0.5)
    batch = run.select(32)
    batch.report(successes, rollouts)
    alpha, beta = run.posteriors()

The whole public surface is here; task_selection.proto is the manual of the API behind it.
"""

from bots.batch import Batch
from bots.channel import TLS
from bots.client import Client
from bots.errors import (
    AbortedError,
    AlreadyExistsError,
    BotsError,
    BrokenError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    RefusedError,
    ResourceExhaustedError,
    TemporaryError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from bots.fallback import Fallback
from bots.history import Checkpoint, Event, HyperparametersEvent, ReportEvent, RestoreEvent
from bots.request_ids import new_request_id
from bots.resources import Dataset, ForkPoint, Hyperparameters, Retention, RunInfo
from bots.resume import Resumed
from bots.run import Run
from bots.summary import Accuracy, Summary, TagSummary

__all__ = [
    "TLS",
    "AbortedError",
    "Accuracy",
    "AlreadyExistsError",
    "Batch",
    "BotsError",
    "BrokenError",
    "Checkpoint",
    "Client",
    "Dataset",
    "DeadlineExceededError",
    "Event",
    "FailedPreconditionError",
    "Fallback",
    "ForkPoint",
    "Hyperparameters",
    "HyperparametersEvent",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "RefusedError",
    "ReportEvent",
    "ResourceExhaustedError",
    "RestoreEvent",
    "Resumed",
    "Retention",
    "Run",
    "RunInfo",
    "Summary",
    "TagSummary",
    "TemporaryError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "new_request_id",
]
