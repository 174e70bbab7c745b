"""The policy and its learning. Skipped without torch: `make finetune` has it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.finetune.learning import (  # noqa: E402
    Group,
    advantages,
    answer_logits,
    encoded,
    evaluate,
    grpo_loss,
    log_chances,
    roll_out,
)
from tests.finetune.model import Policy  # noqa: E402
from tests.finetune.tasks import LONGEST_ANSWER, PAD, Task, draw_distinct, encode  # noqa: E402

TASKS = draw_distinct(np.random.default_rng(0), 60)


@pytest.fixture
def policy() -> Policy:
    """A policy with random weights, large enough that its answers differ."""
    torch.manual_seed(0)
    policy = Policy()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return policy


def test_padding_changes_nothing(policy: Policy) -> None:
    """A question has the same logits with any padding before it, up to rounding."""
    texts = ["12+34=", "sort 31="]
    for text in texts:
        alone, padded = (torch.from_numpy(encode([text], length, left=True)) for length in (len(text), 16))
        without, _ = policy(alone, alone != PAD)
        with_padding, _ = policy(padded, padded != PAD)
        torch.testing.assert_close(with_padding[:, -1], without[:, -1], rtol=1e-4, atol=1e-4)


def test_cache_changes_nothing(policy: Policy) -> None:
    """Answers have the same chances if their question is computed once for all of them."""
    questions, _ = encoded(TASKS[:3])
    written = torch.from_numpy(encode(["12", "34567", "a", "bb", "", "zzz"], LONGEST_ANSWER, left=False))
    once = log_chances(answer_logits(policy, questions, written, 2), written)
    each = log_chances(answer_logits(policy, questions.repeat_interleave(2, 0), written), written)
    torch.testing.assert_close(once, each, rtol=1e-4, atol=1e-4)


def test_evaluation_is_exact(policy: Policy) -> None:
    """Rollouts are right as often as `evaluate` says, within Hoeffding's bound for 4,000 rollouts and 1e-9."""
    task = Task("1+1=", "", "add", 1)  # the empty answer is not rare with random weights
    expected = evaluate(policy, [task]).sampled[0]
    (group,) = roll_out(policy, [task], 4000, torch.Generator().manual_seed(0))
    assert abs(group.rewards.mean() - expected) < np.sqrt(np.log(2 / 1e-9) / (2 * 4000))


def test_evaluation_keeps_the_order_of_the_tasks(policy: Policy) -> None:
    """Tasks are evaluated in chunks by length; each has the pass rate that it has alone."""
    together = evaluate(policy, TASKS).sampled
    alone = [evaluate(policy, [task]).sampled[0] for task in TASKS]
    np.testing.assert_allclose(together, alone, rtol=1e-3)


def test_equal_generators_write_equal_answers(policy: Policy) -> None:
    """Rollouts depend on the policy, the tasks and the generator alone."""
    one, same = (roll_out(policy, TASKS[:4], 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert all((a.written == b.written).all() for a, b in zip(one, same, strict=True))


def test_advantages_are_zero_if_rewards_are_equal() -> None:
    """One right answer of four: (1 - 1/4) / (1/2 + 1e-4)."""
    assert advantages([1, 1, 1]).tolist() == [0, 0, 0]
    assert advantages([1, 0, 0, 0])[0] == pytest.approx(0.75 / (0.5 + 1e-4))


def test_loss_of_groups_without_advantage_is_left_out_exactly(policy: Policy) -> None:
    """The gradient is that of the mean over all rollouts, computed one rollout at a time."""
    groups = [
        Group(group.question, group.written, rewards)
        for group, rewards in zip(
            roll_out(policy, TASKS[:3], 4, torch.Generator().manual_seed(1)),
            (np.array([1.0, 0, 0, 1]), np.zeros(4), np.array([0.0, 0, 1, 0])),
            strict=True,
        )
    ]
    total = 0.0
    for group in groups:
        question = torch.from_numpy(encode([group.question], 16, left=True))
        for codes, advantage in zip(group.written, advantages(group.rewards), strict=True):
            written = torch.from_numpy(codes[None])
            chances = log_chances(answer_logits(policy, question, written), written)
            total = total - float(advantage) * chances.sum() / int((written != PAD).sum()) / 12
    torch.testing.assert_close(grpo_loss(policy, groups), total, rtol=1e-4, atol=1e-5)
