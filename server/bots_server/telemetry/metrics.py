"""Every metric of the server; those of its runs are tables in `figures.py`.

What a server did (sum it over servers): calls, Redis, folding, leases, snapshots, selections. What a run is (every
server that holds it exports the same: take `max by (dataset, run)`): read from the run's summary at each scrape.

Cardinality. No label ever holds a task, a job or a request. Labels and their number of values:
    method            RPCs of the service; anything else is "other"
    code              gRPC status codes, 17
    command           transitions of the store, some 30
    dataset, run      runs that this server holds now; one that is deleted, or that was not used in
                      `idle_seconds`, is exported no more
    identity          of the owners of datasets and runs, as many as the tokens file has
    pass_rate         20 or 10 bins    hyperparameter    of the run's model    tag    the 50 largest of the dataset
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from bots_server.telemetry.collector import RunCollector, RunCounts, Usage, UsageCollector
from bots_server.telemetry.figures import ObservedRun

OPEN_ENDED = {"WatchRun"}  # lasts as long as its caller likes, so its time is no latency

RPC_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
REDIS_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2)
FOLD_SECONDS = (0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
LAG_EVENTS = (0, 1, 4, 16, 64, 256, 1024, 4096, 16384)


class Metrics:
    """What one process did, and the runs it holds. Safe to use from many threads."""

    def __init__(self, registry: CollectorRegistry, methods: Sequence[str] = ()) -> None:
        """`methods`: the RPCs that are counted by name, from their first scrape on."""
        # Else every counter and histogram is two series, the second one of no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry, self._methods = registry, frozenset(methods)
        self._run_counts = RunCounts()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        self._rpcs = cache(counter("bots_rpcs", "Calls that ended.", ("method", "code")).labels)
        rpc_seconds = histogram(
            "bots_rpc_duration_seconds",
            "From a call's arrival in its handler to its last message. WatchRun is left out.",
            ("method",),
            buckets=RPC_SECONDS,
        )
        self._rpc_seconds = cache(rpc_seconds.labels)
        self._rpcs_in_progress = gauge("bots_rpcs_in_progress", "Calls that are being served, streams among them.")
        self.begin_rpc = self._rpcs_in_progress.inc  # ended by `observe_rpc`
        self.rpc_threads = gauge("bots_rpc_threads", "Calls that can be served at once.").set

        redis_seconds = histogram(
            "bots_redis_command_duration_seconds",
            "From sending a transition of the store to its answer, retries among it.",
            ("command",),
            buckets=REDIS_SECONDS,
        )
        self._redis_seconds = cache(redis_seconds.labels)
        redis_errors = counter("bots_redis_errors", "Transitions that Redis did not do.", ("command",))
        self._redis_errors = cache(redis_errors.labels)
        self.redis_retry = counter("bots_redis_retries", "Commands that were sent again.").inc

        self._fold_lag = histogram(
            "bots_fold_lag_events",
            "Events that a replica had to fold before the call that asked for it could go on.",
            buckets=LAG_EVENTS,
        )
        self._fold_seconds = histogram(
            "bots_fold_duration_seconds", "Reading and folding those events.", buckets=FOLD_SECONDS
        )
        self.rebuilt = counter(
            "bots_replica_rebuilds",
            "Replicas dropped because Redis had another history than was folded (a failover, an old file).",
        ).inc
        # The next two are asked at each scrape.
        self.replicas = gauge("bots_replicas", "Runs that this process holds in memory.").set_function
        self.damaged_runs = gauge(
            "bots_damaged_runs", "Runs that were asked for and are damaged in Redis."
        ).set_function

        leases = counter(
            "bots_leases",
            "Leases that began (granted) and ended (released, expired, superseded by a new incarnation of the job, "
            "ended by a restore or EndLeases).",
            ("event",),
        )
        snapshots = counter(
            "bots_snapshots", "Snapshots that Redis took (stored) or did not (refused, failed).", ("outcome",)
        )
        self._snapshot_seconds = histogram(
            "bots_snapshot_duration_seconds", "Making and storing a snapshot.", buckets=FOLD_SECONDS
        )
        self.log_record_dropped = counter(
            "bots_log_records_dropped", "Log records dropped, because the log's queue was full."
        ).inc
        for method in methods:  # so that a rate is 0 and not absent before the first call
            self._rpcs(method, "OK")
        events = "granted", "released", "expired", "superseded", "ended"
        self._leases = {event: leases.labels(event) for event in events}
        self._snapshots = {outcome: snapshots.labels(outcome) for outcome in ("stored", "refused", "failed")}

    def export_runs(self, observe: Callable[[], Iterable[ObservedRun]]) -> None:
        """Has each scrape read the runs that the process holds."""
        self._registry.register(RunCollector(observe, self._run_counts))

    def export_usage(self, observe: Callable[[], Usage], limits: Mapping[str, int]) -> None:
        """Has each scrape read what identities use. `limits` are their quotas."""
        self._registry.register(UsageCollector(observe, limits))

    def observe_rpc(self, method: str, code: str, seconds: float) -> None:
        """A call ended. method: without its service's name; code: name of the status."""
        method = method if method in self._methods else "other"
        self._rpcs_in_progress.dec()
        self._rpcs(method, code).inc()
        if method not in OPEN_ENDED:
            self._rpc_seconds(method).observe(seconds)

    def observe_redis(self, command: str, seconds: float, failed: bool) -> None:
        """A transition of the store ended. command: its name, one of a fixed set; never a key."""
        self._redis_seconds(command).observe(seconds)
        self._redis_errors(command).inc(failed)

    def observe_fold(self, dataset: str, run: str, kinds: Iterable[str], seconds: float) -> None:
        """A replica that was held caught up. kinds: of each event, the `kind` in storage.Event."""
        kinds = tuple(kinds)
        self._fold_lag.observe(len(kinds))
        self._fold_seconds.observe(seconds)
        if kinds.count("report") < len(kinds):
            self._run_counts.add(
                (dataset, run),
                restores=kinds.count("restored"),
                undos=kinds.count("undone"),
                hyperparameter_changes=kinds.count("hyperparameters_changed"),
            )

    def observe_selection(self, dataset: str, run: str, tasks: int, leased: int) -> None:
        """A selection was answered. leased: number of its tasks that are leased."""
        self._leases["granted"].inc(leased)
        self._run_counts.add((dataset, run), selections=1, selected_tasks=tasks)

    def outlier_reported(self, dataset: str, run: str) -> None:
        """A report was stored that is far outside what the run had seen."""
        self._run_counts.add((dataset, run), outlier_reports=1)

    def leases_ended(self, event: str, leases: int) -> None:
        """Leases ended. event: released, expired, superseded or ended."""
        self._leases[event].inc(leases)

    def observe_snapshot(self, outcome: str, seconds: float) -> None:
        """A snapshot was made. outcome: stored, refused or failed."""
        self._snapshots[outcome].inc()
        self._snapshot_seconds.observe(seconds)
