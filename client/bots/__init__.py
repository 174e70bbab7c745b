"""Client of BOTS as a service: chooses which tasks to train on next in RL finetuning of language models.

    import bots

    client = bots.Client("localhost:50051", job="qwen-7b")
    client.create_dataset("guru-math", ids=ids, weak=weak, strong=strong)
    run = client.create_run("guru-math", "qwen-7b", target=0.5)
    batch = run.select(32)
    batch.report_rewards(rewards)
    alpha, beta = run.posteriors()

The public surface is here, and for asyncio in `bots.aio`; task_selection.proto is the manual of the API behind it.
"""

from bots.client import Client
from bots.collector import Collector
from bots.errors import (
    AbortedError,
    AlreadyExistsError,
    BotsError,
    BrokenError,
    DamagedError,
    DeadlineExceededError,
    FailedPreconditionError,
    ForkedError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RefusedError,
    ResourceExhaustedError,
    TemporaryError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from bots.handle import Stats
from bots.history import (
    Checkpoint,
    Event,
    HyperparametersEvent,
    Lease,
    Outlier,
    ReportEvent,
    RestoreEvent,
    RetireEvent,
    UndoEvent,
)
from bots.hyperparameters import Hyperparameters, HyperparameterValues
from bots.reporting_rewards import RewardsReported
from bots.request_ids import new_request_id
from bots.resources import Dataset, ForkPoint, RunInfo, ServerInfo
from bots.resume import Resumed
from bots.run import Batch, Run
from bots.summary import (
    Accuracy,
    CalibrationBin,
    Evidence,
    InputWeight,
    InterpolationSummary,
    ItemResponseSummary,
    Shadow,
    ShadowBin,
    Summary,
    TagSummary,
)
from bots.target import TLS

__all__ = [
    "TLS",
    "AbortedError",
    "Accuracy",
    "AlreadyExistsError",
    "Batch",
    "BotsError",
    "BrokenError",
    "CalibrationBin",
    "Checkpoint",
    "Client",
    "Collector",
    "DamagedError",
    "Dataset",
    "DeadlineExceededError",
    "Event",
    "Evidence",
    "FailedPreconditionError",
    "ForkPoint",
    "ForkedError",
    "HyperparameterValues",
    "Hyperparameters",
    "HyperparametersEvent",
    "InputWeight",
    "InternalError",
    "InterpolationSummary",
    "InvalidArgumentError",
    "ItemResponseSummary",
    "Lease",
    "NotFoundError",
    "Outlier",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RefusedError",
    "ReportEvent",
    "ResourceExhaustedError",
    "RestoreEvent",
    "Resumed",
    "RetireEvent",
    "RewardsReported",
    "Run",
    "RunInfo",
    "ServerInfo",
    "Shadow",
    "ShadowBin",
    "Stats",
    "Summary",
    "TagSummary",
    "TemporaryError",
    "UnauthenticatedError",
    "UnavailableError",
    "UndoEvent",
    "UnimplementedError",
    "new_request_id",
]
