"""A report far outside what the run has seen: marked in the history, logged, counted, and undone."""

import logging

import numpy as np
import pytest

from tests.api.service import Run, Service, new_id

RUN = {"dataset": "letters", "run": "policy"}


def train(run: Run, reports: int) -> None:
    """Reports 8 tasks that the policy solves half of the time."""
    rng = np.random.default_rng(0)
    for _ in range(reports):
        run.report(rng.choice(26, 8, replace=False).tolist(), rng.binomial(8, 0.5, 8).tolist(), 8)
    run.summary()  # the server has seen them now


def test_outlier_is_marked_logged_and_counted(letters: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Once, by the server that stores it. The repeat of its request id is not another one."""
    policy = letters.run("letters", "policy")
    train(policy, 30)
    fields = {"job": "rank-0", "request_id": new_id()}
    with caplog.at_level(logging.WARNING, "bots_server.api.reports"):
        for _ in range(2):
            version = policy.report([7], [0], 1_000_000, **fields).version
        train(policy, 1)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("run letters/policy: the report of version 31, by job 'rank-0', is far outside")
    events = policy.events().events
    assert [event.version for event in events if event.report.HasField("outlier")] == [version] == [31]
    assert events[30].report.outlier.rollouts_ratio == pytest.approx(125_000)
    policy.undo(version)
    assert letters.sample("bots_run_outlier_reports_total", **RUN) == 1
    policy.summary()
    assert letters.sample("bots_run_undos_total", **RUN) == 1
    assert policy.summary().mean_evidence < 100


def test_report_to_a_server_that_has_not_seen_the_run_is_judged_too(letters: Service) -> None:
    """It looks at the run first."""
    policy = letters.run("letters", "policy")
    train(policy, 30)
    letters.server._registry._held.clear()
    policy.report(range(26), [8] * 26, 8)
    assert policy.events().events[30].report.outlier.deviation > 6
