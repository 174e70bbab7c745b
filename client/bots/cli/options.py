"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = Annotated[bool, typer.Option("--row", help="The tasks are row numbers although the dataset has ids.")]

Target = Annotated[float | None, typer.Option(help="Pass rate to select near, between 0 and 1.")]
Rest = Annotated[
    float | None,
    typer.Option(help="A task rests until REST times the dataset's size other evaluations have happened; 1: an epoch."),
]
UniformFraction = Annotated[float | None, typer.Option(help="Share of a batch that is drawn uniformly, 0 to 1.")]
Temperature = Annotated[float | None, typer.Option(help="Above 0: tasks near the target are likely, not certain.")]
Greedy = Annotated[bool | None, typer.Option("--greedy/--no-greedy", help="By the posterior mean instead of a draw.")]
RolloutsPerUpdate = Annotated[
    int | None, typer.Option(help="Outcomes wait until this many rollouts are an update; 0: a selection is one.")
]
Forgetting = Annotated[
    float | None, typer.Option(help="interpolation: share of the evidence forgotten in an update, from 0 to below 1.")
]
ImplicitWeight = Annotated[float | None, typer.Option(help="interpolation: weight of the implicit evidence, 0 to 1.")]
ImplicitRollouts = Annotated[
    float | None, typer.Option(help="interpolation: rollouts that implicit evidence stands for; 0: the update's mean.")
]
ResidualMemory = Annotated[
    float | None, typer.Option(help="item_response: share of a task's own difficulty that is kept in an update.")
]
Drift = Annotated[float | None, typer.Option(help="item_response: scale of the random walk in an update, 0 to 1.")]


def given(**options: Any) -> Any:
    """Returns the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
