"""`bots replay`: reads the options, plays the arms, prints the table, draws the picture."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bots.cli.console import out, say
from bots.cli.private_server import server_at
from bots.client import Client
from bots.replay.figures import figures
from bots.replay.simulation import ARMS, Arm, Setting, Trace, play, start, true_capability
from bots.replay.table import Rates, policy_at, read, squeeze


def replay(
    table: Annotated[Path, typer.Argument(help="Tasks x models, weakest to strongest: CSV, Parquet or JSON lines.")],
    weak: Annotated[str, typer.Option(help="Weak reference: a model's name or place (1: the weakest).")] = "5",
    strong: Annotated[str, typer.Option(help="Strong reference: a model's name or place (-1: the strongest).")] = "-5",
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks selected in a step.")] = 16,
    rollouts: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rollouts of each selected task.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps, from the weakest model to the strongest.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of every arm.")] = 5,
    forgetting: Annotated[float, typer.Option(help="Share of the evidence forgotten in an update, in [0, 1).")] = 0.1,
    implicit_weight: Annotated[float, typer.Option(help="Weight of the implicit evidence, in [0, 1].")] = 0.1,
    target: Annotated[float, typer.Option(help="The pass rate to select near, in [0, 1].")] = 0.5,
    margin: Annotated[
        float,
        typer.Option("--squeeze", min=0, max=0.49, help="Rollouts meet pass rates squeezed by so much from both ends."),
    ] = 0.02,
    server: Annotated[
        str | None, typer.Option(help="Play through this server; else through a private one.", show_default=False)
    ] = None,
    picture: Annotated[Path, typer.Option("--out", help="Where to write the picture (PNG).")] = Path("out/replay.png"),
) -> None:
    """Plays the method on a table of real pass rates: uniform, explicit evidence only, BOTS, an oracle that knows them.

    The ordered models serve as checkpoints of a policy that grows. References are the table's own rates.
    """
    rates = read(table)
    weak_place, strong_place = rates.place(weak), rates.place(strong)
    weak_rates, strong_rates = rates.rates[:, weak_place], rates.rates[:, strong_place]
    if not weak_rates.mean() < strong_rates.mean():
        raise ValueError(f"strong: {strong}, must solve more than weak: {weak}; models go from weakest to strongest")
    if batch > len(rates):
        raise ValueError(f"batch: {batch}, must be at most the {len(rates)} tasks of the table")
    setting = Setting(
        batch=batch,
        rollouts=rollouts,
        steps=steps,
        target=target,
        forgetting=forgetting,
        implicit_weight=implicit_weight,
    )
    say(f"{len(rates):,} tasks; policy: {rates.models[0]} to {rates.models[-1]} ({len(rates.models)} models)")
    say(f"references: {rates.models[weak_place]} (weak) and {rates.models[strong_place]} (strong)")
    met = squeeze(rates.rates, margin)
    with server_at(server) as address, Client(address, timeout=20, job="replay") as client:
        traces = _play_all(client, met, weak_rates, strong_rates, setting, seeds)
    _show(traces)
    # Imported late: matplotlib takes as long as all the rest of the command.
    from bots.replay.plots import draw

    truth = np.array([policy_at(met, step, steps).mean() for step in setting.looks])
    draw(picture, traces, truth, true_capability(met, weak_rates, strong_rates, setting), setting)
    say(f"picture: {picture}")


def _play_all(
    client: Client, met: Rates, weak: Rates, strong: Rates, setting: Setting, seeds: int
) -> dict[Arm, list[Trace]]:
    """Returns the traces of all arms, one for each seed; leaves nothing on the server."""
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    traces: dict[Arm, list[Trace]] = {}
    dataset = f"replay-{secrets.token_hex(4)}"
    client.create_dataset(dataset, weak=weak, strong=strong)
    try:
        with Progress(*columns, console=out) as progress:
            bars = {arm: progress.add_task(arm, total=seeds * setting.steps) for arm in ARMS}
            for arm, bar in bars.items():
                runs = [start(client, dataset, arm, setting, seed) for seed in range(seeds)]
                advance = partial(progress.advance, bar)
                traces[arm] = [play(met, setting, run, seed, advance) for seed, run in enumerate(runs)]
    finally:
        client.delete_dataset(dataset, delete_runs=True)
    return traces


def _show(traces: Mapping[Arm, Sequence[Trace]]) -> None:
    table = Table(
        header_style="bold", caption="posterior mean against the true pass rates of all tasks: error, correlation"
    )
    table.add_column("arm")
    for column in ("effective task ratio", "standard error", "mean absolute error", "correlation"):
        table.add_column(column, justify="right")
    for arm, of_arm in traces.items():
        row = figures(of_arm)
        table.add_row(
            arm,
            *("-" if np.isnan(value) else f"{value:.3f}" for value in (row.ratio, row.ratio_error)),
            *("-" if np.isnan(value) else f"{value:.3f}" for value in (row.absolute_error, row.correlation)),
        )
    out.print(table)
