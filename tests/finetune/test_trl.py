"""TRL's trainer computes what the loop of the benchmark does. Skipped without TRL: `make finetune` has it."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from datasets import Dataset
    from trl import GRPOTrainer

    from tests.finetune import trl_arm

from tests.finetune.learning import Group, advantages, grpo_loss  # noqa: E402
from tests.finetune.model import Policy  # noqa: E402
from tests.finetune.setting import Setting  # noqa: E402
from tests.finetune.start import load  # noqa: E402
from tests.finetune.tasks import PAD, draw_distinct, encode  # noqa: E402

SETTING = Setting(steps=1, batch=4, rollouts=4, learning_rate=1e-3)
TASKS = draw_distinct(np.random.default_rng(0), 60)


@pytest.fixture
def policy() -> Policy:
    """A policy with random weights."""
    torch.manual_seed(0)
    return Policy()


def test_llama_has_the_same_logits(policy: Policy) -> None:
    """transformers' Llama with the same weights has the same logits, padding included, and gives the weights back."""
    model = trl_arm.llama(policy.state_dict()).eval()
    codes = torch.from_numpy(encode([task.question for task in TASKS[:8]], 16, left=True))
    present = codes != PAD
    places = (present.cumsum(-1) - 1).clamp(min=0)
    theirs = model(input_ids=codes, attention_mask=present.long(), position_ids=places).logits
    torch.testing.assert_close(theirs[:, -1], policy(codes, present)[0][:, -1], rtol=1e-4, atol=1e-4)
    for name, weight in trl_arm.weights_of(model).items():
        assert torch.equal(weight, policy.state_dict()[name]), name


def test_tokenizer_has_the_same_codes() -> None:
    """The tokenizer of TRL's arm writes the codes of `tests.finetune.tasks`."""
    found = trl_arm.tokenizer()([task.question for task in TASKS], padding="max_length", max_length=16)["input_ids"]
    assert (np.array(found) == encode([task.question for task in TASKS], 16, left=True)).all()


def test_equal_rollouts_have_equal_advantages_and_gradients(policy: Policy, tmp_path: Path) -> None:
    """For the rollouts that TRL draws in its first step, the loop has the same advantages and the same gradient."""
    seen: dict[str, Any] = {}

    class Watched(GRPOTrainer):  # type: ignore[misc] # mypy runs without trl
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            outputs = super()._generate_and_score_completions(inputs)
            seen.update(outputs, questions=[row["prompt"] for row in inputs])
            return outputs

    def parity(completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Half of the rewards are 1, whatever is written."""
        return [float(sum(codes) % 2) for codes in completion_ids]

    rows = [{"prompt": task.question, "answer": task.answer} for task in TASKS]
    args = trl_arm.config(SETTING, 0, str(tmp_path))
    args.generation_kwargs = {"suppress_tokens": [PAD]}  # random weights would write padding
    trainer = Watched(
        model=trl_arm.llama(policy.state_dict()),
        reward_funcs=parity,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=trl_arm.tokenizer(),
    )
    trainer.train()
    codes = (seen["completion_ids"] * seen["completion_mask"]).numpy().reshape(4, 4, -1)
    rewards = (codes.sum(-1) % 2).astype(float)
    groups = [
        Group(seen["questions"][4 * place], written, row)
        for place, (written, row) in enumerate(zip(codes, rewards, strict=True))
    ]
    assert any(group.effective for group in groups)
    ours = np.concatenate([advantages(group.rewards) for group in groups])
    np.testing.assert_allclose(seen["advantages"].numpy(), ours, atol=1e-5)

    learned = load(policy.state_dict())
    grpo_loss(learned, groups).backward()
    torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
    taken = trl_arm.llama(policy.state_dict())
    with torch.no_grad():
        for parameter, stepped in zip(taken.parameters(), trainer.model.parameters(), strict=True):
            parameter.copy_(trainer.optimizer.state[stepped]["exp_avg"] / 0.1)  # of the first step: the gradient
    gradients = trl_arm.weights_of(taken)
    for name, parameter in learned.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
