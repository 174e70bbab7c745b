"""Adapters for trainers: one module a trainer, which needs that trainer only when it is used.

    from bots.trainers import create_dataset
    from bots.trainers.trl import bots_trainer

    client = bots.Client("localhost:50051", job="qwen-7b")
    create_dataset(client, "guru-math", dataset, text="prompt")
    run = client.create_run("guru-math", "qwen-7b", model="item_response")
    trainer = bots_trainer(GRPOTrainer, run=run)(model=..., reward_funcs=..., train_dataset=dataset)

Each adapter knows a task by its id, which is a column of the trainer's dataset or a digest of the prompt, so that no
task is taken for another if the dataset is shuffled or filtered. client/TRAINERS.md has a section for each trainer.
"""

from bots.trainers.marks import batch_of, marks
from bots.trainers.tasks import Identity, TaskRows, create_dataset

__all__ = ["Identity", "TaskRows", "batch_of", "create_dataset", "marks"]
