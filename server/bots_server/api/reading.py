"""GetPosteriors, GetRunSummary, WatchRun: reading a run without changing it."""

import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.core.posterior import Posterior, alpha_beta
from bots_server.runs.replica import Replica

MAX_POSTERIORS = 1_000_000
CHUNK = 8_192  # tasks in a message, so that it is made in a millisecond; ids have up to 256 bytes
chunk_lock = threading.Lock()  # one thread makes chunks at a time, so that downloads do not crowd out short calls
NOTICE_SECONDS = 0.5  # in which a watch notices that its caller is gone

Posteriors = Iterator[pb.GetPosteriorsResponse | None]


class ReadingHandlers:
    """What people and dashboards read. `stopping` is set when the server drains, so that streams end."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def get_posteriors(self, request: pb.GetPosteriorsRequest, run: Replica) -> Posteriors:
        asked = checks.tasks(run.dataset, request.tasks, request.ids, 0, MAX_POSTERIORS)
        which = asked if len(asked) else range(len(run.dataset.tasks))
        return posterior_chunks(request, run, run.view().posterior, which)

    def get_run_summary(self, request: pb.GetRunSummaryRequest, run: Replica) -> pb.GetRunSummaryResponse:
        return pb.GetRunSummaryResponse(summary=messages.run_summary(run, run.view()))

    def watch_run(self, request: pb.WatchRunRequest, run: Replica) -> Iterator[pb.WatchRunResponse | None]:
        """Yields the summary if the version changed; None as `LongCalls.responses` takes it."""
        interval = 1.0
        if request.HasField("interval_seconds"):
            interval = checks.within("interval_seconds", request.interval_seconds, 0.1, 3600.0)
        run.view()  # so that a run that is gone is noticed before the stream begins
        return self._changes(run, interval)

    def _changes(self, run: Replica, interval: float) -> Iterator[pb.WatchRunResponse | None]:
        shown = -1
        while not self._stopping.is_set():
            yield None  # which may wait, so before the run is viewed
            view = run.view()
            if view.posterior.version != shown:
                shown = view.posterior.version
                yield pb.WatchRunResponse(summary=messages.run_summary(run, view))
            next_look = time.monotonic() + interval
            while (left := next_look - time.monotonic()) > 0 and not self._stopping.wait(min(left, NOTICE_SECONDS)):
                yield None


def posterior_chunks(
    request: pb.GetPosteriorsRequest, run: Replica, posterior: Posterior, asked: NDArray[np.int64] | range
) -> Posteriors:
    """Yields the posteriors of the asked tasks, with their ids and tags if these are asked for and there.

    It yields None before each message, as `LongCalls.responses` takes it.
    """
    ids = run.dataset.ids if request.with_ids else None
    tags = run.dataset.tasks.tag if request.with_tags else None
    for begin in range(0, len(asked), CHUNK):
        yield None
        with chunk_lock:
            part = asked[begin : begin + CHUNK]
            which = np.arange(part.start, part.stop) if isinstance(part, range) else part
            alpha, beta = alpha_beta(posterior, run.dataset.tasks, which)
            chunk = pb.GetPosteriorsResponse(
                version=posterior.version,
                run_uid=run.record.uid,
                offset=begin,
                size=len(asked),
                alpha=alpha.tolist(),
                beta=beta.tolist(),
                ids=None if ids is None else ids.names(which),
                tag=None if tags is None else tags.take(which).tolist(),
            )
        yield chunk
