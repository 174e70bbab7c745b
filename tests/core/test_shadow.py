"""What the statistics say of a selection that was not made: in place of a trainer's own."""

import math

import numpy as np
import pytest

from bots_server.core import shadow
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.posterior import Posterior, Report, alpha_beta, fold, start
from bots_server.core.statistics import figures
from tests.strategies import Columns

ROLLOUTS = 8


def evidence(successes: list[float]) -> Evidence:
    """Returns outcomes of the first tasks, of 8 rollouts each."""
    return Evidence(np.arange(len(successes)), np.array(successes), np.full(len(successes), float(ROLLOUTS)))


def shadow_of(posterior: Posterior) -> shadow.Shadow:
    """Returns the comparison of all updates."""
    return figures(posterior.state.total).shadow


def test_effectiveness_is_the_chance_that_rollouts_differ() -> None:
    """Beta(1, 1): all k of n are equally likely, and two of n + 1 are ineffective; a sure pass rate: 1 - p^n - q^n."""
    alpha, beta = np.array([1.0, 1e6]), np.array([1.0, 3e6])
    expected = [7 / 9, 1 - 0.25**8 - 0.75**8]
    np.testing.assert_allclose(shadow.effectiveness(alpha, beta, ROLLOUTS), expected, rtol=1e-5)


def test_one_prediction_is_judged_by_the_outcomes_and_as_one_more() -> None:
    """All tasks are Beta(1, 1), so they are one bin: 3 of 4 effective and the prediction 7/9 as a fifth."""
    tasks = Columns(20, {}).arranged()
    report = Report(evidence([4.0, 1.0, 7.0, 8.0]), 0, shadow_tasks=np.array([9, 12]))
    found = shadow_of(fold(start(tasks, Hyperparameters(), "interpolation"), tasks, report))
    assert (found.outcomes, found.selected, found.effective_task_ratio, found.unsupported) == (4, 2, 0.75, 0.0)
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    rate = (3 + 7 / 9) / 5
    assert found.selected_effective_task_ratio == pytest.approx(rate)
    assert found.selected_standard_error == pytest.approx(math.sqrt(rate * (1 - rate) / 5))
    (only,) = (one for one in found.bins if one.outcomes)
    assert (only.outcomes, only.selected, only.effective_task_ratio) == (4, 2, 0.75)
    assert only.predicted == pytest.approx(7 / 9)


def test_prediction_stands_alone_if_the_trainer_has_no_task_of_its_bin() -> None:
    tasks = Columns(2, {}, prior_alpha=np.array([1.0, 100.0]), prior_beta=np.array([1.0, 1.0])).arranged()
    report = Report(evidence([4.0]), 0, shadow_tasks=np.array([1]))
    found = shadow_of(fold(start(tasks, Hyperparameters(), "interpolation"), tasks, report))
    predicted = float(shadow.effectiveness(np.array([100.0]), np.array([1.0]), ROLLOUTS)[0])
    assert found.unsupported == 1
    assert found.selected_effective_task_ratio == pytest.approx(predicted)


def test_posterior_and_other_figures_do_not_depend_on_shadow_tasks() -> None:
    tasks = Columns(20, {}).arranged()
    first = start(tasks, Hyperparameters(), "item_response")
    own = evidence([4.0, 0.0])
    plain, watched = (fold(first, tasks, Report(own, 0, shadow_tasks=np.array(those, np.int64))) for those in ([], [5]))
    for one, other in zip(alpha_beta(plain, tasks, None), alpha_beta(watched, tasks, None), strict=True):
        np.testing.assert_array_equal(one, other)
    assert figures(plain.state.total).prediction == figures(watched.state.total).prediction
    assert shadow_of(plain).outcomes == 0
    assert math.isnan(shadow_of(plain).selected_effective_task_ratio)
