"""The servicer: each call of the proto and the handler that answers it.

A call about a run names it by a RunRef. It is resolved here, once, and the handler gets the run.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceServicer
from bots_server.api import checks
from bots_server.api.admission import LongCalls
from bots_server.api.datasets import DatasetHandlers
from bots_server.api.history import HistoryHandlers
from bots_server.api.reading import ReadingHandlers
from bots_server.api.reports import ReportHandlers
from bots_server.api.runs import RunHandlers
from bots_server.api.selections import SelectionHandlers
from bots_server.errors import DatasetNotFound, RunReplaced
from bots_server.runs.registry import Registry
from bots_server.runs.replica import Replica
from bots_server.store import Store
from bots_server.telemetry.metrics import Metrics

Context = grpc.ServicerContext
Answer = TypeVar("Answer")


class TaskSelectionService(TaskSelectionServiceServicer):
    """Answers `bots.v1.TaskSelectionService` from a store and the runs over it.

    max_long_calls: WatchRun, GetPosteriors and CreateDataset served at once; each takes a thread
    stopping:       set when the server drains, so that streams end
    """

    def __init__(
        self, store: Store, registry: Registry, metrics: Metrics, *, max_long_calls: int, stopping: threading.Event
    ) -> None:
        self._registry = registry
        self._long_calls = LongCalls(max_long_calls)
        self._datasets = DatasetHandlers(store)
        self._runs = RunHandlers(store, registry)
        self._selections = SelectionHandlers(store, metrics)
        self._reports = ReportHandlers(store, registry, metrics)
        self._reading = ReadingHandlers(stopping)
        self._history = HistoryHandlers(store, registry, metrics)

    def _of_run(self, handler: Callable[[Any, Replica], Answer], request: Any) -> Answer:
        """Returns what the handler answers for the run of the request.

        Raises DatasetNotFound, RunNotFound, and RunReplaced if the request has the uid of another run. If the store
        says that the run is gone, nothing was changed, and the run that has the name now is asked once more.
        """
        ref: pb.RunRef = request.run
        names = checks.name("run.dataset", ref.dataset), checks.name("run.name", ref.name)
        uid = checks.uid("run.uid", ref.uid)
        run = self._registry.open(*names, uid)
        try:
            return handler(request, run)
        except (RunReplaced, DatasetNotFound):
            self._registry.gone(run)
        return handler(request, self._registry.open(*names, uid))

    # The names are the proto's.
    # ruff: noqa: N802

    def CreateDataset(
        self, request_iterator: Iterator[pb.CreateDatasetRequest], context: Context
    ) -> pb.CreateDatasetResponse:
        with self._long_calls.admitted():
            return self._datasets.create(request_iterator)

    def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        return self._datasets.get(request)

    def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        return self._datasets.list(request)

    def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        return self._datasets.delete(request)

    def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.CreateRunResponse:
        return self._runs.create(request)

    def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return self._of_run(self._runs.get, request)

    def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return self._runs.list(request)

    def UpdateRun(self, request: pb.UpdateRunRequest, context: Context) -> pb.UpdateRunResponse:
        return self._of_run(self._runs.update, request)

    def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        return self._of_run(self._runs.delete, request)

    def SelectBatch(self, request: pb.SelectBatchRequest, context: Context) -> pb.SelectBatchResponse:
        return self._of_run(self._selections.select, request)

    def ReportOutcomes(self, request: pb.ReportOutcomesRequest, context: Context) -> pb.ReportOutcomesResponse:
        return self._of_run(self._reports.report, request)

    def ReleaseSelection(self, request: pb.ReleaseSelectionRequest, context: Context) -> pb.ReleaseSelectionResponse:
        return self._of_run(self._selections.release, request)

    def RetireTasks(self, request: pb.RetireTasksRequest, context: Context) -> pb.RetireTasksResponse:
        return self._of_run(self._reports.retire, request)

    def GetPosteriors(self, request: pb.GetPosteriorsRequest, context: Context) -> Iterator[pb.GetPosteriorsResponse]:
        with self._long_calls.admitted():
            yield from self._of_run(self._reading.posteriors, request)

    def GetRunSummary(self, request: pb.GetRunSummaryRequest, context: Context) -> pb.GetRunSummaryResponse:
        return self._of_run(self._reading.summary, request)

    def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> Iterator[pb.WatchRunResponse]:
        with self._long_calls.admitted():
            for response in self._of_run(self._reading.watch, request):
                if not context.is_active():
                    return
                if response is not None:
                    yield response

    def CreateCheckpoint(self, request: pb.CreateCheckpointRequest, context: Context) -> pb.CreateCheckpointResponse:
        return self._of_run(self._history.create_checkpoint, request)

    def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        return self._of_run(self._history.list_checkpoints, request)

    def DeleteCheckpoint(self, request: pb.DeleteCheckpointRequest, context: Context) -> pb.DeleteCheckpointResponse:
        return self._of_run(self._history.delete_checkpoint, request)

    def RestoreRun(self, request: pb.RestoreRunRequest, context: Context) -> pb.RestoreRunResponse:
        return self._of_run(self._history.restore, request)

    def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        return self._of_run(self._history.list_events, request)
