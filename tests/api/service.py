"""A real server over a real Redis, and how tests call both: by raw stubs, with the shortest requests that will do."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from bots.v1 import error_details_pb2 as details
from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.process.server import Server, make_server
from bots_server.process.settings import Settings
from bots_server.store import RedisClient, Store, connect
from bots_server.telemetry.metrics import Metrics

SECONDS = 20.0
Floats = NDArray[np.float64]


@dataclass
class Run:
    """Calls about one run."""

    stub: TaskSelectionServiceStub
    ref: pb.RunRef

    def select(self, batch_size: int, **fields: Any) -> pb.SelectBatchResponse:
        request = pb.SelectBatchRequest(run=self.ref, batch_size=batch_size, **fields)
        return self.stub.SelectBatch(request, timeout=SECONDS)

    def report(
        self, tasks: Sequence[int], successes: Sequence[float], rollouts: int | Sequence[int] = 4, **fields: Any
    ) -> pb.ReportOutcomesResponse:
        counts = [rollouts] * len(tasks) if isinstance(rollouts, int) else rollouts
        request = pb.ReportOutcomesRequest(run=self.ref, tasks=tasks, successes=successes, rollouts=counts, **fields)
        return self.stub.ReportOutcomes(request, timeout=SECONDS)

    def answer(self, batch: pb.SelectBatchResponse, successes: float = 1, **fields: Any) -> pb.ReportOutcomesResponse:
        """Reports the same successes of 4 rollouts for each task of a selection."""
        return self.report(batch.tasks, [successes] * len(batch.tasks), selection_id=batch.selection_id, **fields)

    def posteriors(self, **fields: Any) -> tuple[Floats, Floats]:
        chunks = list(self.stub.GetPosteriors(pb.GetPosteriorsRequest(run=self.ref, **fields), timeout=SECONDS))
        return np.concatenate([chunk.alpha for chunk in chunks]), np.concatenate([chunk.beta for chunk in chunks])

    def summary(self) -> pb.RunSummary:
        return self.stub.GetRunSummary(pb.GetRunSummaryRequest(run=self.ref), timeout=SECONDS).summary

    def info(self) -> pb.Run:
        return self.stub.GetRun(pb.GetRunRequest(run=self.ref), timeout=SECONDS).run

    def update(self, **values: Any) -> pb.Run:
        request = pb.UpdateRunRequest(run=self.ref, hyperparameters=pb.Hyperparameters(**values))
        return self.stub.UpdateRun(request, timeout=SECONDS).run

    def delete(self) -> None:
        self.stub.DeleteRun(pb.DeleteRunRequest(run=self.ref), timeout=SECONDS)

    def checkpoint(self, name: str, **fields: Any) -> pb.Checkpoint:
        request = pb.CreateCheckpointRequest(run=self.ref, name=name, **fields)
        return self.stub.CreateCheckpoint(request, timeout=SECONDS).checkpoint

    def restore(self, **fields: Any) -> pb.RestoreRunResponse:
        return self.stub.RestoreRun(pb.RestoreRunRequest(run=self.ref, **fields), timeout=SECONDS)

    def undo(self, version: int, **fields: Any) -> pb.UndoReportResponse:
        return self.stub.UndoReport(pb.UndoReportRequest(run=self.ref, version=version, **fields), timeout=SECONDS)

    def leases(self, **fields: Any) -> pb.ListLeasesResponse:
        return self.stub.ListLeases(pb.ListLeasesRequest(run=self.ref, **fields), timeout=SECONDS)

    def end_leases(self, **fields: Any) -> int:
        return self.stub.EndLeases(pb.EndLeasesRequest(run=self.ref, **fields), timeout=SECONDS).ended

    def events(self, **fields: Any) -> pb.ListEventsResponse:
        return self.stub.ListEvents(pb.ListEventsRequest(run=self.ref, **fields), timeout=SECONDS)


@dataclass
class Service:
    """A serving process's parts: a stub on a real channel, the server, its metrics, and its Redis."""

    address: str
    redis_url: str
    stub: TaskSelectionServiceStub
    server: Server
    store: Store
    redis: RedisClient
    metrics: CollectorRegistry

    def dataset(self, name: str, size: int, **columns: Any) -> pb.CreateDatasetResponse:
        """Creates a dataset of one chunk; the arguments are those of `dataset_parts`."""
        return self.upload(*dataset_parts(name, size, **columns))

    def upload(self, header: pb.DatasetHeader, *chunks: pb.DatasetChunk) -> pb.CreateDatasetResponse:
        parts = [pb.CreateDatasetRequest(header=header), *(pb.CreateDatasetRequest(chunk=chunk) for chunk in chunks)]
        return self.stub.CreateDataset(iter(parts), timeout=SECONDS)

    def create(self, dataset: str, name: str, **fields: Any) -> Run:
        """Creates a run; keyword arguments that are hyperparameters are set."""
        names = pb.Hyperparameters.DESCRIPTOR.fields_by_name
        values = pb.Hyperparameters(**{key: fields.pop(key) for key in list(fields) if key in names})
        request = pb.CreateRunRequest(dataset=dataset, name=name, hyperparameters=values, **fields)
        return Run(self.stub, self.stub.CreateRun(request, timeout=SECONDS).run.ref)

    def run(self, dataset: str, name: str, uid: str = "") -> Run:
        """Returns calls about a run by its name."""
        return Run(self.stub, pb.RunRef(dataset=dataset, name=name, uid=uid))

    def sample(self, name: str, **labels: str) -> float | None:
        """Returns the value of a metric."""
        return self.metrics.get_sample_value(name, labels)

    def state(self) -> dict[bytes, object]:
        """Returns all that is in Redis, but for the index of names, which may know too many."""
        (redis,) = self.redis.primaries()
        keys = [key for key in redis.scan_iter(count=1000) if key != b"bots:datasets"]
        return {key: redis.dump(key) for key in keys}

    @staticmethod
    def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Returns when the condition holds; fails after so many seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{condition} did not come true in {seconds} s"
            time.sleep(0.01)


def dataset_parts(
    name: str,
    size: int,
    *,
    ids: Sequence[str] = (),
    tags: Sequence[str] = (),
    references: Mapping[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
    prior: tuple[Any, Any] | None = None,
    **header: Any,
) -> tuple[pb.DatasetHeader, pb.DatasetChunk]:
    """Returns header and chunk of a dataset: `ids` and `tags` of each task, `references` and `features` by name."""
    names = sorted(set(tags))
    references, features = references or {}, features or {}
    chunk = pb.DatasetChunk(
        size=size,
        ids=ids,
        tag=[names.index(tag) for tag in tags],
        references=np.ravel(np.transpose([np.broadcast_to(v, size) for v in references.values()])).tolist(),
        features=np.ravel(np.transpose([np.broadcast_to(v, size) for v in features.values()])).tolist(),
    )
    if prior is not None:
        chunk.prior_alpha[:] = np.broadcast_to(np.float64(prior[0]), size).tolist()
        chunk.prior_beta[:] = np.broadcast_to(np.float64(prior[1]), size).tolist()
    head = pb.DatasetHeader(
        name=name,
        size=size,
        tags=names,
        has_ids=bool(ids),
        has_prior=prior is not None,
        references=references,
        features=features,
    )
    head.MergeFrom(pb.DatasetHeader(**header))
    return head, chunk


@contextmanager
def serving(url: str, **settings: Any) -> Iterator[Service]:
    """Yields a server over the Redis at `url`, and ends it."""
    redis = connect(url, timeout_seconds=settings.get("redis_timeout_seconds", 5.0))
    chosen, registry = Settings(**({"port": 0} | settings)), CollectorRegistry()
    store = Store(redis, history_bytes=chosen.history_bytes, quotas=chosen.quotas)
    server = make_server(store, chosen, Metrics(registry, ("SelectBatch",)))
    server.start()
    address = f"127.0.0.1:{server.port}"
    try:
        with grpc.insecure_channel(address) as channel:
            yield Service(address, url, TaskSelectionServiceStub(channel), server, store, redis, registry)
    finally:
        server.stop(0)
        store.close()


def new_id() -> str:
    """Returns a request id."""
    return str(uuid4())


def reason_of(error: grpc.RpcError) -> object:
    """Returns the value of bots-reason that came with an error."""
    return trailing(error).get("bots-reason")


def status_of(error: grpc.RpcError) -> details.Status:
    """Returns the status in grpc-status-details-bin."""
    value = trailing(error)["grpc-status-details-bin"]
    assert isinstance(value, bytes)
    return details.Status.FromString(value)


def trailing(error: grpc.RpcError) -> dict[str, str | bytes]:
    """Returns the trailing metadata of an error."""
    assert isinstance(error, grpc.Call)
    return {entry[0]: entry[1] for entry in error.trailing_metadata() or ()}
