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


def test_a_million_rollouts_of_a_task_count_as_1024(letters: Service) -> None:
    """No report freezes a run: the posterior of every task is that of the same pass rate over 1,024 rollouts."""
    references = {"weak": [0.1] * 4, "strong": [0.9] * 4}
    letters.dataset("few", 4, references=references)
    posteriors = []
    for name, rollouts in (("large", 1_000_000), ("small", 1024)):
        run = letters.create("few", name, model="EVIDENCE_MODEL_INTERPOLATION")
        run.report([1], [rollouts // 2], rollouts)
        posteriors.append(run.posteriors())
    assert all((one == two).all() for one, two in zip(*posteriors, strict=True))
    alpha, beta = posteriors[0]
    assert (alpha + beta).tolist() == pytest.approx([2 + 0.1 * 1024, 2 + 1024, 2 + 0.1 * 1024, 2 + 0.1 * 1024])
