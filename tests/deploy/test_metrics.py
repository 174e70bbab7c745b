"""What /metrics says, after success and after failure."""

import math
import shutil
import subprocess
import urllib.error
import urllib.request
from multiprocessing import Pipe

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bots.v1 import task_selection_pb2 as pb
from bots_server.telemetry.collector import Monotone
from bots_server.telemetry.metrics import METHODS, Metrics
from bots_server.telemetry.scrape import Workers, answer_scrapes, serve_metrics


def summary(name: str = "r", *, uid: str = "1", outcomes: float = 0.0, tags: int = 0) -> pb.RunSummary:
    """Returns a summary with 20 bins, all hyperparameters and so many tags."""
    accuracy = pb.Accuracy(
        reports=outcomes / 4,
        outcomes=outcomes,
        rollouts=outcomes * 8,
        successes=outcomes * 3,
        effective_task_ratio=0.75 if outcomes else math.nan,
        absolute_error=0.25 if outcomes else math.nan,
    )
    return pb.RunSummary(
        run=pb.Run(
            dataset="d",
            name=name,
            uid=uid,
            version=7,
            hyperparameters=pb.Hyperparameters(
                **{field.name: 1 for field in pb.Hyperparameters.DESCRIPTOR.fields if field.name != "greedy"},
                greedy=True,
            ),
        ),
        pass_rate_bins=range(20),
        in_reach=0.5,
        total=accuracy,
        recent=accuracy,
        tags=[pb.TagSummary(tag=f"tag{i}", tasks=1, mean_pass_rate=i / 64) for i in range(tags)],
    )


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_calls_are_counted_by_method_and_code() -> None:
    """A call counts under its method and code, once, and its duration under its method."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
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
    metrics = Metrics(registry)
    for method in ("ServerReflectionInfo", "x" * 1000):
        metrics.begin_rpc()
        metrics.observe_rpc(method, "OK", 0.1)
    assert value(registry, "bots_rpcs_total", method="other", code="OK") == 2
    methods = {s.labels["method"] for f in registry.collect() for s in f.samples if "method" in s.labels}
    assert methods == {*METHODS, "other"}


def test_redis_errors_and_retries() -> None:
    """A transition that failed has its time observed and counts as an error."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.observe_redis("append", 0.003, False)
    assert value(registry, "bots_redis_errors_total", command="append") == 0
    metrics.observe_redis("append", 2.0, True)
    metrics.redis_retry()
    assert value(registry, "bots_redis_errors_total", command="append") == 1
    assert value(registry, "bots_redis_command_duration_seconds_count", command="append") == 2
    assert value(registry, "bots_redis_retries_total") == 1


def test_a_run_is_exported_from_its_summary() -> None:
    """A run's state is what its summary says; unknown is absent; sums are means times their weight."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.export_runs(lambda: [summary(outcomes=8, tags=2)])
    metrics.observe_selection("d", "r", tasks=32, leased=32)
    metrics.observe_fold("d", "r", ["report", "restored"], 0.001)
    run = {"dataset": "d", "run": "r"}
    assert value(registry, "bots_run_version", **run) == 7
    assert value(registry, "bots_run_in_reach_ratio", **run) == 0.5
    assert value(registry, "bots_run_capability", **run) is None
    assert value(registry, "bots_run_tasks", **run, pass_rate="0.95") == 19
    assert value(registry, "bots_run_outcomes_total", **run) == 8
    assert value(registry, "bots_run_effective_outcomes_total", **run) == 6
    assert value(registry, "bots_run_absolute_error_total", **run) == 2
    assert value(registry, "bots_run_hyperparameter", **run, hyperparameter="greedy") == 1
    assert value(registry, "bots_run_tag_mean_pass_rate", **run, tag="tag1") == 1 / 64
    assert value(registry, "bots_run_selected_tasks_total", **run) == 32
    assert value(registry, "bots_run_restores_total", **run) == 1
    assert value(registry, "bots_run_hyperparameter_changes_total", **run) == 0
    assert value(registry, "bots_leases_total", event="granted") == 32
    assert value(registry, "bots_fold_lag_events_sum") == 2


def test_a_run_that_ended_is_exported_no_more() -> None:
    """What is not held has no series, and starts anew when it is held again."""
    registry, held = CollectorRegistry(), [summary("a", uid="1"), summary("b", uid="2")]
    metrics = Metrics(registry)
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
    """A run costs at most 68 series and one more a tag, a process some 900."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for method in METHODS:
        metrics.begin_rpc()
        metrics.observe_rpc(method, "OK", 0.1)
    for command in range(30):
        metrics.observe_redis(str(command), 0.1, False)

    def series() -> int:
        return sum(1 for line in generate_latest(registry).splitlines() if not line.startswith(b"#"))

    idle = series()
    assert idle <= 950
    metrics.export_runs(lambda: [summary(str(i), uid=str(i), outcomes=8, tags=50) for i in range(10)])
    assert (series() - idle) / 10 <= 68 + 50


def test_workers_are_one_page() -> None:
    """The parent's page has every worker's series with its number, and says which worker is gone."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    pipes = [Pipe(), Pipe()]
    for number, (registry, (_, theirs)) in enumerate(zip(registries, pipes, strict=True)):
        metrics = Metrics(registry)
        for _ in range(number + 1):
            metrics.begin_rpc()
            metrics.observe_rpc("SelectBatch", "OK", 0.1)
        answer_scrapes(theirs, registry)
    page = CollectorRegistry()
    page.register(Workers({str(number): ours for number, (ours, _) in enumerate(pipes)}))
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
    """/metrics answers on the port it says, and no longer once it is closed."""
    registry = CollectorRegistry()
    Metrics(registry)
    page = serve_metrics(0, registry)
    url = f"http://127.0.0.1:{page.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"bots_rpcs_in_progress 0.0" in answer.read()
    page.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: apt-get install prometheus)")
def test_names_follow_the_conventions() -> None:
    """promtool has nothing to say about names, units, help and types."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.export_runs(lambda: [summary(outcomes=8, tags=2)])
    told = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True)
    assert (told.returncode, told.stdout + told.stderr) == (0, b"")
