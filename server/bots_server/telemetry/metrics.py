"""Every metric of the server. Names start with `bots_`, units are base units, counters end in `_total`.

What a server did (sum it over servers): calls, Redis, folding, leases, snapshots, selections. What a run is (every
server that holds it says the same: take `max by (dataset, run)`): read from `bots.v1.RunSummary` at each scrape.

Cardinality. No label ever holds a task, a job or a request. Labels and their number of values:
    method      RPCs of the service, 22 in all; anything else is "other"
    code        gRPC status codes, 17
    command     transitions of the store, some 30
    dataset, run      runs that this server holds now; one that is deleted, or that nobody asked for in
                      `replica_idle_seconds`, is exported no more
    pass_rate         20 bins          hyperparameter    11 names          tag    the 50 largest of the dataset
A run costs at most 68 series and one more a tag (50 tags: 118), a process some 900 besides.
"""

import math
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bots.v1 import task_selection_pb2 as pb
from bots_server.telemetry.collector import RunCollector, RunCounts

METHODS = tuple(pb.DESCRIPTOR.services_by_name["TaskSelectionService"].methods_by_name)
OPEN_ENDED = {"WatchRun"}  # lasts as long as somebody watches: says nothing about latency

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

# What a run is now: help, and the value, from its summary; NaN (not known) is not exported.
GAUGES: dict[str, tuple[str, Callable[[pb.RunSummary], float]]] = {
    "version": ("Events of the run.", lambda s: s.run.version),
    "updates": ("Updates applied.", lambda s: s.updates),
    "capability": (
        "kappa: where the policy stands between the weak (0) and the strong (1) reference model.",
        lambda s: s.capability if s.HasField("capability") else math.nan,
    ),
    "pending_rollouts": ("Rollouts that wait for the update they belong to.", lambda s: s.pending_rollouts),
    "mean_pass_rate": ("Mean of the posterior means over all tasks.", lambda s: s.mean_pass_rate),
    "solved_ratio": ("Share of tasks with posterior mean above 0.9.", lambda s: s.solved),
    "unsolvable_ratio": ("Share of tasks with posterior mean below 0.1.", lambda s: s.unsolvable),
    "in_reach_ratio": ("Share of tasks with posterior mean from 0.1 to 0.9.", lambda s: s.in_reach),
    "mean_evidence_rollouts": ("Mean of alpha + beta over tasks, less the prior's.", lambda s: s.mean_evidence),
    "deviating_tasks": ("Tasks with a deviation of their own from their stratum.", lambda s: s.deviating_tasks),
    "tried_tasks": ("Estimated number of tasks ever reported (standard error 2.3 %).", lambda s: s.tried_tasks),
    "leases": ("Leases that are alive.", lambda s: s.live_leases),
    "last_report_timestamp_seconds": (
        "Time of the newest report; 0: none.",
        lambda s: s.last_report_time.seconds + s.last_report_time.nanos / 1e9,
    ),
    "uniform_effective_task_ratio": (
        "Effective task ratio that uniform selection would get now, expected under the posterior.",
        lambda s: s.uniform_effective_task_ratio,
    ),
    "recent_effective_task_ratio": (
        "Share of reported tasks with observed pass rate strictly between 0 and 1, recently.",
        lambda s: s.recent.effective_task_ratio,
    ),
    "recent_absolute_error": (
        "Mean distance of the posterior mean before the outcome from the observed pass rate, recently.",
        lambda s: s.recent.absolute_error,
    ),
    "recent_brier_score": ("Mean square of that distance, recently.", lambda s: s.recent.brier_score),
    "recent_correlation": ("Correlation of the two, recently.", lambda s: s.recent.correlation),
    "recent_implicit_absolute_error": (
        "As recent_absolute_error, of the implicit pass rate (paper, Figure 5).",
        lambda s: s.recent.implicit_absolute_error,
    ),
    "recent_implicit_brier_score": ("Mean square of that distance, recently.", lambda s: s.recent.implicit_brier_score),
    "recent_implicit_correlation": ("Correlation of the two, recently.", lambda s: s.recent.implicit_correlation),
    "recent_implicit_auc": (
        "Area under the ROC curve of the implicit pass rate as a score for a rollout's success, recently.",
        lambda s: s.recent.implicit_auc,
    ),
    "recent_policy_lag_steps": (
        "Mean policy steps between selection and report, recently, over reports that say.",
        lambda s: s.recent.mean_policy_lag,
    ),
}


def _sum(accuracy: pb.Accuracy, mean: str, weight: str) -> float:
    """Returns the sum behind a mean; 0 where there is nothing yet."""
    of: float = getattr(accuracy, weight)
    return getattr(accuracy, mean) * of if of else 0.0


# What was reported since the run began: help, and the sum. Windows are made of them by increase() and division.
SUMS: dict[str, tuple[str, Callable[[pb.Accuracy], float]]] = {
    "reports": ("Reports.", lambda a: a.reports),
    "outcomes": ("Tasks in the reports.", lambda a: a.outcomes),
    "rollouts": ("Rollouts in the reports.", lambda a: a.rollouts),
    "successes": ("Successes among the rollouts.", lambda a: a.successes),
    "effective_outcomes": (
        "Outcomes with observed pass rate strictly between 0 and 1.",
        lambda a: _sum(a, "effective_task_ratio", "outcomes"),
    ),
    "absolute_error": (
        "Sum over outcomes of |posterior mean before the outcome - observed pass rate|.",
        lambda a: _sum(a, "absolute_error", "outcomes"),
    ),
    "squared_error": ("Sum over outcomes of its square.", lambda a: _sum(a, "brier_score", "outcomes")),
    "implicit_outcomes": ("Outcomes that had an implicit pass rate.", lambda a: a.implicit_outcomes),
    "implicit_absolute_error": (
        "Sum over them of |implicit pass rate - observed pass rate|.",
        lambda a: _sum(a, "implicit_absolute_error", "implicit_outcomes"),
    ),
    "implicit_squared_error": (
        "Sum over them of its square.",
        lambda a: _sum(a, "implicit_brier_score", "implicit_outcomes"),
    ),
}


class Metrics:
    """What one process did, and the runs it holds. Safe to use from many threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Else every counter and histogram is two series, the second one of no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
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
        self._rpc_threads = Gauge("bots_rpc_threads", "Calls that can be served at once.", registry=registry)
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
        self._redis_retries = Counter("bots_redis_retries", "Commands that were sent again.", registry=registry)
        self._fold_lag = Histogram(
            "bots_fold_lag_events",
            "Events that a replica had to fold before the call that asked for it could go on.",
            buckets=LAG_EVENTS,
            registry=registry,
        )
        self._fold_seconds = Histogram(
            "bots_fold_duration_seconds", "Reading and folding those events.", buckets=FOLD_SECONDS, registry=registry
        )
        self._rebuilds = Counter(
            "bots_replica_rebuilds",
            "Replicas dropped because Redis had another history than was folded (a failover, an old file).",
            registry=registry,
        )
        self._replicas = Gauge("bots_replicas", "Runs that this process holds in memory.", registry=registry)
        self._leases = Counter(
            "bots_leases",
            "Leases that began (granted) and that ended (released, expired).",
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
        for method in METHODS:  # so that a rate is 0 and not absent before the first call
            self._rpcs.labels(method, "OK")
        for event in ("granted", "released", "expired"):
            self._leases.labels(event)
        for outcome in ("stored", "refused", "failed"):
            self._snapshots.labels(outcome)

    def export_runs(self, summaries: Callable[[], Iterable[pb.RunSummary]]) -> None:
        """Has each scrape ask for the summaries of the runs that the process holds."""
        self._registry.register(RunCollector(summaries, GAUGES, SUMS, COUNTED, self._run_counts))

    def rpc_threads(self, threads: int) -> None:
        """Says how many calls can be served at once."""
        self._rpc_threads.set(threads)

    def begin_rpc(self) -> None:
        """A call arrived; `observe_rpc` ends it."""
        self._rpcs_in_progress.inc()

    def observe_rpc(self, method: str, code: str, seconds: float) -> None:
        """A call ended. method: without its service's name; code: name of the status."""
        method = method if method in METHODS else "other"
        self._rpcs_in_progress.dec()
        self._rpcs.labels(method, code).inc()
        if method not in OPEN_ENDED:
            self._rpc_seconds.labels(method).observe(seconds)

    def observe_redis(self, command: str, seconds: float, failed: bool) -> None:
        """A transition of the store ended. command: its name, one of a fixed set; never a key."""
        self._redis_seconds.labels(command).observe(seconds)
        self._redis_errors.labels(command).inc(failed)

    def redis_retry(self) -> None:
        """A command is sent to Redis again."""
        self._redis_retries.inc()

    def observe_fold(self, dataset: str, run: str, kinds: Iterable[str], seconds: float) -> None:
        """A replica that was held caught up. kinds: of each event, the `kind` in storage.Event; may be none."""
        kinds = tuple(kinds)
        self._fold_lag.observe(len(kinds))
        self._fold_seconds.observe(seconds)
        if kinds:
            self._run_counts.add(
                (dataset, run),
                restores=kinds.count("restored"),
                hyperparameter_changes=kinds.count("hyperparameters_changed"),
            )

    def rebuilt(self) -> None:
        """A replica was dropped because Redis has another history."""
        self._rebuilds.inc()

    def replicas(self, count: Callable[[], int]) -> None:
        """Has each scrape ask for the number of replicas."""
        self._replicas.set_function(count)

    def observe_selection(self, dataset: str, run: str, tasks: int, leased: int) -> None:
        """A selection of so many tasks, so many of them leased, was answered."""
        if leased:
            self._leases.labels("granted").inc(leased)
        self._run_counts.add((dataset, run), selections=1, selected_tasks=tasks)

    def leases_ended(self, event: str, leases: int) -> None:
        """Leases ended. event: released or expired."""
        if leases:
            self._leases.labels(event).inc(leases)

    def observe_snapshot(self, outcome: str, seconds: float) -> None:
        """A snapshot was made. outcome: stored, refused or failed."""
        self._snapshots.labels(outcome).inc()
        self._snapshot_seconds.observe(seconds)
