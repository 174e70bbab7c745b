"""`bots demo`: the training is GRPO on sums, and tasks selected through a real server are effective more often."""

import importlib.util
import math
import multiprocessing
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import bots
from bots.demo.command import demo
from bots.demo.learning import Rollouts, advantages, grpo_gradient, learner, pretrain, roll_out
from bots.demo.outcome import outcome, steps_to
from bots.demo.plots import selected_lengths
from bots.demo.policy import Policy, initial_policy, log_probabilities, pass_rates, seen
from bots.demo.seeds import train_seeds
from bots.demo.sums import BLANK, add, draw_sums
from bots.demo.training import ARMS, Arm, Setting, Trace, prepare, start_run, train
from bots.replay.figures import estimate
from tests.api.service import serving
from tests.e2e.test_replay import bots as command
from tests.e2e.test_replay import is_png, margin

WEIGHTS = tuple(field.name for field in fields(Policy))


def number(digits: np.ndarray) -> int:
    """Returns the number of these digits, from the last to the first, without blanks."""
    return sum(int(digit) * 10**place for place, digit in enumerate(digits) if digit != BLANK)


# ------------------------------------------------------------------------------------------------ the tasks


def test_answers_are_sums() -> None:
    """The answer is the sum, in one place more than the numbers have."""
    sums = draw_sums(np.random.default_rng(0), 500, 12)
    for left, right, answer, length in zip(sums.left, sums.right, sums.answer, sums.lengths, strict=True):
        assert number(left) + number(right) == number(answer[: length + 1])
        assert (left[:length] < 10).all()
        assert (left[length:] == BLANK).all()
        assert (right[length:] == BLANK).all()
    assert set(sums.lengths) == set(range(1, 13))


def test_the_text_asks_for_the_sum() -> None:
    """The text has the numbers as people write them, leading zeros included, so that it shows their length."""
    sums = add(np.array([[5, 2, 1]], np.int8), np.array([[7, 0, 0]], np.int8), np.array([3]))
    assert sums.texts == ["What is 125 + 007?"]


def test_a_carry_goes_all_the_way() -> None:
    """999 + 001 is 1000."""
    sums = add(np.full((1, 3), 9, np.int8), np.array([[1, 0, 0]], np.int8), np.array([3]))
    assert sums.answer.tolist() == [[0, 0, 0, 1]]


# ------------------------------------------------------------------------------------------------ the policy


def double(policy: Policy) -> Policy:
    return Policy(*(getattr(policy, name).astype(np.float64) for name in WEIGHTS))


def test_pass_rates_are_probabilities_of_answers() -> None:
    """Over all answers of two digits, the probabilities add up to 1."""
    policy = double(initial_policy(np.random.default_rng(0), 8))
    one = add(np.full((100, 1), 7, np.int8), np.full((100, 1), 5, np.int8), np.ones(100, np.int64))
    everything = np.stack([np.arange(100) % 10, np.arange(100) // 10], axis=1).astype(np.int8)
    assert pass_rates(policy, replace(one, answer=everything)).sum() == pytest.approx(1, rel=1e-12)


def test_rollouts_succeed_at_the_pass_rates() -> None:
    """The successes of each task are binomial with its exact pass rate."""
    rng = np.random.default_rng(1)
    sums = draw_sums(rng, 30, 2)
    policy = pretrain(rng, initial_policy(rng, 32), sums, steps=150, batch=16, noise=0.3, learning_rate=1.0)
    rates = pass_rates(policy, sums)
    rollouts = 20_000
    successes = roll_out(rng, policy, sums, rollouts).successes
    # Hoeffding, two sides, 30 tasks: in all below 1e-9.
    assert (np.abs(successes / rollouts - rates) < math.sqrt(math.log(2 * 30e9) / (2 * rollouts))).all()
    assert rates.max() > 0.2


# ------------------------------------------------------------------------------------------------ GRPO


def test_advantages_are_rewards_in_standard_deviations_of_their_group() -> None:
    """Each group has mean 0 and standard deviation 1; one without spread has none."""
    third = 1 / math.sqrt(3)
    expected = [[1, -1, 1, -1], [math.sqrt(3), -third, -third, -third], [0, 0, 0, 0], [0, 0, 0, 0]]
    rewards = [[1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert advantages(rewards) == pytest.approx(np.array(expected, dtype=float), rel=1e-12)


def sampled(policy: Policy) -> Rollouts:
    """Returns rollouts of four tasks, of which two have both right and wrong answers, whatever was written."""
    rollouts = roll_out(np.random.default_rng(2), policy, draw_sums(np.random.default_rng(3), 4, 3), 4)
    correct = np.array([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    return replace(rollouts, correct=correct)


def surrogate(policy: Policy, rollouts: Rollouts) -> float:
    """Returns the mean over rollouts of advantage * log p(what was written), the plain way."""
    advantage = advantages(rollouts.correct).ravel()
    total = 0.0
    for each, written in enumerate(rollouts.written):
        sums = rollouts.sums.take(np.array([each]))
        digits = written[None]
        inputs = seen(sums.left, sums.right, digits)[sums.used]
        chosen = log_probabilities(policy, inputs)[np.arange(len(inputs)), digits[sums.used]]
        total += advantage[each] * chosen.sum()
    return total / len(advantage)


def test_the_gradient_is_that_of_the_surrogate() -> None:
    """The gradient equals central differences of the mean of advantage * log-probability in every weight."""
    policy = double(initial_policy(np.random.default_rng(4), 4))
    rollouts = sampled(policy)
    exact = grpo_gradient(policy, rollouts)
    width = 1e-6
    for name in WEIGHTS:
        values = getattr(policy, name)
        differences = np.empty_like(values)
        for place in np.ndindex(values.shape):
            aside = [values.copy(), values.copy()]
            aside[0][place] -= width
            aside[1][place] += width
            below, above = (surrogate(replace(policy, **{name: moved}), rollouts) for moved in aside)
            differences[place] = (above - below) / (2 * width)
        # Error of a central difference: width^2, and rounding of 1e-16 / width.
        assert getattr(exact, name) == pytest.approx(differences, abs=1e-8)
        assert np.abs(getattr(exact, name)).max() > 1e-3


def test_groups_without_spread_teach_nothing() -> None:
    """If every task is always or never solved, the gradient is zero."""
    policy = initial_policy(np.random.default_rng(5), 4)
    rollouts = replace(sampled(policy), correct=np.repeat([[True], [False], [True], [False]], 4, axis=1))
    assert all((getattr(grpo_gradient(policy, rollouts), name) == 0).all() for name in WEIGHTS)


def test_ascending_follows_the_running_mean() -> None:
    """A step goes along 0.9 of the momentum before and 0.1 of the gradient."""
    rng = np.random.default_rng(6)
    policy = double(initial_policy(rng, 2))
    ones = Policy(*(np.ones_like(getattr(policy, name)) for name in WEIGHTS))
    twice = learner(policy).ascend(ones, 0.5).ascend(ones, 0.5)
    assert twice.momentum.outer == pytest.approx(0.19)
    assert twice.policy.outer == pytest.approx(policy.outer + 0.5 * (0.1 + 0.19))


# ------------------------------------------------------------------------------------------------ the figures


def traces(*accuracies: tuple[list[float], list[float]]) -> list[dict[Arm, Trace]]:
    """Returns traces with the held-out accuracies of the uniform arm, and of both others, for each seed."""
    rest = (np.array([0.0, 0.5]), np.array([[7, 8], [8, 9]]), np.array([[1, 1], [1, 2]]))
    return [
        {arm: Trace(np.array(uniform if arm == "uniform" else selected), *rest) for arm in ARMS}
        for uniform, selected in accuracies
    ]


def test_steps_are_counted_to_the_final_accuracy_of_the_uniform_arm() -> None:
    """Each seed counts to the first measured step at its own uniform arm's final accuracy, or all steps."""
    setting = replace(Setting(), steps=25)
    assert setting.measured.tolist() == [0, 10, 20, 25]
    reached = traces(([0, 0.1, 0.25, 0.5], [0, 0.5, 0.5, 0.75]), ([0, 0.1, 0.25, 0.5], [0, 0.1, 0.5, 0.5]))
    never = traces(([0, 0.1, 0.2, 0.5], [0, 0.1, 0.2, 0.25]))
    assert steps_to(reached[0]["uniform"], 0.5, setting) == 25
    assert math.isnan(steps_to(never[0]["item_response"], 0.5, setting))
    row = outcome(reached, "item_response", setting)
    assert (row.steps.mean, row.steps.error, row.missed) == (15, 5, 0)
    row = outcome(reached + never, "item_response", setting)
    assert row.steps.mean == pytest.approx(55 / 3)
    assert row.missed == 1
    assert (row.accuracy.mean, row.gain.mean) == (0.5, 0.0)
    assert (row.ratio.mean, row.distinct.mean) == (0.25, 3)


def test_only_interpolation_spends_rollouts_on_references() -> None:
    """Two references roll out every task."""
    setting = replace(Setting(), tasks=10, reference_rollouts=4)
    assert [setting.reference_cost(arm) for arm in ARMS] == [0, 80, 0]


def test_an_estimate_has_an_error_from_two_seeds_on() -> None:
    """The error is the standard deviation over sqrt(seeds); NaN are left out, and nothing is a dash."""
    assert str(estimate([0.25, 0.75])) == "0.500 ± 0.250"
    assert str(estimate([100.0, math.nan, 300.0])) == "200 ± 100"
    assert str(estimate([1.0])) == "1.000"
    assert str(estimate([math.nan])) == "-"


def test_selected_lengths_are_shares() -> None:
    """Each column of the heat map is the share of the selected tasks by digits."""
    setting = replace(Setting(), steps=2, longest=3)
    shares = selected_lengths(traces(([0], [0])), "item_response", setting)
    assert shares.tolist() == [[0.75], [0.25], [0.0]]


# ------------------------------------------------------------------------------------------------ through a server


# Fewer evaluations than tasks, and a start that solves enough tasks to find more of them.
SMALL = Setting(
    tasks=3000, held_out=100, hidden=128, weak_steps=600, strong_steps=300, weak_noise=0.25, steps=60, batch=48
)


def test_selected_tasks_are_effective_more_often(redis_url: str) -> None:
    """From the same start, both models select tasks that are effective more often than a shuffled epoch's."""
    problem = prepare(SMALL, 0)
    with serving(redis_url) as service, bots.Client(service.address, timeout=20, strict=True) as client:
        done = {
            arm: train(problem, SMALL, start_run(client, f"sums-{arm}", arm, problem), 0, lambda: None) for arm in ARMS
        }
    uniform = done["uniform"]
    assert np.unique(uniform.tasks).size == uniform.tasks.size
    for arm in ("interpolation", "item_response"):
        selected = done[arm]
        assert selected.accuracy[0] == uniform.accuracy[0]
        # If they were effective no more often, such a difference would have a probability below 2e-9. A task's place in
        # a permutation moves another one, so the margin of an epoch is twice as wide (McDiarmid).
        assert selected.ratio.mean() > uniform.ratio.mean() + 3 * margin(SMALL.steps * SMALL.batch)
        assert selected.accuracy[-1] > 2 * selected.accuracy[0]
        assert len(selected.accuracy) == len(SMALL.measured)
        assert selected.tasks.shape == (SMALL.steps, SMALL.batch)
        assert (selected.lengths == problem.tasks.lengths[selected.tasks]).all()


TINY = replace(SMALL, tasks=40, held_out=20, hidden=8, weak_steps=3, strong_steps=3, steps=3, batch=4)


def test_seeds_train_in_processes_of_their_own(redis_url: str) -> None:
    """Every seed trains all arms in its process, each step is reported, and no process is left."""
    steps: list[Arm] = []
    with serving(redis_url) as service:
        done = train_seeds(service.address, "sums-", [0, 1], TINY, steps.append)
    assert sorted(steps) == [arm for arm in sorted(ARMS) for _ in range(6)]
    assert [set(each) for each in done] == [set(ARMS), set(ARMS)]
    alone = prepare(TINY, 1)
    for arm in ARMS:
        assert done[1][arm].accuracy[0] == pytest.approx(pass_rates(alone.start, alone.held_out).mean(), rel=1e-5)
    assert multiprocessing.active_children() == []


def test_an_error_of_the_service_ends_all_seeds(redis_url: str) -> None:
    """If a seed is refused, all are ended and the error is the service's."""
    setting = replace(TINY, steps=1000)
    with serving(redis_url) as service, pytest.raises(bots.InvalidArgumentError, match="name"):
        train_seeds(service.address, "Not A Name ", [0, 1], setting, lambda arm: None)
    assert multiprocessing.active_children() == []


def test_demo_needs_nothing(tmp_path: Path) -> None:
    """Without a server given, the command starts its own, prints all arms and writes the picture."""
    picture = tmp_path / "new" / "demo.png"
    done = command("demo", "--seeds", 1, "--steps", 12, "--out", picture)
    assert done.returncode == 0, done.stderr
    for word in (*ARMS, "held-out accuracy", "rollouts spent on references", "distinct tasks", "bots replay"):
        assert word in done.stdout
    assert is_png(picture)


def test_without_scikit_learn_the_demo_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without scikit-learn the demo stops before it starts anything."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape("pip install 'bots-client[cli,features]'")):
        demo(picture=tmp_path / "demo.png")


def test_demo_leaves_nothing_on_a_server(tmp_path: Path, redis_url: str) -> None:
    """On a given server it deletes the datasets that it made."""
    with serving(redis_url) as service, bots.Client(service.address) as client:
        done = command("demo", "--server", service.address, "--seeds", 1, "--steps", 2, "--out", tmp_path / "d.png")
        assert done.returncode == 0, done.stderr
        assert list(client.list_datasets()) == []
