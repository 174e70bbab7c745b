"""TRL's GRPOTrainer a step at a time, with and without the adapter, for tests.trainers.measure."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOTrainer

import bots
from bots.trainers.trl import BotsMixin, bots_trainer
from tests.trainers.trl.training import config, model, solved, tokenizer


class Paced:
    """Trains a tiny Llama in a thread, a step for each permit."""

    def __init__(self, run: bots.Run, folder: Path, rows: list[dict[str, Any]], batch: int, rollouts: int) -> None:
        self._run, self._rows = run, Dataset.from_list(rows)
        self._config = config(
            "GRPO",
            str(folder / "out"),
            max_steps=100_000,
            per_device_train_batch_size=batch * rollouts,
            num_generations=rollouts,
            logging_strategy="no",
        )
        self.steps = 0
        self._start(resume=False)

    def step(self, adapted: bool) -> float:
        """Trains a step; without the adapter its methods are passed by."""
        self._trainer.adapted = adapted
        return self._permitted("train")

    def save(self) -> None:
        """Trains a step, saves a checkpoint and ends the training."""
        self._trainer.adapted = True
        self._permitted("save")
        self._thread.join()

    def resume(self) -> None:
        """Starts a trainer from the checkpoint, and trains its first step."""
        self._start(resume=True)
        self.step(True)

    def _permitted(self, permit: str) -> float:
        self._permits.put(permit)
        took = self._took.get()
        if isinstance(took, Exception):
            raise took
        self.steps += self._trainer.adapted
        return took

    def _start(self, *, resume: bool) -> None:
        permits: queue.Queue[str] = queue.Queue()
        taken: queue.Queue[float | Exception] = queue.Queue()

        class Alternating(bots_trainer(GRPOTrainer, run=self._run)):  # type: ignore[misc] # made at run time
            adapted = True

            def _generate_and_score_completions(self, inputs: Any) -> Any:
                found: Any = super() if self.adapted else super(BotsMixin, self)
                return found._generate_and_score_completions(inputs)

            def _calculate_rewards(self, *args: Any) -> Any:
                found: Any = super() if self.adapted else super(BotsMixin, self)
                return found._calculate_rewards(*args)

        class Permits(TrainerCallback):  # type: ignore[misc] # transformers is in another environment
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
                self.permit = permits.get()
                self.began = time.perf_counter()
                return control

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
                control.should_save = control.should_training_stop = self.permit == "save"
                if self.permit != "save":
                    taken.put(time.perf_counter() - self.began)
                return control

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                taken.put(time.perf_counter() - self.began)

        trainer = Alternating(
            model=model(),
            reward_funcs=solved,
            args=self._config,
            train_dataset=self._rows,
            processing_class=tokenizer(),
            callbacks=[Permits()],
        )

        def train() -> None:
            try:
                trainer.train(resume_from_checkpoint=resume)
            except Exception as error:
                taken.put(error)

        self._trainer, self._permits, self._took = trainer, permits, taken
        self._thread = threading.Thread(target=train, daemon=True)
        self._thread.start()
