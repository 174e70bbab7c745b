"""`bots replay`: reads the options, plays the arms, prints the table, draws the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bots.cli.console import out, say
from bots.cli.private_server import server_at
from bots.client import Client
from bots.replay.figures import figures
from bots.replay.scratch import scratch_datasets
from bots.replay.simulation import ARMS, Arm, Columns, Setting, Trace, play, start
from bots.replay.table import Rates, read, squeeze


def replay(
    table: Annotated[Path, typer.Argument(help="Tasks x models, weakest to strongest: CSV, Parquet or JSON lines.")],
    weak: Annotated[str, typer.Option(help="Weak reference: a model's name or place (1: the weakest).")] = "5",
    strong: Annotated[str, typer.Option(help="Strong reference: a model's name or place (-1: the strongest).")] = "-5",
    tags: Annotated[
        str | None,
        typer.Option(help="Column with the tasks' tags; else the first whose texts repeat.", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks selected in a step.")] = 16,
    rollouts: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rollouts of each selected task.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps, from the weakest model to the strongest.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of every arm.")] = 5,
    target: Annotated[float, typer.Option(min=0, max=1, help="The pass rate to select near.")] = Setting.target,
    rest: Annotated[
        float, typer.Option(min=0, max=1, help="Share of an epoch that an evaluated task rests; 0: it never rests.")
    ] = Setting.rest,
    margin: Annotated[
        float, typer.Option("--squeeze", min=0, max=0.49, help="Map true pass rates onto [SQUEEZE, 1 - SQUEEZE].")
    ] = 0.02,
    server: Annotated[
        str | None, typer.Option(help="Play through this server; else through a private one.", show_default=False)
    ] = None,
    picture: Annotated[Path, typer.Option("--out", help="Where to write the picture (PNG).")] = Path("out/replay.png"),
) -> None:
    """Replays a table of real pass rates with both evidence models, a shuffled epoch, and an oracle.

    The ordered models serve as checkpoints of a policy that improves, two of
    them as references.

    A table does not react to training: the policy improves equally whatever is
    selected. So a replay shows how well the models predict pass rates and how
    often selected tasks are effective, not how much a policy learns from them.
    Do not tune hyperparameters on it: the best on a table can be far worse in
    training. `bots demo` trains.
    """
    rates = read(table)
    weak_place, strong_place = rates.place(weak), rates.place(strong)
    columns = Columns(len(rates), rates.rates[:, weak_place], rates.rates[:, strong_place], rates.tags(tags))
    if not columns.weak.mean() < columns.strong.mean():
        raise ValueError(
            f"strong: got {strong}, must solve more than weak ({weak}); models go from weakest to strongest"
        )
    if batch > len(rates):
        raise ValueError(f"batch: got {batch}, must be at most {len(rates)}, the tasks of the table")
    setting = Setting(batch=batch, rollouts=rollouts, steps=steps, target=target, rest=rest)
    say(f"{len(rates):,} tasks; policy: {rates.models[0]} to {rates.models[-1]} ({len(rates.models)} models)")
    say(f"references: {rates.models[weak_place]} (weak) and {rates.models[strong_place]} (strong)")
    arms = [arm for arm in ARMS if columns.tags or not arm.tags]
    with server_at(server) as address, scratch_datasets(address, "replay") as prefix:
        traces = _play_all(address, prefix, squeeze(rates.rates, margin), columns, arms, setting, seeds)
    _show(traces, len(rates))
    # Imported late: matplotlib takes as long as all the rest of the command.
    from bots.replay.plots import draw

    draw(picture, traces, len(rates), setting)
    say(f"picture: {picture}")


def _play_all(
    address: str, prefix: str, rates: Rates, columns: Columns, arms: Sequence[Arm], setting: Setting, seeds: int
) -> dict[Arm, list[Trace]]:
    """Returns the traces of all arms, one for each seed."""
    bar = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    traces: dict[Arm, list[Trace]] = {}
    with Client(address, timeout=20, job="replay", strict=True) as client, Progress(*bar, console=out) as progress:
        bars = {arm: progress.add_task(arm.name, total=seeds * setting.steps) for arm in arms}
        for place, (arm, task) in enumerate(bars.items()):
            runs = [start(client, f"{prefix}{place}", arm, columns, setting, seed) for seed in range(seeds)]
            advance = partial(progress.advance, task)
            traces[arm] = [play(rates, setting, arm, run, seed, advance) for seed, run in enumerate(runs)]
    return traces


def _show(traces: Mapping[Arm, Sequence[Trace]], size: int) -> None:
    table = Table(
        header_style="bold",
        caption="mean ± standard error over seeds; correlation: posterior mean and true pass rate of all tasks",
    )
    table.add_column("arm")
    for column in ("effective task ratio", "distinct tasks", "coverage", "correlation"):
        table.add_column(column, justify="right")
    for arm, of_arm in traces.items():
        row = figures(of_arm, size)
        table.add_row(arm.name, str(row.ratio), str(row.distinct), str(row.coverage), str(row.correlation))
    out.print(table)
    say("A table does not react to training: judge the arms by a real training, as `bots demo` does.")
