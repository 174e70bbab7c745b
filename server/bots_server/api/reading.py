"""GetPosteriors, GetRunSummary, WatchRun: looking at a run without changing it."""

import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.posterior import alpha_beta
from bots_server.core.summary import summarise
from bots_server.errors import TooManyStreams
from bots_server.runs.replica import Replica, View
from bots_server.runs.registry import Replicas
from bots_server.service import rules
from bots_server.service.directory import Directory
from bots_server.service.runs import current
from bots_server.service.task_columns import task_column
from bots_server.storage.v1 import storage_pb2 as storage

CHUNK = 32_768  # tasks; half a megabyte a message, and ids of 64 bytes at most 2 MB more
NOTICE_SECONDS = 0.5  # a watcher that left gives its place up so soon


class ObservationHandlers:
    """What people and dashboards read.

    max_streams: WatchRun streams served at once; each takes a thread
    stopping:    set when the server drains, so that streams end
    """

    def __init__(self, directory: Directory, replicas: Replicas, max_streams: int, stopping: threading.Event) -> None:
        self._directory, self._replicas = directory, replicas
        self._max_streams, self._stopping = max_streams, stopping
        self._streams = threading.BoundedSemaphore(max_streams)

    def posteriors(self, request: pb.GetPosteriorsRequest) -> Iterator[pb.GetPosteriorsResponse]:
        rules.require(
            not (request.tasks and request.ids), "ids", rules.Told("present"), "must be absent where tasks are given"
        )
        rules.count("ids" if request.ids else "tasks", request.ids or request.tasks, 0, rules.MAX_POSTERIORS)
        replica, view = self._directory.with_run(request.dataset, request.run, "", self._viewed)
        dataset = replica.dataset
        asked = (
            task_column(dataset, "tasks", request.tasks, "ids", request.ids) if request.tasks or request.ids else None
        )
        size = len(dataset.tasks) if asked is None else len(asked)
        for begin in range(0, size, CHUNK):
            end = min(begin + CHUNK, size)
            which = np.arange(begin, end) if asked is None else asked[begin:end]
            alpha, beta = alpha_beta(view.posterior, dataset.tasks, which)
            yield pb.GetPosteriorsResponse(
                version=view.posterior.version,
                run_uid=replica.run.uid,
                offset=begin,
                alpha=messages.pack(alpha, "<f8"),
                beta=messages.pack(beta, "<f8"),
                size=size,
                ids=dataset.ids.names(which) if request.with_ids and dataset.ids else None,
            )

    def summary(self, request: pb.GetRunSummaryRequest) -> pb.GetRunSummaryResponse:
        return pb.GetRunSummaryResponse(
            summary=self._directory.with_run(request.dataset, request.run, "", self._summary)
        )

    def watch(self, request: pb.WatchRunRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchRunResponse]:
        interval = 1.0
        if request.HasField("interval_seconds"):
            interval = rules.within("interval_seconds", request.interval_seconds, 0.1, 3600.0)
        if not self._streams.acquire(blocking=False):
            raise TooManyStreams(self._max_streams)
        try:
            shown = None
            while context.is_active() and not self._stopping.is_set():
                summary = self._directory.with_run(request.dataset, request.run, "", self._summary)
                if (summary.run.uid, summary.run.version) != shown:
                    shown = summary.run.uid, summary.run.version
                    yield pb.WatchRunResponse(summary=summary)
                _wait(interval, self._stopping, context)
        finally:
            self._streams.release()

    def _viewed(self, run: storage.RunRecord) -> tuple[Replica, View]:
        replica = self._replicas.get(run)
        return replica, replica.view()

    def _summary(self, run: storage.RunRecord) -> pb.RunSummary:
        replica, view = self._viewed(run)
        posterior = view.posterior
        return messages.summary_message(
            summarise(posterior, replica.dataset.tasks), posterior, current(run, posterior), view.live_leases
        )


def _wait(seconds: float, stopping: threading.Event, context: grpc.ServicerContext) -> None:
    """Waits so long, or until the server stops or the caller is gone."""
    end = time.monotonic() + seconds
    while context.is_active() and (left := end - time.monotonic()) > 0:
        if stopping.wait(min(left, NOTICE_SECONDS)):
            return
