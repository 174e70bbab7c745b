"""The dashboards: every expression returns data from a Prometheus that scraped a server under a run."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from tests.api.service import Run, dataset_parts
from tests.deploy import stack
from tests.deploy.stack import Prometheus
from tests.valkey import free_port, valkey, wait_until

GRAFANA = Path(__file__).parents[2] / "deploy/grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
WINDOW_SECONDS = 20
SIZE, BATCH, ROLLOUTS = 2_000, 32, 8
STEPS = 300
REPORTS = 270  # every tenth batch is not reported
EVENTS = REPORTS + 3  # an undo, a restore and a change of hyperparameters; more than 256, so that a snapshot is due


@dataclass(frozen=True)
class Expression:
    """One expression of a dashboard, with its variables as they are when everything is shown."""

    board: str
    panel: str
    text: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.text}"


def expressions() -> Iterator[Expression]:
    """Yields what the panels and the annotations of all dashboards ask."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield Expression(name, panel["title"], filled(name, target["expr"]))
        for mark in board["annotations"].get("list", []):
            yield Expression(name, mark["name"], filled(name, mark["expr"]))


def filled(board: str, text: str) -> str:
    """Returns an expression with Grafana's variables replaced."""
    of_item_response = any(name in text for name in ("run_ability", "run_explained", "run_residual"))
    run = "other" if of_item_response else "policy"
    one = {"dataset": "tasks", "run": run} if board == "difficulty-drift" else {"dataset": ".*", "run": ".*"}
    macros = {"__rate_interval": f"{WINDOW_SECONDS}s", "__range": f"{WINDOW_SECONDS}s", "instance": ".*"}
    for variable, value in (one | macros).items():
        text = re.sub(rf"\$\{{?{variable}\b\}}?", value, text)
    assert "$" not in text, text
    return text


def train(service: tuple[Run, Run], steps: int) -> None:
    """Trains a policy that gets better, through two servers, with an undo, a restore, a change and a mistake."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(SIZE)
    run = service[0]
    run.checkpoint("start")
    for step in range(steps):
        batch = run.select(BATCH, lease_seconds=60 if step % 2 else 0.2, policy_step=step)
        pass_rates = np.clip(difficulty[list(batch.tasks)] - 0.2 + 0.4 * step / steps, 0, 1)
        if step % 10:  # otherwise the batch is not reported, and its leases expire
            successes = rng.binomial(ROLLOUTS, pass_rates).tolist()
            reported = service[1].report(
                batch.tasks,
                successes,
                ROLLOUTS,
                selection_id=batch.selection_id,
                policy_step=step + 1,
                selection_policy_step=step,
                shadow_tasks=batch.tasks,
            )
        if step == steps // 2:
            run.undo(reported.version)
            run.restore(checkpoint="start")
            run.update(target=0.4)
            with pytest.raises(grpc.RpcError):
                run.select(SIZE + 1)
        time.sleep(WINDOW_SECONDS / 2 / steps)  # the pace of the run, so that it is seen over several scrapes


def create(stub: TaskSelectionServiceStub) -> None:
    """Creates the runs `policy` (interpolation) and `other` (item_response) of the dataset `tasks`."""
    difficulty = np.random.default_rng(0).random(SIZE)
    tags = ["algebra", "geometry", "logic"] * (SIZE // 3 + 1)
    references = {"weak": np.clip(difficulty - 0.3, 0, 1), "strong": np.clip(difficulty + 0.3, 0, 1)}
    parts = dataset_parts("tasks", SIZE, tags=tags[:SIZE], references=references, reference_grid=1 / 16)
    requests = [pb.CreateDatasetRequest(header=parts[0]), pb.CreateDatasetRequest(chunk=parts[1])]
    stub.CreateDataset(iter(requests), timeout=20)
    for name, model in (("policy", pb.EVIDENCE_MODEL_INTERPOLATION), ("other", pb.EVIDENCE_MODEL_ITEM_RESPONSE)):
        stub.CreateRun(pb.CreateRunRequest(dataset="tasks", name=name, model=model), timeout=20)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scraped two servers while a run was trained."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    with (
        valkey(port=free_port()) as redis,
        stack.bots_server(redis.url) as first,
        stack.bots_server(redis.url, "--processes", "2") as second,
        stack.redis_exporter(redis.url) as exporter,
        stack.prometheus(
            tmp_path_factory.mktemp("prometheus"),
            {"bots": [first.metrics, second.metrics]} | ({"redis": [exporter]} if exporter else {}),
        ) as found,
        grpc.insecure_channel(first.address) as here,
        grpc.insecure_channel(second.address) as there,
    ):
        stubs = TaskSelectionServiceStub(here), TaskSelectionServiceStub(there)
        create(stubs[0])
        other = Run(stubs[0], pb.RunRef(dataset="tasks", name="other"))
        other.report([0, 1], [1, 2], ROLLOUTS)
        ref = pb.RunRef(dataset="tasks", name="policy")
        train((Run(stubs[0], ref), Run(stubs[1], ref)), STEPS)
        wait_until(lambda: versions(found) == {float(EVENTS)}, "both servers were scraped at the newest version")
        yield found


def versions(scraped: Prometheus) -> set[float]:
    """Returns the versions of the run that were scraped last; two servers that say the same are one."""
    series = scraped.query('bots_run_version{dataset="tasks",run="policy"}')
    return (
        {float(one["value"][1]) for one in series} if len({one["metric"]["instance"] for one in series}) == 2 else set()
    )


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """Returns the finite values of all series."""
    values = [float(value) for one in series for _, value in one["values"]]
    return [value for value in values if np.isfinite(value)]


def test_every_expression_returns_data(scraped: Prometheus) -> None:
    """No panel and no annotation of any dashboard is empty for a run that is trained."""
    asked = [e for e in expressions() if stack.EXPORTER or "redis_memory" not in e.text]
    empty = [str(e) for e in asked if not numbers(scraped.query_range(e.text, 2 * WINDOW_SECONDS))]
    assert empty == []
    print(f"{len(asked)} expressions in {sum(len(b['panels']) for b in BOARDS.values())} panels returned data")


def test_what_is_shown_is_what_the_service_says(scraped: Prometheus) -> None:
    """Both servers say the same of a run, and it is what the run has."""
    run = '{dataset="tasks", run="policy"}'

    assert versions(scraped) == {EVENTS}
    rollouts = scraped.query(f"max by (dataset, run) (bots_run_rollouts_total{run})")
    # The restore takes away what was reported in its scrape interval, and no more.
    assert 0.5 * REPORTS * BATCH * ROLLOUTS < float(rollouts[0]["value"][1]) <= REPORTS * BATCH * ROLLOUTS
    bins = scraped.query(f"sum (max by (dataset, run, pass_rate) (bots_run_tasks{run}))")
    assert float(bins[0]["value"][1]) == SIZE
    assert float(scraped.query(f"sum(bots_run_selections_total{run})")[0]["value"][1]) == STEPS

    def leases(event: str) -> float:
        return float(scraped.query(f'sum(bots_leases_total{{event="{event}"}})')[0]["value"][1])

    # Every other lease is short; of those that are not reported, the short ones are over before the end.
    assert leases("granted") == STEPS * BATCH
    assert leases("released") == REPORTS * BATCH
    assert 0 < leases("expired") <= (STEPS - REPORTS) * BATCH


def test_alerts_are_judged(scraped: Prometheus) -> None:
    """Prometheus can evaluate every alert on what it scraped, and none of them fires for a run that is well."""
    rules = [rule for group in scraped.rules() for rule in group["rules"]]
    assert len(rules) >= 8
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    assert scraped.query('ALERTS{alertstate="firing"}') == []


def test_dashboards_are_what_the_generator_makes() -> None:
    """The committed dashboards are fresh."""
    subprocess.run([sys.executable, GRAFANA / "generate.py", "--check"], check=True)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows(name: str) -> None:
    """Each panel has a title of its own and a description, and fits on the grid without an overlap."""
    panels = BOARDS[name]["panels"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert all(len(panel["description"]) > 20 for panel in panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place.get("x", 0), place.get("x", 0) + place["w"])
        for y in range(place.get("y", 0), place.get("y", 0) + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_datasource_is_the_one_that_is_provisioned() -> None:
    """Every panel, variable and annotation names the datasource that Grafana is given, by its fixed uid."""
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    uids = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]*)"', json.dumps(BOARDS)))
    assert uids == {datasource["uid"] for datasource in provisioned}
