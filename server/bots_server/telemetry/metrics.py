"""Every metric of the server. Names start with `bots_`, units are base units, counters end in `_total`.

What a server did (sum it over servers): calls, Redis, folding, leases, snapshots, selections. What a run is (every
server that holds it exports the same: take `max by (dataset, run)`): read from the run's summary at each scrape.

Cardinality. No label ever holds a task, a job or a request. Labels and their number of values:
    method            RPCs of the service; anything else is "other"
    code              gRPC status codes, 17
    command           transitions of the store, some 30
    dataset, run      runs that this server holds now; one that is deleted, or that was not used in
                      `idle_seconds`, is exported no more
    pass_rate         20 or 10 bins    hyperparameter    of the run's model    tag    the 50 largest of the dataset
"""

import math
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bots_server.core.interpolation import InterpolationSummary
from bots_server.core.item_response import ItemResponseSummary
from bots_server.core.statistics import Accuracy, Figures
from bots_server.telemetry.collector import ObservedRun, RunCollector, RunCounts

OPEN_ENDED = {"WatchRun"}  # lasts as long as its caller likes, so its time is no latency

RPC_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
REDIS_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2)
FOLD_SECONDS = (0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
LAG_EVENTS = (0, 1, 4, 16, 64, 256, 1024, 4096, 16384)

# What this server did for a run: field of the counts, help.
COUNTED = {
    "selections": "Selections that this server answered.",
    "selected_tasks": "Tasks in them.",
    "restores": "Restores that this server folded, and did not read from a snapshot (take the max over servers).",
    "hyperparameter_changes": "Changes of hyperparameters that this server folded, likewise (take the max).",
}


def _capability(run: ObservedRun) -> float:
    """Returns kappa; NaN if it is not known or the run has another model."""
    learned = run.summary.learned
    if isinstance(learned, InterpolationSummary) and learned.capability is not None:
        return learned.capability
    return math.nan


def _item_response(field: str) -> Callable[[ObservedRun], float]:
    """Returns the reader of a figure of item_response; NaN if the run has another model."""
    return lambda run: (
        float(getattr(run.summary.learned, field)) if isinstance(run.summary.learned, ItemResponseSummary) else math.nan
    )


def _recent(kind: str, field: str) -> Callable[[ObservedRun], float]:
    """Returns the reader of a recent figure of one kind of prediction."""
    return lambda run: float(getattr(getattr(run.summary.recent, kind), field))


# What a run is now: help, and the value; NaN (not known) is not exported.
GAUGES: dict[str, tuple[str, Callable[[ObservedRun], float]]] = {
    "version": ("Events of the run.", lambda r: r.posterior.version),
    "capability": (
        "kappa: the policy between the weak (0) and the strong (1) reference. interpolation only.",
        _capability,
    ),
    "ability": ("Mean predicted logit over all tasks. item_response only.", _item_response("ability")),
    "residual_variance": (
        "Variance of a task's own difficulty that the inputs do not explain, in logits. item_response only.",
        _item_response("residual_variance"),
    ),
    "explained_ratio": (
        "Share of the variance of predicted difficulty that the inputs explain. item_response only.",
        _item_response("explained_share"),
    ),
    "inputs_explain_nothing": (
        "1: after enough outcomes the dataset's columns do not tell difficulty. item_response only.",
        _item_response("inputs_explain_nothing"),
    ),
    "pending_rollouts": (
        "Rollouts that wait for the update they belong to.",
        lambda r: r.summary.pending_rollouts,
    ),
    "mean_pass_rate": ("Mean of the posterior means over all tasks.", lambda r: r.summary.mean_pass_rate),
    "solved_ratio": ("Share of tasks with posterior mean above 0.9.", lambda r: r.summary.solved),
    "too_hard_ratio": ("Share of tasks with posterior mean below 0.1.", lambda r: r.summary.too_hard),
    "in_reach_ratio": ("Share of tasks with posterior mean from 0.1 to 0.9.", lambda r: r.summary.in_reach),
    "mean_evidence_rollouts": ("Mean of alpha + beta over tasks, less the prior's.", lambda r: r.summary.mean_evidence),
    "distinct_tasks": ("Distinct tasks evaluated since the run began.", lambda r: r.summary.distinct_tasks),
    "coverage_ratio": ("Their share of the dataset.", lambda r: r.summary.coverage),
    "resting_tasks": ("Tasks that rest after an evaluation.", lambda r: r.summary.resting_tasks),
    "retired_tasks": ("Tasks that are retired.", lambda r: r.summary.retired_tasks),
    "leases": ("Leases that are alive.", lambda r: r.live_leases),
    "last_report_timestamp_seconds": (
        "Time of the newest report; 0: none.",
        lambda r: r.posterior.last_report_time_ms / 1000,
    ),
    "uniform_effective_task_ratio": (
        "Effective task ratio that uniform selection would get now, expected under the posterior.",
        lambda r: r.summary.uniform_effective_task_ratio,
    ),
    "recent_effective_task_ratio": (
        "Share of recent outcomes whose rollouts did not all get the same reward.",
        lambda r: r.summary.recent.effective_task_ratio,
    ),
    "recent_absolute_error": (
        "Mean distance of the posterior mean before the outcome from the observed pass rate, recently.",
        _recent("prediction", "absolute_error"),
    ),
    "recent_implicit_correlation": ("Correlation for it, recently.", _recent("implicit_prediction", "correlation")),
    "recent_implicit_auc": (
        "Area under the ROC curve of that prediction as a score for a rollout's success, recently.",
        _recent("implicit_prediction", "auc"),
    ),
    "recent_policy_lag_steps": (
        "Mean policy steps between selection and report, recently, over reports that state both.",
        lambda r: r.summary.recent.mean_policy_lag,
    ),
}


def _sum(mean: float, weight: float) -> float:
    """Returns the sum behind a mean; 0 if there is nothing yet."""
    return mean * weight if weight else 0.0


def _error(of: Accuracy, field: str) -> float:
    return _sum(getattr(of, field), of.outcomes)


# Sums of the updates since the run began: help, and the sum. increase() and division make windows of them.
SUMS: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "updates": ("Updates.", lambda a: a.updates),
    "outcomes": ("Outcomes: tasks in the updates.", lambda a: a.outcomes),
    "rollouts": ("Rollouts of the outcomes.", lambda a: a.rollouts),
    "successes": ("Successes among the rollouts.", lambda a: a.successes),
    "effective_outcomes": (
        "Outcomes whose rollouts did not all get the same reward.",
        lambda a: _sum(a.effective_task_ratio, a.outcomes),
    ),
    "absolute_error": (
        "Sum over outcomes of |posterior mean before the outcome - observed pass rate|.",
        lambda a: _error(a.prediction, "absolute_error"),
    ),
    "squared_error": ("Sum over outcomes of its square.", lambda a: _error(a.prediction, "brier_score")),
    "implicit_outcomes": (
        "Outcomes with a prediction that does not use the task's own outcomes.",
        lambda a: a.implicit_prediction.outcomes,
    ),
    "implicit_absolute_error": (
        "Sum over them of |that prediction - observed pass rate|.",
        lambda a: _error(a.implicit_prediction, "absolute_error"),
    ),
}


class Metrics:
    """What one process did, and the runs it holds. Safe to use from many threads."""

    def __init__(self, registry: CollectorRegistry, methods: Sequence[str] = ()) -> None:
        """`methods`: the RPCs that are counted by name, from their first scrape on."""
        # Else every counter and histogram is two series, the second one of no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry, self._methods = registry, frozenset(methods)
        self._run_counts = RunCounts(COUNTED)
        self._rpcs = Counter("bots_rpcs", "Calls that ended.", ("method", "code"), registry=registry)
        self._rpc_seconds = Histogram(
            "bots_rpc_duration_seconds",
            "From a call's arrival in its handler to its last message. WatchRun is left out.",
            ("method",),
            buckets=RPC_SECONDS,
            registry=registry,
        )
        self._rpcs_in_progress = Gauge(
            "bots_rpcs_in_progress", "Calls that are being served, streams among them.", registry=registry
        )
        self.begin_rpc = self._rpcs_in_progress.inc  # ended by `observe_rpc`
        self.rpc_threads = Gauge("bots_rpc_threads", "Calls that can be served at once.", registry=registry).set
        self._redis_seconds = Histogram(
            "bots_redis_command_duration_seconds",
            "From sending a transition of the store to its answer, retries among it.",
            ("command",),
            buckets=REDIS_SECONDS,
            registry=registry,
        )
        self._redis_errors = Counter(
            "bots_redis_errors", "Transitions that Redis did not do.", ("command",), registry=registry
        )
        self.redis_retry = Counter("bots_redis_retries", "Commands that were sent again.", registry=registry).inc
        self._fold_lag = Histogram(
            "bots_fold_lag_events",
            "Events that a replica had to fold before the call that asked for it could go on.",
            buckets=LAG_EVENTS,
            registry=registry,
        )
        self._fold_seconds = Histogram(
            "bots_fold_duration_seconds", "Reading and folding those events.", buckets=FOLD_SECONDS, registry=registry
        )
        self.rebuilt = Counter(
            "bots_replica_rebuilds",
            "Replicas dropped because Redis had another history than was folded (a failover, an old file).",
            registry=registry,
        ).inc
        held = Gauge("bots_replicas", "Runs that this process holds in memory.", registry=registry)
        self.replicas = held.set_function  # asked at each scrape
        self._leases = Counter(
            "bots_leases",
            "Leases that began (granted) and ended (released, expired, superseded by a new incarnation of the job).",
            ("event",),
            registry=registry,
        )
        self._snapshots = Counter(
            "bots_snapshots",
            "Snapshots that Redis took (stored) or did not (refused, failed).",
            ("outcome",),
            registry=registry,
        )
        self._snapshot_seconds = Histogram(
            "bots_snapshot_duration_seconds", "Making and storing a snapshot.", buckets=FOLD_SECONDS, registry=registry
        )
        self.log_record_dropped = Counter(
            "bots_log_records_dropped", "Log records dropped, because the log's queue was full.", registry=registry
        ).inc
        for method in methods:  # so that a rate is 0 and not absent before the first call
            self._rpcs.labels(method, "OK")
        for event in ("granted", "released", "expired", "superseded"):
            self._leases.labels(event)
        for outcome in ("stored", "refused", "failed"):
            self._snapshots.labels(outcome)

    def export_runs(self, observe: Callable[[], Iterable[ObservedRun]]) -> None:
        """Has each scrape read the runs that the process holds."""
        self._registry.register(RunCollector(observe, GAUGES, SUMS, COUNTED, self._run_counts))

    def observe_rpc(self, method: str, code: str, seconds: float) -> None:
        """A call ended. method: without its service's name; code: name of the status."""
        method = method if method in self._methods else "other"
        self._rpcs_in_progress.dec()
        self._rpcs.labels(method, code).inc()
        if method not in OPEN_ENDED:
            self._rpc_seconds.labels(method).observe(seconds)

    def observe_redis(self, command: str, seconds: float, failed: bool) -> None:
        """A transition of the store ended. command: its name, one of a fixed set; never a key."""
        self._redis_seconds.labels(command).observe(seconds)
        self._redis_errors.labels(command).inc(failed)

    def observe_fold(self, dataset: str, run: str, kinds: Iterable[str], seconds: float) -> None:
        """A replica that was held caught up. kinds: of each event, the `kind` in storage.Event."""
        kinds = tuple(kinds)
        self._fold_lag.observe(len(kinds))
        self._fold_seconds.observe(seconds)
        if kinds:
            self._run_counts.add(
                (dataset, run),
                restores=kinds.count("restored"),
                hyperparameter_changes=kinds.count("hyperparameters_changed"),
            )

    def observe_selection(self, dataset: str, run: str, tasks: int, leased: int) -> None:
        """A selection was answered. leased: number of its tasks that are leased."""
        if leased:
            self._leases.labels("granted").inc(leased)
        self._run_counts.add((dataset, run), selections=1, selected_tasks=tasks)

    def leases_ended(self, event: str, leases: int) -> None:
        """Leases ended. event: released, expired or superseded."""
        if leases:
            self._leases.labels(event).inc(leases)

    def observe_snapshot(self, outcome: str, seconds: float) -> None:
        """A snapshot was made. outcome: stored, refused or failed."""
        self._snapshots.labels(outcome).inc()
        self._snapshot_seconds.observe(seconds)
