"""The methods that the adapter overrides, in releases that are downloaded and read, not imported (`make trainers`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainers.wheels import signatures, source

pytest.importorskip("trl", reason="run by make trainers")

SELF = "self"
TRL = {
    "_generate_and_score_completions": [SELF, "inputs"],
    "_calculate_rewards": [SELF, "inputs", "prompts", "completions", "completion_ids_list"],
}
TRANSFORMERS = {
    "_save_checkpoint": [SELF, "model", "trial"],
    "_load_optimizer_and_scheduler": [SELF, "checkpoint"],
    "_get_output_dir": [SELF, "trial"],
}
# What the adapter reads of a trainer, and that rewards are gathered over ranks.
READ = ("self.num_generations", "self.reward_func_names", "self._metrics", "self.accelerator", "self.model.training")


@pytest.mark.parametrize("version", ["0.24.0", "1.0.0", "1.9.0", ""])
@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_trl_has_the_methods_that_are_overridden(tmp_path: Path, version: str, kind: str) -> None:
    text = source("trl", version, f"trl/trainer/{kind.lower()}_trainer.py", tmp_path)
    found = signatures(text, f"{kind}Trainer")
    assert {name: found[name] for name in TRL} == TRL
    assert [name for name in READ if name not in text] == []
    assert "gather(rewards_per_func)" in text


@pytest.mark.parametrize("version", ["4.57.0", ""])
def test_transformers_has_the_methods_that_are_overridden(tmp_path: Path, version: str) -> None:
    found = signatures(source("transformers", version, "transformers/trainer.py", tmp_path), "Trainer")
    assert {name: found[name] for name in TRANSFORMERS} == TRANSFORMERS
