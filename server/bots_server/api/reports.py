"""ReportOutcomes: what the rollouts came to."""

import time

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.posterior import gather
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.registry import Replicas
from bots_server.service import rules
from bots_server.service.directory import Directory
from bots_server.service.request_ids import content_digest, uuid7
from bots_server.service.task_columns import task_column
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store


class ReportHandlers:
    """Reports, checked whole and appended to the run's events."""

    def __init__(self, store: Store, directory: Directory, replicas: Replicas, metrics: Metrics) -> None:
        self._store, self._directory, self._replicas, self._metrics = store, directory, replicas, metrics

    def report(self, request: pb.ReportOutcomesRequest) -> pb.ReportOutcomesResponse:
        rollouts, successes = check_report(request)
        request_id = request.request_id or uuid7()
        digest = content_digest(request)

        def act(run: storage.RunRecord) -> pb.ReportOutcomesResponse:
            dataset = self._replicas.get(run).dataset
            tasks = task_column(dataset, "tasks", request.tasks, "ids", request.ids)
            evidence = gather(tasks, successes, rollouts)
            event = storage.Event(
                time_ms=time.time_ns() // 1_000_000,
                job=request.job,
                request_id=request_id,
                report=storage.Report(
                    tasks=evidence.tasks.tolist(),
                    successes=evidence.successes.tolist(),
                    rollouts=evidence.rollouts.astype(np.int64).tolist(),
                ),
            )
            if request.HasField("policy_step"):
                event.report.policy_step = request.policy_step
            if request.HasField("selection_policy_step"):
                event.report.selection_policy_step = request.selection_policy_step
            appended = self._store.history.append(
                run,
                event,
                request_id=request_id,
                digest=digest,
                selection_id=request.selection_id,
                complete=request.complete if request.HasField("complete") else True,
            )
            self._metrics.leases_ended("released", appended.released)
            self._replicas.fold_ahead(run)
            self._replicas.snapshot_if_due(run, appended.version, appended.snapshot_version)
            return pb.ReportOutcomesResponse(version=appended.version, run_uid=run.uid)

        return self._directory.with_run(request.dataset, request.run, request.run_uid, act)


def check_report(request: pb.ReportOutcomesRequest) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the columns (rollouts, successes). Raises InvalidField for what can be said without the dataset."""
    rules.job(request.job)
    rules.request_id(request.request_id)
    rules.uid("selection_id", request.selection_id)
    for name in ("policy_step", "selection_policy_step"):
        if request.HasField(name):
            rules.require(getattr(request, name) >= 0, name, getattr(request, name), "must be >= 0")
    rules.require(
        not (request.tasks and request.ids), "ids", rules.Told("present"), "must be absent where tasks are given"
    )
    outcomes = rules.count("ids" if request.ids else "tasks", request.ids or request.tasks, 1, rules.MAX_OUTCOMES)
    for name in ("successes", "rollouts"):
        rules.count(name, getattr(request, name), outcomes, outcomes)
    rollouts = rules.rollouts(request.rollouts)
    return rollouts, rules.successes(request.successes, rollouts)
