"""The servicer: each call of the proto and the handler that answers it.

A call is answered by the handlers' method of its name in snake case. If its request has a field `run`, a RunRef, that
is resolved here, once, and the handler gets the run.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks
from bots_server.api.admission import LongCalls
from bots_server.api.callers import caller
from bots_server.api.datasets import DatasetHandlers
from bots_server.api.history import HistoryHandlers
from bots_server.api.methods import SERVICE
from bots_server.api.reading import ReadingHandlers
from bots_server.api.reports import ReportHandlers
from bots_server.api.runs import RunHandlers
from bots_server.api.selections import SelectionHandlers
from bots_server.api.server import ServerHandlers
from bots_server.errors import DatasetNotFound, RunDamaged, RunReplaced
from bots_server.runs.registry import Registry
from bots_server.store import Store
from bots_server.telemetry.metrics import Metrics

Handler = Callable[[Any], Any]  # of a request, or of an iterator of requests; returns the response, or an iterator

log = logging.getLogger(__name__)


class TaskSelectionService:
    """Answers `bots.v1.TaskSelectionService` from a store and the runs over it, by one attribute for each call.

    long_calls:        admits streams (WatchRun, GetPosteriors, CreateDataset); each takes a thread
    max_lease_seconds: longest lease that a selection may ask for
    stopping:          set when the server drains, so that streams end
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        metrics: Metrics,
        *,
        long_calls: LongCalls,
        max_lease_seconds: float,
        stopping: threading.Event,
    ) -> None:
        self._registry = registry
        self._long_calls = long_calls
        subjects = (
            DatasetHandlers(store, registry.memory),
            runs := RunHandlers(store, registry),
            SelectionHandlers(store, metrics, max_lease_seconds=max_lease_seconds),
            ReportHandlers(store, registry, metrics),
            ReadingHandlers(stopping),
            HistoryHandlers(store, registry, metrics),
            ServerHandlers(store),
        )
        for method in SERVICE.methods:
            name = re.sub("(?<!^)(?=[A-Z])", "_", method.name).lower()
            (handler,) = (getattr(subject, name) for subject in subjects if hasattr(subject, name))
            if "run" in method.input_type.fields_by_name:
                handler = self._of_run(handler, runs.delete_damaged_run if method.name == "DeleteRun" else None)
            if method.server_streaming:
                answer = self._stream(handler)
            elif method.client_streaming:
                answer = self._upload(handler)
            else:
                answer = _unary(handler)
            setattr(self, method.name, answer)

    def _of_run(
        self, handler: Callable[[Any, Any], Any], of_damaged: Callable[[str, str], Any] | None = None
    ) -> Handler:
        """Returns a handler of requests whose RunRef is resolved.

        of_damaged: answers for the dataset and name of a run whose record is damaged; None: the call fails

        It raises DatasetNotFound, RunNotFound, and RunReplaced if the request has the uid of another run. If the store
        says that the run is gone, nothing was changed, and the run that has the name now is asked once more.
        """

        def resolved(request: Any) -> Any:
            ref: pb.RunRef = request.run
            names = checks.dataset("run.dataset", ref.dataset), checks.name("run.name", ref.name)
            uid = checks.uid("run.uid", ref.uid)
            try:
                run = self._registry.open(*names, uid)
            except RunDamaged:
                if of_damaged is None:
                    raise
                return of_damaged(*names)
            try:
                return handler(request, run)
            except (RunReplaced, DatasetNotFound):
                log.info("run %s/%s, uid %s, is gone: deleted elsewhere, or Redis was emptied", *names, run.record.uid)
                self._registry.gone(run)
            return handler(request, self._registry.open(*names, uid))

        return resolved

    def _stream(self, handler: Handler) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        """Returns a handler whose responses end when the caller is gone. It yields None to have that looked at."""

        def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._long_calls.admitted(caller().identity, context) as call:
                yield from self._long_calls.responses(call, handler(request))

        return answer

    def _upload(self, handler: Handler) -> Callable[[Any, grpc.ServicerContext], Any]:
        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._long_calls.admitted(caller().identity, context) as call:
                return handler(self._long_calls.requests(call, requests))

        return answer


def _unary(handler: Handler) -> Callable[[Any, grpc.ServicerContext], Any]:
    return lambda request, context: handler(request)
