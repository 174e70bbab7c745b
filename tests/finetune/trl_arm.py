"""The same training by TRL's GRPOTrainer and the adapter `bots.trainers.trl`, as a user would write it."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import bots
from bots.history import ReportEvent
from bots.trainers import create_dataset
from bots.trainers.trl import bots_trainer
from tests.finetune.measuring import SAMPLE, calibration, measure
from tests.finetune.model import Shape
from tests.finetune.setting import Arm, Setting
from tests.finetune.start import Problem, Weights, load
from tests.finetune.tasks import ALPHABET, END, LONGEST_ANSWER, PAD, decode, encode
from tests.finetune.trace import Trace

_JOINT = {
    "queries_keys_values": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_and_up": ("mlp.gate_proj", "mlp.up_proj"),
}
_SINGLE = {
    "attention_norm": "input_layernorm.weight",
    "network_norm": "post_attention_layernorm.weight",
    "attended.weight": "self_attn.o_proj.weight",
    "down.weight": "mlp.down_proj.weight",
}
_OUTSIDE = {"embedding.weight": "model.embed_tokens.weight", "norm": "model.norm.weight"}


def llama(weights: Weights) -> Any:
    """Returns transformers' model with the weights of a policy."""
    shape = Shape()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.positions,
            rms_norm_eps=shape.epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rotary_base},
            tie_word_embeddings=True,
            pad_token_id=PAD,
            eos_token_id=END,
            bos_token_id=None,
        )
    )
    state = {theirs: weights[ours] for ours, theirs in _OUTSIDE.items()}
    for layer in range(shape.layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        state |= {theirs + name: weights[ours + mine] for mine, name in _SINGLE.items()}
        for joint, names in _JOINT.items():
            parts = weights[f"{ours}{joint}.weight"].chunk(len(names))
            state |= {f"{theirs}{name}.weight": part for name, part in zip(names, parts, strict=True)}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert missing in ([], ["lm_head.weight"]), missing
    return model


def weights_of(model: Any) -> Weights:
    """Returns the weights of a policy from transformers' model: the inverse of `llama`."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    weights = {ours: state[theirs] for ours, theirs in _OUTSIDE.items()}
    for layer in range(Shape().layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        weights |= {ours + mine: state[theirs + name] for mine, name in _SINGLE.items()}
        for joint, names in _JOINT.items():
            weights[f"{ours}{joint}.weight"] = torch.cat([state[f"{theirs}{name}.weight"] for name in names])
    return weights


def tokenizer() -> Any:
    """Returns a tokenizer with the codes of `tests.finetune.tasks`."""
    vocabulary = {"<pad>": PAD, "<end>": END} | {
        character: int(encode([character], 1, left=True)[0, 0]) for character in ALPHABET
    }
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=characters, pad_token="<pad>", eos_token="<end>", unk_token="<pad>", padding_side="left"
    )


def config(setting: Setting, seed: int, folder: str) -> Any:
    """Returns TRL's settings for the training of `tests.finetune.training`."""
    return GRPOConfig(
        output_dir=folder,
        max_steps=setting.steps,
        per_device_train_batch_size=setting.batch * setting.rollouts,
        num_generations=setting.rollouts,
        max_completion_length=LONGEST_ANSWER,
        temperature=1.0,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        loss_type="grpo",
        scale_rewards="group",
        seed=seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_steps=setting.steps,
        disable_tqdm=True,
    )


def scores(completion_ids: list[list[int]], answer: list[str], **_: Any) -> list[float]:
    """Returns the verifiable reward of each completion, as `Task.score`."""
    texts = [decode(np.array([codes]))[0] for codes in completion_ids]
    return [float(text == right) for text, right in zip(texts, answer, strict=True)]


class _Measuring(TrainerCallback):  # type: ignore[misc] # mypy runs without transformers
    def __init__(self, problem: Problem, setting: Setting, run: bots.Run, rows: Any) -> None:
        self.given = problem, setting, run, rows
        self.measured: list[dict[str, Any]] = []
        self.seconds = 0.0

    def measure(self, weights: Weights, step: int) -> None:
        """Measures a policy after a number of steps."""
        problem, setting, run, rows = self.given
        if step in setting.measured:
            began = time.perf_counter()
            self.measured.append(measure(load(weights), problem, setting, step, run, rows))
            self.seconds += time.perf_counter() - began

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.measure(weights_of(model), state.global_step)


def train(client: bots.Client, dataset: str, problem: Problem, setting: Setting, arm: Arm, seed: int) -> Trace:
    """Returns the trace of one training by TRL. `predicted` is not known: the adapter does not keep it."""
    rows = [{"prompt": task.question, "answer": task.answer} for task in problem.tasks]
    create_dataset(client, dataset, rows, id="prompt")
    run = client.create_run(dataset, "policy", model=arm.model)
    place = {task.question: row for row, task in enumerate(problem.tasks)}
    ours = np.array([place[task_id] for task_id in run.task_ids()])  # of each row of the service's dataset
    theirs = np.argsort(ours)
    measuring = _Measuring(problem, setting, run, theirs[:SAMPLE])
    with tempfile.TemporaryDirectory() as folder:
        trainer = bots_trainer(GRPOTrainer, run=run, id="prompt")(
            model=llama(problem.start),
            reward_funcs=scores,
            args=config(setting, seed, folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(),
            callbacks=[measuring],
        )
        trainer.remove_callback(PrinterCallback)
        measuring.measure(problem.start, 0)
        began, before = time.perf_counter(), measuring.seconds
        trainer.train()
        seconds = time.perf_counter() - began - (measuring.seconds - before)
    reports = [event.kind for event in run.events() if isinstance(event.kind, ReportEvent)]
    tasks = ours[np.array([report.tasks for report in reports])]
    stats = run.stats
    return Trace(
        measured=setting.measured,
        tasks=tasks,
        successes=np.array([report.successes for report in reports]),
        predicted=np.full(tasks.shape, np.nan),
        calibration=calibration(run),
        select_seconds=stats.select_seconds * stats.selections,
        report_seconds=stats.report_seconds * stats.reports,
        seconds=seconds,
        **{name: np.array([each[name] for each in measuring.measured]) for name in measuring.measured[0]},
    )
