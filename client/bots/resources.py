"""Datasets, runs and the server, as the service describes them: frozen dataclasses. Times are in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from bots.hyperparameters import Hyperparameters, Model
from bots.records import record
from bots.v1 import task_selection_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """An immutable, ordered set of tasks.

    size            number of tasks.
    fingerprint     SHA-256 of the content, 64 hexadecimal digits.
    strata          number of strata: distinct (prior, reference pass rates).
    reference_grid  step to which reference pass rates were rounded; 0: kept as given.
    tags            number of tasks of each tag; empty: the tasks have no tags.
    has_ids         the tasks have ids.
    references      number of tasks with a pass rate, of each reference.
    features        names of the numeric features.
    runs            number of runs; None: not asked for (only `Client.get_dataset` does).
    created         `Client.create_dataset` made it; False: it existed; None: another call, or the service is away and
                    the dataset is stored when it is back (`uid` is then empty).
    damage          in a listing: why it cannot be used; then fields may be missing. Empty: it can.
    """

    name: str
    uid: str = ""
    size: int
    fingerprint: str
    strata: int | None = None
    reference_grid: float = 0.0
    tags: Mapping[str, int]
    has_ids: bool
    references: Mapping[str, int]
    features: tuple[str, ...] = ()
    create_time: datetime | None = None
    runs: int | None = field(default=None, compare=False)
    created: bool | None = field(default=None, compare=False)
    damage: str = ""

    @classmethod
    def of(cls, message: pb.Dataset, *, runs: int | None = None, created: bool | None = None) -> Dataset:
        """Returns what the message says."""
        return record(
            cls,
            message,
            tags={count.tag: count.tasks for count in message.tags},
            references={count.name: count.tasks for count in message.references},
            runs=runs,
            created=created,
        )


@dataclass(frozen=True)
class ForkPoint:
    """The version of a run that another run starts from.

    version  None, in a call: the newest.
    dataset  None, in a call: the dataset of the new run. Another dataset: the posterior is taken along by task id.
    run_uid, kept_tasks, new_tasks, dropped_tasks
             in answers: the run that was forked; the tasks that took their posterior along, that start at their prior,
             and that the new dataset lacks.
    """

    run: str
    version: int | None = None
    dataset: str | None = None
    run_uid: str = ""
    kept_tasks: int = 0
    new_tasks: int = 0
    dropped_tasks: int = 0


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A run at a version.

    model        "interpolation" or "item_response".
    version      number of its events.
    forked_from  None: it started at the prior.
    policy       label of the policy that trains; empty: not given.
    damage       in a listing: why it cannot be used; then fields may be missing. Empty: none was found.
    """

    dataset: str
    name: str
    uid: str
    dataset_uid: str
    model: Model
    hyperparameters: Hyperparameters
    version: int
    forked_from: ForkPoint | None
    policy: str
    create_time: datetime
    damage: str = ""

    @classmethod
    def of(cls, message: pb.Run) -> RunInfo:
        """Returns what the message says."""
        ref = message.ref
        return record(cls, message, dataset=ref.dataset, name=ref.name, uid=ref.uid)


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """The server that answered.

    version     of the package bots-server.
    time        by the server's clock.
    redis_time  by the clock of its Redis, which decides about leases and request ids.
    durability  of an acknowledged report.
    risks       what puts data or calls at risk in its Redis, one line each.
    quotas      what the caller's identity uses, and may use at most, by setting of the server.
    """

    version: str
    time: datetime
    redis_time: datetime
    durability: Literal["memory", "fsync", "replica"]
    risks: tuple[str, ...]
    quotas: Mapping[str, tuple[int, int]]
