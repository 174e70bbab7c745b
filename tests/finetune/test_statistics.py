"""The statistics of the report, on values whose results can be worked out by hand."""

import numpy as np
import pytest

from tests.finetune.statistics import (
    best_so_far,
    correlation_and_auc,
    effective_ratio,
    interval,
    time_to_baseline,
)

MEASURED = [0, 10, 20, 30, 40]


def test_interval_has_the_mean_and_covers_it() -> None:
    """The interval is that of the mean: narrower than the values, and equal for equal values."""
    values = np.linspace(0, 1, 20)
    found = interval(values)
    assert found.mean == pytest.approx(0.5)
    assert 0.3 < found.low < 0.45
    assert 0.55 < found.high < 0.7
    assert interval(values) == found


def test_interval_of_equal_values_is_a_point() -> None:
    """Without spread there is no uncertainty."""
    found = interval([0.25] * 5)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_interval_has_the_coverage_that_it_says() -> None:
    """Of 1,000 samples of 30 normal values, the interval covers the mean in more than 88 % and fewer than 98 %; the
    bootstrap of 30 values covers it in some 94 %, and 1,000 samples differ from that by at most 4 % with error
    probability 1e-7.
    """
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        found = interval(rng.normal(size=30))
        covered.append(found.low <= 0 <= found.high)
    assert 0.88 < np.mean(covered) < 0.98


def test_interval_leaves_out_what_is_not_known() -> None:
    """NaN are left out; one value has no interval, none no mean."""
    assert interval([np.nan, 2.0, np.nan]).mean == 2.0
    assert np.isnan(interval([2.0]).low)
    assert np.isnan(interval([np.nan]).mean)


def test_interval_is_written_shortly() -> None:
    """Leading zeros are left out, signs are shown if asked for."""
    assert interval([0.25, 0.25]).written() == ".250 [.250, .250]"
    assert interval([-0.5, -0.5]).written(2, sign=True) == "-.50 [-.50, -.50]"
    assert interval([0.5]).written(1, sign=True) == "+.5"
    assert interval([1234.0, 1234.0]).written(0) == "1,234 [1,234, 1,234]"
    assert interval([0.0, 0.0]).written(0) == "0 [0, 0]"
    assert interval([]).written() == "-"


def test_time_to_baseline_is_a_share_of_the_baselines_time() -> None:
    """The baseline's best is .5 at 40; an arm that passes .5 half-way between 10 and 20 needs 15 / 40 of the time."""
    baseline = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert time_to_baseline([0.1, 0.4, 0.6, 0.6, 0.6], baseline, MEASURED) == pytest.approx(15 / 40)
    assert time_to_baseline(baseline, baseline, MEASURED) == 1


def test_time_to_baseline_counts_from_the_baselines_best() -> None:
    """A baseline that is best at 20 and then declines needs 20."""
    assert time_to_baseline([0.1, 0.5, 0.5, 0.5, 0.5], [0.1, 0.3, 0.5, 0.4, 0.2], MEASURED) == pytest.approx(10 / 20)


def test_time_to_baseline_is_unknown_if_it_is_never_reached() -> None:
    """An arm that stays below has no time."""
    assert np.isnan(time_to_baseline([0.1] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], MEASURED))


def test_best_so_far_never_falls() -> None:
    """It is the running maximum."""
    assert best_so_far([0.1, 0.3, 0.2, 0.4]).tolist() == [0.1, 0.3, 0.3, 0.4]


def test_effective_ratio_counts_groups_with_both_rewards() -> None:
    """All right and all wrong are not effective."""
    assert effective_ratio([[0, 16, 8, 1], [0, 0, 16, 16]], 16).tolist() == [0.5, 0]


def test_auc_counts_pairs_of_rollouts() -> None:
    """3 right and 3 wrong rollouts make 9 pairs: those of the same task, or of equal predictions, count half."""
    predicted, successes, rollouts = [0.2, 0.8, 0.8], [1, 2, 0], 2
    right = np.repeat(predicted, successes)
    wrong = np.repeat(predicted, rollouts - np.array(successes))
    pairs = [(p > q) + 0.5 * (p == q) for p in right for q in wrong]
    assert len(pairs) == 9
    assert correlation_and_auc(predicted, successes, rollouts)[1] == pytest.approx(np.mean(pairs))


def test_correlation_is_that_of_pass_rates() -> None:
    """Perfect predictions correlate perfectly; constant ones have no correlation."""
    assert correlation_and_auc([0.25, 0.5, 0.75], [4, 8, 12], 16)[0] == pytest.approx(1)
    assert np.isnan(correlation_and_auc([0.5, 0.5], [4, 8], 16)).all()
