"""Which reports are far outside what a run has seen."""

from dataclasses import replace

import numpy as np
import pytest

from bots_server.core.arrays import Floats
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import MODELS, Hyperparameters
from bots_server.core.outlier import Outlier, outlier
from bots_server.core.posterior import Posterior, Report, fold, start
from bots_server.core.statistics import MOST_POLICY_LAG, figures
from bots_server.core.tasks import Tasks
from tests.strategies import Columns

SIZE, BATCH, ROLLOUTS, STEPS = 1_000, 32, 8, 120


def sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))


class Training:
    """A policy that learns, over shuffled epochs of tasks whose difficulty has a standard deviation of 2 logits."""

    def __init__(self, model: str, *, references: bool, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.difficulty = self.rng.normal(0, 2, SIZE)
        weak, strong = sigmoid(-1 - self.difficulty), sigmoid(2 - self.difficulty)
        columns = {"weak": weak.astype(np.float32), "strong": strong.astype(np.float32)} if references else {}
        self.tasks: Tasks = Columns(SIZE, columns).arranged()
        self.posterior: Posterior = start(self.tasks, Hyperparameters(), model)
        self.order = self.rng.permutation(SIZE)
        self.step = 0

    def evidence(self) -> Evidence:
        """Returns the outcomes of the next batch; the policy gains 3 logits in 200 steps."""
        first = self.step * BATCH % (SIZE - BATCH)
        batch = np.sort(self.order[first : first + BATCH])
        pass_rates = sigmoid(-1 + 3 * self.step / 200 - self.difficulty[batch])
        successes = self.rng.binomial(ROLLOUTS, pass_rates).astype(np.float64)
        return Evidence(batch, successes, np.full(BATCH, float(ROLLOUTS)))

    def judge(self, evidence: Evidence) -> Outlier | None:
        return outlier(self.posterior.state, self.tasks, self.posterior.model, evidence)

    def report(self, evidence: Evidence) -> None:
        self.posterior = fold(self.posterior, self.tasks, Report(evidence, 1))
        self.step += 1


@pytest.fixture(params=[(model, references) for model in MODELS for references in (True, False)], ids=str)
def training(request: pytest.FixtureRequest) -> Training:
    model, references = request.param
    return Training(model, references=references)


def test_reports_of_a_policy_that_learns_are_no_outliers(training: Training) -> None:
    """From the first one on, over tasks that are new and tasks that were evaluated before, whatever the model knows."""
    for _ in range(STEPS):
        evidence = training.evidence()
        assert training.judge(evidence) is None
        training.report(evidence)


def test_report_of_a_broken_verifier_is_an_outlier(training: Training) -> None:
    """All rollouts of a batch failed, or all were solved, when about half were usual."""
    for _ in range(60):
        training.report(training.evidence())
    evidence = training.evidence()
    failed = training.judge(replace(evidence, successes=np.zeros(BATCH)))
    solved = training.judge(replace(evidence, successes=evidence.rollouts))
    assert failed is not None
    assert solved is not None
    assert failed.deviation < -6
    assert solved.deviation > 6
    assert failed.rollouts_ratio == solved.rollouts_ratio == pytest.approx(1)


def test_report_of_a_hundred_times_the_usual_rollouts_is_an_outlier(training: Training) -> None:
    """Of one task, whatever its pass rate; of 99 times as many it is none."""
    for _ in range(60):
        training.report(training.evidence())
    assert training.judge(Evidence(np.array([7]), np.array([396.0]), np.array([792.0]))) is None
    found = training.judge(Evidence(np.array([7]), np.array([400.0]), np.array([800.0])))
    assert found is not None
    assert found.rollouts_ratio == pytest.approx(100)
    assert abs(found.deviation) < 6


def test_nothing_is_an_outlier_of_a_run_that_has_seen_little() -> None:
    """Fewer than 16 updates."""
    training = Training("interpolation", references=True)
    for _ in range(15):
        training.report(training.evidence())
    nonsense = Evidence(np.array([7]), np.array([0.0]), np.array([1e6]))
    assert training.judge(nonsense) is None
    training.report(training.evidence())
    assert training.judge(nonsense) is not None


def test_pass_rates_are_not_judged_by_few_outcomes() -> None:
    """With fewer than 64 recent outcomes of tasks that were not evaluated before, new tasks are not judged."""
    training = Training("interpolation", references=False)
    for task in range(20):
        training.report(Evidence(np.array([task]), np.array([4.0]), np.array([8.0])))
    tasks = np.arange(100, 400)
    assert training.judge(Evidence(tasks, np.zeros(300), np.full(300, 8.0))) is None
    found = training.judge(Evidence(tasks, np.zeros(300), np.full(300, 800.0)))
    assert found is not None
    assert np.isnan(found.deviation)


def test_one_wrong_policy_step_does_not_hide_the_lag_of_the_others() -> None:
    """A lag counts as at most 10,000 steps."""
    training = Training("interpolation", references=True)
    for selected in (0, *range(1, 100)):
        step = 2**63 - 1 if selected == 0 else selected + 1
        report = Report(training.evidence(), 1, policy_step=step, selection_policy_step=selected)
        training.posterior = fold(training.posterior, training.tasks, report)
    mean = figures(training.posterior.state.total).mean_policy_lag
    assert mean == pytest.approx((MOST_POLICY_LAG + 99) / 100)
