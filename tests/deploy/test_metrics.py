"""What /metrics has, after success and after failure."""

import shutil
import subprocess
import urllib.error
import urllib.request
from multiprocessing import Pipe

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bots_server.core.evidence import gather
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Report, fold, start
from bots_server.core.strata import Strata, StrataBuilder
from bots_server.core.summary import summarise
from bots_server.core.tasks import arrange
from bots_server.process import address
from bots_server.telemetry.collector import MOST_COUNTED, Monotone, RunCounts
from bots_server.telemetry.figures import ObservedRun
from bots_server.telemetry.metrics import Metrics
from bots_server.telemetry.scrape import Workers, answer_scrapes, serve_metrics

METHODS = ("SelectBatch", "ReportOutcomes")


def observed(
    name: str = "r", *, uid: str = "1", reports: int = 0, tags: int = 0, model: str = "interpolation"
) -> ObservedRun:
    """Returns a run of 64 tasks with as many tags, after reports of 4 tasks each, with 2 of 8, 0, 8 and 4 successes."""
    builder = StrataBuilder(0)
    names = [f"tag{number}" for number in range(tags)]
    tag = np.arange(64) % tags if tags else None
    tasks = arrange(builder_strata(builder), np.zeros(64, np.uint32), tag, names)
    posterior = start(tasks, Hyperparameters(rest=0.5), model)
    for report in range(reports):
        at = np.arange(4) + 4 * report
        evidence = gather(at, np.array([2.0, 0.0, 8.0, 4.0]), np.full(4, 8.0))
        posterior = fold(posterior, tasks, Report(evidence, time_ms=1_000))
    return ObservedRun("d", name, uid, posterior, summarise(posterior, tasks), live_leases=3)


def builder_strata(builder: StrataBuilder) -> Strata:
    builder.add(None, None, None, 64)
    return builder.strata()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_calls_are_counted_by_method_and_code() -> None:
    """A call counts under its method and code, once, and its duration under its method."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    metrics.begin_rpc()
    assert value(registry, "bots_rpcs_in_progress") == 1
    metrics.observe_rpc("SelectBatch", "OK", 0.0015)
    metrics.begin_rpc()
    metrics.observe_rpc("SelectBatch", "UNAVAILABLE", 3.0)
    assert value(registry, "bots_rpcs_in_progress") == 0
    assert value(registry, "bots_rpcs_total", method="SelectBatch", code="OK") == 1
    assert value(registry, "bots_rpcs_total", method="SelectBatch", code="UNAVAILABLE") == 1
    assert value(registry, "bots_rpcs_total", method="ReportOutcomes", code="OK") == 0
    assert value(registry, "bots_rpc_duration_seconds_bucket", method="SelectBatch", le="0.001") == 0
    assert value(registry, "bots_rpc_duration_seconds_bucket", method="SelectBatch", le="0.002") == 1
    assert value(registry, "bots_rpc_duration_seconds_count", method="SelectBatch") == 2


def test_a_method_that_is_not_ours_is_other() -> None:
    """A name that the service does not have makes no new label value."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    for method in ("ServerReflectionInfo", "x" * 1000):
        metrics.begin_rpc()
        metrics.observe_rpc(method, "OK", 0.1)
    assert value(registry, "bots_rpcs_total", method="other", code="OK") == 2
    methods = {s.labels["method"] for f in registry.collect() for s in f.samples if "method" in s.labels}
    assert methods == {*METHODS, "other"}


def test_redis_errors_and_retries() -> None:
    """A transition that failed has its time observed and counts as an error."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    metrics.observe_redis("append", 0.003, False)
    assert value(registry, "bots_redis_errors_total", command="append") == 0
    metrics.observe_redis("append", 2.0, True)
    metrics.redis_retry()
    assert value(registry, "bots_redis_errors_total", command="append") == 1
    assert value(registry, "bots_redis_command_duration_seconds_count", command="append") == 2
    assert value(registry, "bots_redis_retries_total") == 1


def test_run_is_exported_from_its_summary() -> None:
    """Unknown is absent; sums are means times their weight."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    metrics.export_runs(lambda: [observed(reports=2, tags=2)])
    metrics.observe_selection("d", "r", tasks=32, leased=32)
    metrics.observe_fold("d", "r", ["report", "restored"], 0.001)
    metrics.outlier_reported("d", "r")
    run = {"dataset": "d", "run": "r"}
    assert value(registry, "bots_run_version", **run) == 2
    assert value(registry, "bots_run_capability", **run) is None
    assert value(registry, "bots_run_ability", **run) is None
    assert value(registry, "bots_run_leases", **run) == 3
    assert value(registry, "bots_run_distinct_tasks", **run) == 8
    assert value(registry, "bots_run_coverage_ratio", **run) == 1 / 8
    assert value(registry, "bots_run_resting_tasks", **run) == 8
    assert value(registry, "bots_run_retired_tasks", **run) == 0
    assert value(registry, "bots_run_tasks", **run, pass_rate="0.50") == 58
    assert value(registry, "bots_run_recent_observed_pass_rate", **run, pass_rate="0.50") == 14 / 32
    assert value(registry, "bots_run_recent_observed_pass_rate", **run, pass_rate="0.10") is None
    assert value(registry, "bots_run_updates_total", **run) == 2
    assert value(registry, "bots_run_outcomes_total", **run) == 8
    assert value(registry, "bots_run_rollouts_total", **run) == 64
    assert value(registry, "bots_run_effective_outcomes_total", **run) == 4
    assert value(registry, "bots_run_absolute_error_total", **run) == 2.5
    assert value(registry, "bots_run_last_report_timestamp_seconds", **run) == 1
    assert value(registry, "bots_run_hyperparameter", **run, hyperparameter="rest") == 0.5
    assert value(registry, "bots_run_hyperparameter", **run, hyperparameter="drift") is None
    assert value(registry, "bots_run_tag_mean_pass_rate", **run, tag="tag1") == pytest.approx(0.5, abs=0.1)
    assert value(registry, "bots_run_selected_tasks_total", **run) == 32
    assert value(registry, "bots_run_restores_total", **run) == 1
    assert value(registry, "bots_run_undos_total", **run) == 0
    assert value(registry, "bots_run_outlier_reports_total", **run) == 1
    assert value(registry, "bots_run_hyperparameter_changes_total", **run) == 0
    assert value(registry, "bots_leases_total", event="granted") == 32
    assert value(registry, "bots_fold_lag_events_sum") == 2


def test_run_of_item_response_has_its_own_figures() -> None:
    """And none of interpolation."""
    registry = CollectorRegistry()
    Metrics(registry).export_runs(lambda: [observed(reports=2, tags=2, model="item_response")])
    run = {"dataset": "d", "run": "r"}
    for name in ("ability", "residual_variance", "explained_ratio", "inputs_explain_nothing"):
        assert value(registry, f"bots_run_{name}", **run) is not None
    assert value(registry, "bots_run_capability", **run) is None
    assert value(registry, "bots_run_hyperparameter", **run, hyperparameter="drift") == 0.01


def test_counts_of_runs_are_bounded_without_scrapes() -> None:
    """The oldest are forgotten."""
    counts = RunCounts()
    for number in range(MOST_COUNTED + 10):
        counts.add(("d", str(number)), selections=1)
    runs = {("d", str(number)) for number in range(MOST_COUNTED + 10)}
    assert len(counts.keep(runs)) == MOST_COUNTED


def test_dropped_log_records_are_counted() -> None:
    """Of the log's queue."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.log_record_dropped()
    assert value(registry, "bots_log_records_dropped_total") == 1


def test_a_run_that_ended_is_exported_no_more() -> None:
    """What is not held has no series, and starts anew when it is held again."""
    registry, held = CollectorRegistry(), [observed("a", uid="1"), observed("b", uid="2")]
    metrics = Metrics(registry, METHODS)
    metrics.export_runs(lambda: held)
    metrics.observe_selection("d", "a", tasks=1, leased=0)

    def runs() -> set[str]:
        return {s.labels["run"] for f in registry.collect() for s in f.samples if "run" in s.labels}

    assert runs() == {"a", "b"}
    gone = held.pop(0)
    assert runs() == {"b"}
    held.append(gone)
    assert value(registry, "bots_run_selections_total", dataset="d", run="a") == 0


def test_counters_of_a_run_never_go_down() -> None:
    """A restore takes the run's sums back, not its counters; what comes after it counts on."""
    counters = Monotone()
    assert counters.follow({"rollouts": 100.0}) == {"rollouts": 100.0}
    assert counters.follow({"rollouts": 160.0}) == {"rollouts": 160.0}
    assert counters.follow({"rollouts": 40.0}) == {"rollouts": 160.0}
    assert counters.follow({"rollouts": 50.0}) == {"rollouts": 170.0}


def test_cardinality_is_as_documented() -> None:
    """A run costs at most 98 series and one more a tag, a process some 900."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    for method in METHODS:
        metrics.begin_rpc()
        metrics.observe_rpc(method, "OK", 0.1)
    for command in range(30):
        metrics.observe_redis(str(command), 0.1, False)

    def series() -> int:
        return sum(1 for line in generate_latest(registry).splitlines() if not line.startswith(b"#"))

    idle = series()
    assert idle <= 950
    metrics.export_runs(lambda: [observed(str(i), uid=str(i), reports=2, tags=50) for i in range(10)])
    assert (series() - idle) / 10 <= 98 + 50


def test_workers_are_one_page() -> None:
    """The parent's page has every worker's series with its number, and says which worker is gone."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    pipes = [Pipe(), Pipe()]
    for number, (registry, (_, theirs)) in enumerate(zip(registries, pipes, strict=True)):
        metrics = Metrics(registry, METHODS)
        for _ in range(number + 1):
            metrics.begin_rpc()
            metrics.observe_rpc("SelectBatch", "OK", 0.1)
        answer_scrapes(theirs, registry)
    page = CollectorRegistry()
    connections = {str(number): ours for number, (ours, _) in enumerate(pipes)}
    page.register(Workers(lambda: connections))
    selects = {"method": "SelectBatch", "code": "OK"}
    assert value(page, "bots_rpcs_total", **selects, process="0") == 1
    assert value(page, "bots_rpcs_total", **selects, process="1") == 2
    text = generate_latest(page).decode()
    assert text.count("# TYPE bots_rpcs_total counter") == 1
    pipes[0][0].close()
    pipes[0][1].close()
    assert value(page, "bots_worker_up", process="0") == 0
    assert value(page, "bots_worker_up", process="1") == 1
    assert value(page, "bots_rpcs_total", **selects, process="1") == 2
    pipes[1][0].close()


def test_the_page_is_served_and_ends() -> None:
    """/metrics answers on its port, and no longer once it is closed."""
    registry = CollectorRegistry()
    Metrics(registry, METHODS)
    bound = address.bind("127.0.0.1", 0, "--metrics-port")
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/metrics"
    with serve_metrics(bound, registry, healthy=lambda: True), urllib.request.urlopen(url, timeout=10) as answer:
        assert b"bots_rpcs_in_progress 0.0" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)")
def test_names_follow_the_conventions() -> None:
    """promtool has nothing to say about names, units, help and types."""
    registry = CollectorRegistry()
    metrics = Metrics(registry, METHODS)
    metrics.export_runs(lambda: [observed(reports=2, tags=2)])
    told = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True)
    assert (told.returncode, told.stdout + told.stderr) == (0, b"")
