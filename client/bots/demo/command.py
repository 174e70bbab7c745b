"""`bots demo`: trains the arms, prints the table, draws the picture."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bots.cli.console import out, say
from bots.cli.private_server import server_at
from bots.client import Client
from bots.demo.outcome import gain, outcome
from bots.demo.seeds import train_seeds
from bots.demo.training import ARMS, Arm, Setting, Trace


def demo(
    seeds: Annotated[int, typer.Option(min=1, max=64, help="Repetitions, a process each.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Training steps in each arm.")] = Setting.steps,
    server: Annotated[
        str | None, typer.Option(help="Select through this server; else through a private one.", show_default=False)
    ] = None,
    picture: Annotated[Path, typer.Option("--out", help="Where to write the picture (PNG).")] = Path("out/demo.png"),
) -> None:
    """Trains a small policy by GRPO, with uniform and with selected tasks, through a real server.

    A two-layer network learns to add numbers of 1 to 20 digits from nothing but right or wrong. Both arms of a seed
    start from the same weights and get the same number of rollouts; only who selects the tasks differs.
    """
    setting = Setting(steps=steps)
    say(f"{setting.tasks:,} sums of 1 to {setting.longest} digits to train on, {setting.held_out} held out")
    say(f"{seeds} seeds; {setting.steps} steps of {setting.batch} tasks x {setting.rollouts} rollouts in each arm")
    with server_at(server) as address:
        traces = _train(address, setting, seeds)
    _show(traces, setting)
    # Imported late: matplotlib takes as long as all the rest of the command.
    from bots.demo.plots import draw

    draw(picture, traces, setting)
    say(f"picture: {picture}")
    say("try next: bots replay TABLE.csv (tasks x models, weakest to strongest), the method on your own pass rates")


def _train(address: str, setting: Setting, seeds: int) -> list[Mapping[Arm, Trace]]:
    """Returns the traces of all seeds; leaves nothing on the server."""
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    datasets = [f"demo-{secrets.token_hex(4)}-{seed}" for seed in range(seeds)]
    with Progress(*columns, console=out) as progress:
        bars = {arm: progress.add_task(arm, total=seeds * setting.steps) for arm in ARMS}
        try:
            return train_seeds(address, datasets, setting, lambda arm: progress.advance(bars[arm]))
        finally:
            with Client(address, timeout=20) as client:
                made = {dataset.name for dataset in client.list_datasets()}
                for dataset in made.intersection(datasets):
                    client.delete_dataset(dataset, delete_runs=True)


def _show(traces: Sequence[Mapping[Arm, Trace]], setting: Setting) -> None:
    table = Table(header_style="bold", caption=f"mean ± standard error over {len(traces)} seeds")
    table.add_column("arm")
    for column in ("effective task ratio", "held-out accuracy", "steps to uniform's final accuracy"):
        table.add_column(column, justify="right")
    for arm in ARMS:
        row = outcome(traces, arm, setting)
        missed = "" if row.reached == row.seeds else f" (in {row.reached} of {row.seeds} seeds)"
        table.add_row(arm, str(row.ratio), str(row.accuracy), f"{row.steps}{missed}" if row.reached else "never")
    out.print(table)
    before = np.mean([each["uniform"].accuracy[0] for each in traces])
    say(f"held-out accuracy before training {before:.3f}; BOTS less uniform, seed by seed, {gain(traces)}")
    say(f"each arm trained on {setting.budget:,} rollouts; reference pass rates cost {setting.reference_cost:,} more,")
    say(f"once for a dataset: {setting.reference_rollouts} a task by each of two pretrained policies")
