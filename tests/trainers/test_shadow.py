"""What the service says of a selection that was not made, by the reports of a trainer that selects itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rich.console import Console

import bots
from bots.cli.glance import glance
from bots.trainers import Identity, TaskRows, create_dataset
from bots.trainers.shadow import ShadowReports
from tests.api.service import serving
from tests.trainers.page import example

ROLLOUTS = 8


def test_summary_and_history_have_what_would_have_been_selected(client: bots.Client) -> None:
    """As the page reports. All tasks are Beta(1, 1), so they are one bin: 3 of 4 effective and the prediction 7/9 as a
    fifth.
    """
    rows = [{"prompt": str(task)} for task in range(20)]
    create_dataset(client, "d", rows, dimensions=0)
    run = client.create_run("d", "r", model="interpolation")
    ids = [Identity().of_row(row) for row in rows[:5]]
    rewards = [[0, 1] * 4] * 3 + [[1] * 8] + [[None] * 8]
    exec(example("Try it", "", 1), {"run": run, "dataset": rows, "ids": ids, "rewards": rewards})
    (event,) = run.events()
    assert isinstance(event.kind, bots.ReportEvent)
    assert (len(event.kind.tasks), len(event.kind.shadow_tasks)) == (4, 5)
    found = run.summary().total.shadow
    assert (found.outcomes, found.selected, found.effective_task_ratio, found.unsupported) == (4, 5, 0.75, 0.0)
    rate = (3 + 7 / 9) / 5
    assert found.selected_effective_task_ratio == pytest.approx(rate, rel=1e-6)
    assert found.selected_standard_error == pytest.approx(math.sqrt(rate * (1 - rate) / 5), rel=1e-6)
    console = Console(width=200, record=True)
    console.print(glance(run.summary(), None, run.info().create_time))
    assert "0.756 ± 0.192" in console.export_text()


def test_estimate_is_near_the_truth_of_what_would_have_been_selected(client: bots.Client) -> None:
    """Pass rates are known here, hence the true ratio. The bound is 6.1 standard errors: probability 1e-9."""
    rng = np.random.default_rng(5)
    rates = rng.beta(0.4, 0.4, 150)
    rows = [{"prompt": f"{task}"} for task in range(150)]
    create_dataset(client, "d", rows, dimensions=0)
    run = client.create_run("d", "r", rest=0.0)
    mapping = TaskRows(run, rows)
    shadow = ShadowReports(mapping)
    for step in range(60):
        chosen = rng.choice(150, 16, replace=False)
        shadow.begin(16, step)
        ids = [mapping.identity.of_row(rows[task]) for task in chosen]
        shadow.report(ids, rng.random((16, ROLLOUTS)) < rates[chosen, None], step)
    number = {mapping.identity.of_row(row): rates[place] for place, row in enumerate(rows)}
    p = np.array([number[task_id] for task_id in run.task_ids()])
    kinds = [event.kind for event in run.events()]
    would = np.concatenate([kind.shadow_tasks for kind in kinds if isinstance(kind, bots.ReportEvent)])
    truth = np.mean(1 - p[would] ** ROLLOUTS - (1 - p[would]) ** ROLLOUTS)
    found = run.summary().total.shadow
    assert abs(found.selected_effective_task_ratio - truth) < 6.1 * found.selected_standard_error, str(found)
    assert found.selected_effective_task_ratio > found.effective_task_ratio + 6.1 * found.standard_error, str(found)
    assert "of what BOTS would have selected" in str(found)


def test_step_without_the_service_is_not_compared(redis_url: str) -> None:
    """Its report is delivered later; the batch that the client drew in the meantime is none of BOTS."""
    rows = [{"prompt": str(task)} for task in range(5)]
    with serving(redis_url) as first:
        client = bots.Client(first.address, timeout=1)
        create_dataset(client, "d", rows, dimensions=0)
        run = client.create_run("d", "r")
        shadow = ShadowReports(TaskRows(run, rows))
    ids = [Identity().of_row(row) for row in rows]
    shadow.begin(5)
    shadow.report(ids, [[0, 1]] * 5)
    assert run.stats.fallback_selections == 1
    with serving(redis_url, port=int(first.address.rpartition(":")[2])):
        client.flush(30)
        found = run.summary()
        client.close()
    assert (found.total.outcomes, found.total.shadow.outcomes) == (5, 0)
    assert math.isnan(found.total.shadow.selected_effective_task_ratio)
