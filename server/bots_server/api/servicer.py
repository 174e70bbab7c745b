"""The servicer: each call of the proto beside the handler that answers it."""

import threading
from collections.abc import Iterator

import grpc

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceServicer
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.registry import Replicas
from bots_server.service.datasets import DatasetHandlers
from bots_server.service.directory import Directory
from bots_server.service.history import HistoryHandlers
from bots_server.service.observation import ObservationHandlers
from bots_server.service.report import ReportHandlers
from bots_server.service.runs import RunHandlers
from bots_server.service.select import SelectHandlers
from bots_server.store import Store

Context = grpc.ServicerContext


class TaskSelectionService(TaskSelectionServiceServicer):
    """Answers `bots.v1.TaskSelectionService` from a store and the replicas over it."""

    def __init__(
        self, store: Store, replicas: Replicas, metrics: Metrics, *, max_streams: int, stopping: threading.Event
    ) -> None:
        directory = Directory(store, replicas)
        self._datasets = DatasetHandlers(store)
        self._runs = RunHandlers(store, directory, replicas)
        self._select = SelectHandlers(store, directory, replicas, metrics)
        self._report = ReportHandlers(store, directory, replicas, metrics)
        self._observation = ObservationHandlers(directory, replicas, max_streams, stopping)
        self._history = HistoryHandlers(store, directory, replicas)

    # The names are the proto's.

    def CreateDataset(  # noqa: N802
        self, request_iterator: Iterator[pb.CreateDatasetRequest], context: Context
    ) -> pb.CreateDatasetResponse:
        return self._datasets.create(request_iterator)

    def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:  # noqa: N802
        return self._datasets.get(request)

    def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:  # noqa: N802
        return self._datasets.list(request)

    def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:  # noqa: N802
        return self._datasets.delete(request)

    def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.CreateRunResponse:  # noqa: N802
        return self._runs.create(request)

    def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:  # noqa: N802
        return self._runs.get(request)

    def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:  # noqa: N802
        return self._runs.list(request)

    def UpdateRun(self, request: pb.UpdateRunRequest, context: Context) -> pb.UpdateRunResponse:  # noqa: N802
        return self._runs.update(request)

    def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:  # noqa: N802
        return self._runs.delete(request)

    def SelectBatch(self, request: pb.SelectBatchRequest, context: Context) -> pb.SelectBatchResponse:  # noqa: N802
        return self._select.select(request)

    def ReportOutcomes(  # noqa: N802
        self, request: pb.ReportOutcomesRequest, context: Context
    ) -> pb.ReportOutcomesResponse:
        return self._report.report(request)

    def ReleaseSelection(  # noqa: N802
        self, request: pb.ReleaseSelectionRequest, context: Context
    ) -> pb.ReleaseSelectionResponse:
        return self._select.release(request)

    def GetPosteriors(  # noqa: N802
        self, request: pb.GetPosteriorsRequest, context: Context
    ) -> Iterator[pb.GetPosteriorsResponse]:
        return self._observation.posteriors(request)

    def GetRunSummary(self, request: pb.GetRunSummaryRequest, context: Context) -> pb.GetRunSummaryResponse:  # noqa: N802
        return self._observation.summary(request)

    def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> Iterator[pb.WatchRunResponse]:  # noqa: N802
        return self._observation.watch(request, context)

    def CreateCheckpoint(  # noqa: N802
        self, request: pb.CreateCheckpointRequest, context: Context
    ) -> pb.CreateCheckpointResponse:
        return self._history.create_checkpoint(request)

    def ListCheckpoints(  # noqa: N802
        self, request: pb.ListCheckpointsRequest, context: Context
    ) -> pb.ListCheckpointsResponse:
        return self._history.list_checkpoints(request)

    def DeleteCheckpoint(  # noqa: N802
        self, request: pb.DeleteCheckpointRequest, context: Context
    ) -> pb.DeleteCheckpointResponse:
        return self._history.delete_checkpoint(request)

    def RestoreRun(self, request: pb.RestoreRunRequest, context: Context) -> pb.RestoreRunResponse:  # noqa: N802
        return self._history.restore(request)

    def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:  # noqa: N802
        return self._history.list_events(request)
