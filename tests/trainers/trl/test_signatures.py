"""The methods that the adapter overrides, in releases that are downloaded and read, not imported (`make trainers`)."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def source(package: str, version: str, module: str, folder: Path) -> str:
    """Returns the text of a module of a release; the newest if the version is empty."""
    wanted = f"{package}=={version}" if version else package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{package}/{module}").decode()


def signatures(text: str, owner: str) -> dict[str, list[str]]:
    """Returns the names of the parameters of a class's methods."""
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == owner)
    functions = [node for node in found.body if isinstance(node, ast.FunctionDef)]
    return {function.name: [argument.arg for argument in function.args.args] for function in functions}


@pytest.mark.parametrize("version", ["0.24.0", "1.0.0", "1.9.0", ""])
@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_trl_has_the_methods_that_are_overridden(tmp_path: Path, version: str, kind: str) -> None:
    text = source("trl", version, f"trainer/{kind.lower()}_trainer.py", tmp_path)
    found = signatures(text, f"{kind}Trainer")
    assert {name: found[name] for name in TRL} == TRL
    assert [name for name in READ if name not in text] == []
    assert "gather(rewards_per_func)" in text


@pytest.mark.parametrize("version", ["4.57.0", ""])
def test_transformers_has_the_methods_that_are_overridden(tmp_path: Path, version: str) -> None:
    found = signatures(source("transformers", version, "trainer.py", tmp_path), "Trainer")
    assert {name: found[name] for name in TRANSFORMERS} == TRANSFORMERS
