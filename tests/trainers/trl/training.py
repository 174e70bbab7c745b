"""Trains a tiny Llama on sums with TRL, as a user would, and writes what happened as JSON.

python -m tests.trainers.trl.training '{"address": ..., "output": ..., ...}'
torchrun --nproc_per_node 2 -m tests.trainers.trl.training '{...}'
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import bots
from bots.trainers import create_dataset
from bots.trainers.trl import bots_trainer

CHARACTERS = "0123456789+= "
ROWS = [{"prompt": f"{a}+{b}=", "answer": str((a + b) % 10)} for a in range(6) for b in range(6)]


def tokenizer() -> Any:
    """Returns a tokenizer of characters."""
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def model() -> Any:
    """Returns a Llama of some ten thousand parameters."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(CHARACTERS) + 3,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def config(kind: str, output: str, **settings: Any) -> Any:
    """Returns settings of a short training without files of its own."""
    defaults = {
        "output_dir": output,
        "max_steps": 4,
        "per_device_train_batch_size": 12,
        "num_generations": 4,
        "max_completion_length": 2,
        "learning_rate": 1e-3,
        "beta": 0.0,  # RLOO loads its reference by name
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    made = getattr(trl, f"{kind}Config")
    fields = {field.name for field in dataclasses.fields(made)}  # num_generations_eval is not in every version
    return made(**{name: value for name, value in (defaults | settings).items() if name in fields})


def trainer_of(
    run: bots.Run,
    output: str,
    *,
    kind: str = "GRPO",
    reward_funcs: Any = None,
    rows: Any = None,
    evaluation: bool = False,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Returns the adapted trainer."""
    made = bots_trainer(getattr(trl, f"{kind}Trainer"), run=run, **options)
    dataset = Dataset.from_list(ROWS) if rows is None else rows
    return made(
        model=model(),
        reward_funcs=reward_funcs or solved,
        args=config(kind, output, **(settings or {})),
        train_dataset=dataset,
        eval_dataset=Dataset.from_list(ROWS[:2]) if evaluation else None,
        processing_class=tokenizer(),
    )


def solved(prompts: list[str], completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """Returns 1 if the parity of the first digit is right: half the guesses are."""
    return [
        float(text[:1].isdigit() and int(text[0]) % 2 == int(right) % 2)
        for text, right in zip(completions, answer, strict=True)
    ]


def watched(run: bots.Run, calls: list[dict[str, Any]], die_at: int | None = None) -> None:
    """Notes every selection and report of a run, with the time it took; kills the process at a selection."""

    def note(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noted(*args: Any, **keywords: Any) -> Any:
            if name == "select" and die_at == keywords.get("policy_step"):
                os.kill(os.getpid(), 9)
            began = time.monotonic()
            answer = call(*args, **keywords)
            entry = {"call": name, "seconds": time.monotonic() - began, "step": keywords.get("policy_step")}
            if name == "select":
                entry |= {"version": answer.version, "tasks": answer.tasks.tolist(), "fallback": answer.fallback}
            calls.append(entry)
            return answer

        return noted

    run.select = note("select", run.select)  # type: ignore[method-assign]
    run.load_state_dict = note("load", run.load_state_dict)  # type: ignore[method-assign]


def main(given: dict[str, Any]) -> None:
    """Trains, and writes {calls, versions, rewards} of this rank to `result`-RANK.json."""
    torch.set_num_threads(1)
    address, output = given.pop("address"), given.pop("output")
    resume, die_at, result = given.pop("resume", False), given.pop("die_at", None), given.pop("result")
    client = bots.Client(address, job="trl", timeout=given.pop("timeout", 20.0))
    create_dataset(client, "sums", ROWS, dimensions=0)
    run = client.create_run("sums", "r")
    calls: list[dict[str, Any]] = []
    watched(run, calls, die_at)
    rows = Dataset.from_list(given.pop("rows")) if "rows" in given else None
    trainer = trainer_of(run, output, rows=rows, **given)
    trainer.train(resume_from_checkpoint=resume)
    written = {
        "calls": calls,
        "selections": run.stats.selections,
        "version": run.version,
        "steps": trainer.state.global_step,
    }
    Path(f"{result}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(written))
    client.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
