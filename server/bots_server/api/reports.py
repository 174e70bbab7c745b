"""ReportOutcomes and RetireTasks: what a job tells of tasks."""

import logging

import numpy as np

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks
from bots_server.api.identity import Change
from bots_server.api.selections import MAX_BATCH
from bots_server.core.arrays import distinct
from bots_server.core.evidence import Evidence, gather
from bots_server.core.outlier import Outlier, outlier
from bots_server.core.posterior import Report, Retired, Unretired
from bots_server.runs.registry import Registry
from bots_server.runs.replica import MANY_OUTCOMES, Replica
from bots_server.store import Store
from bots_server.telemetry.metrics import Metrics

MAX_OUTCOMES = 100_000
MAX_ROLLOUTS = 1_000_000
MAX_REASON_BYTES = 256

log = logging.getLogger(__name__)


class ReportHandlers:
    """Reports, checked whole and appended to the run's events."""

    def __init__(self, store: Store, registry: Registry, metrics: Metrics) -> None:
        self._store, self._registry, self._metrics = store, registry, metrics

    def report_outcomes(self, request: pb.ReportOutcomesRequest, run: Replica) -> pb.ReportOutcomesResponse:
        checks.uid("selection_id", request.selection_id)
        step, selection_step = policy_steps(request)
        tasks = checks.tasks(run.dataset, request.tasks, request.ids, 1, MAX_OUTCOMES)
        outcomes = len(tasks)
        checks.entries("successes", request.successes, outcomes, outcomes)
        checks.entries("rollouts", request.rollouts, outcomes, outcomes)
        if request.effective:
            checks.entries("effective", request.effective, outcomes, outcomes)
        rollouts = checks.whole("rollouts", request.rollouts, 1, MAX_ROLLOUTS)
        successes = checks.successes(request.successes, rollouts)
        effective = np.array(request.effective, np.bool_) if request.effective else None

        shadow = distinct(checks.tasks(run.dataset, request.shadow_tasks, (), 0, MAX_BATCH, ("shadow_tasks", "")))

        evidence = gather(tasks, successes, rollouts, effective)
        columns = evidence.tasks, evidence.successes, evidence.rollouts, evidence.spread()
        content = "report", *columns, request.selection_id, step, selection_step, shadow
        found = outlier_of(run, evidence)
        report = Report(evidence, 0, request.selection_id, step, selection_step, shadow, found)
        appended = Change(self._store, self._registry, run, request, *content).append(report, prefetch=True)
        if outcomes > MANY_OUTCOMES:
            run.catch_up()  # else its caller would send reports faster than they are folded
        if found is not None and not appended.repeated:
            self._warn(run, request.job, appended.version, found)
        self._metrics.leases_ended("released", appended.released)
        return pb.ReportOutcomesResponse(
            version=appended.version, run_uid=run.record.uid, repeated_request=appended.repeated
        )

    def retire_tasks(self, request: pb.RetireTasksRequest, run: Replica) -> pb.RetireTasksResponse:
        checks.text("reason", request.reason, MAX_REASON_BYTES)
        tasks = distinct(checks.tasks(run.dataset, request.tasks, request.ids, 1, MAX_OUTCOMES))

        event = Unretired(tasks) if request.undo else Retired(tasks, request.reason)
        content = "retire", tasks, request.undo, request.reason
        appended = Change(self._store, self._registry, run, request, *content).append(event)
        return pb.RetireTasksResponse(version=appended.version, retired_tasks=len(run.view().posterior.retired))

    def _warn(self, run: Replica, job: str, version: int, found: Outlier) -> None:
        dataset, name = run.record.dataset, run.record.name
        self._metrics.outlier_reported(dataset, name)
        log.warning(
            "run %s/%s: the report of version %d, by job %r, is far outside what the run has seen (deviation %.1f, "
            "rollouts ratio %.1f); it counts until it is undone",
            dataset,
            name,
            version,
            job,
            found.deviation,
            found.rollouts_ratio,
        )


def outlier_of(run: Replica, evidence: Evidence) -> Outlier | None:
    """Returns how far outcomes are outside what the run had seen by the last time this server looked at it."""
    posterior = (run.last_view() or run.view()).posterior
    return outlier(posterior.state, run.dataset.tasks, posterior.model, evidence)


def policy_steps(request: pb.ReportOutcomesRequest) -> tuple[int | None, int | None]:
    """Returns the policy's steps at the report and at the selection."""
    step = checks.at_least_zero("policy_step", request.policy_step) if request.HasField("policy_step") else None
    if not request.HasField("selection_policy_step"):
        return step, None
    selected = checks.at_least_zero("selection_policy_step", request.selection_policy_step)
    if step is not None:
        checks.require(selected <= step, "selection_policy_step", selected, f"must be at most policy_step, {step}")
    return step, selected
