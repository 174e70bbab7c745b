"""`bots demo`: trains the arms, prints the table, draws the picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bots.cli.console import out, say
from bots.cli.private_server import server_at
from bots.demo.outcome import Traces, outcome
from bots.demo.seeds import train_seeds
from bots.demo.training import ARMS, Arm, Setting, Trace
from bots.replay.scratch import scratch_datasets

ABOUT: Mapping[Arm, str] = {
    "uniform": "every task once an epoch, in random order, as a data loader does",
    "interpolation": "selected by the service, from the pass rates of two reference policies",
    "item_response": "selected by the service, from the text of the sums; no reference policies",
}


def demo(
    seeds: Annotated[int, typer.Option(min=1, max=64, help="Repetitions, a process each.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Training steps in each arm.")] = Setting.steps,
    server: Annotated[
        str | None, typer.Option(help="Select through this server; else through a private one.", show_default=False)
    ] = None,
    picture: Annotated[Path, typer.Option("--out", help="Where to write the picture (PNG).")] = Path("out/demo.png"),
) -> None:
    """Trains a small policy by GRPO on a shuffled epoch and on tasks that a real server selects.

    A two-layer network learns to add numbers of 1 to 20 digits from nothing but
    right or wrong. All arms of a seed start from the same weights and train on
    the same number of rollouts; only the selection of the tasks differs. The
    runs have default hyperparameters.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("the demo learns from text, which needs scikit-learn: pip install 'bots-client[cli,features]'")
    setting = Setting(steps=steps)
    say(f"{setting.tasks:,} sums of 1 to {setting.longest} digits to train on, {setting.held_out} held out")
    say(f"{seeds} seeds; {setting.steps} steps of {setting.batch} tasks x {setting.rollouts} rollouts in each arm:")
    for arm, about in ABOUT.items():
        say(f"  {arm:<14} {about}")
    with server_at(server) as address, scratch_datasets(address, "demo") as prefix:
        traces = _train(address, prefix, setting, seeds)
    _show(traces, setting)
    # Imported late: matplotlib takes as long as all the rest of the command.
    from bots.demo.plots import draw

    draw(picture, traces, setting)
    say(f"picture: {picture}")
    say("try next: bots replay TABLE.csv (tasks x models, weakest to strongest), on pass rates of your own")


def _train(address: str, prefix: str, setting: Setting, seeds: int) -> list[Mapping[Arm, Trace]]:
    """Returns the traces of all seeds."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        bars = {arm: progress.add_task(arm, total=seeds * setting.steps) for arm in ARMS}
        return train_seeds(address, prefix, range(seeds), setting, lambda arm: progress.advance(bars[arm]))


def _show(traces: Traces, setting: Setting) -> None:
    table = Table(header_style="bold", caption=f"mean ± standard error over {len(traces)} seeds")
    table.add_column("")
    rows = {arm: outcome(traces, arm, setting) for arm in ARMS}
    for arm in ARMS:
        table.add_column(arm, justify="right")
    for name, cells in {
        "held-out accuracy": [str(row.accuracy) for row in rows.values()],
        "  less uniform's, paired": [str(row.gain) for row in rows.values()],
        "steps to uniform's accuracy": [("at least " if row.missed else "") + str(row.steps) for row in rows.values()],
        "training rollouts": [f"{setting.budget:,}" for _ in rows],
        "rollouts spent on references": [f"{setting.reference_cost(arm):,}" for arm in rows],
        "effective task ratio": [str(row.ratio) for row in rows.values()],
        f"distinct tasks of {setting.tasks:,}": [str(row.distinct) for row in rows.values()],
    }.items():
        table.add_row(name, *cells)
    out.print(table)
    before = np.mean([each["uniform"].accuracy[0] for each in traces])
    say(f"held-out accuracy before training: {before:.3f}")
    for arm, row in rows.items():
        if row.missed:
            say(f"{arm}: {row.missed} of {len(traces)} seeds did not reach uniform's accuracy; they count as all steps")
