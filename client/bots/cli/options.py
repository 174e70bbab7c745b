"""Options that several commands share: the hyperparameters of a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Forgetting = Annotated[float | None, typer.Option(help="Share of the evidence forgotten in an update, in [0, 1).")]
ImplicitWeight = Annotated[float | None, typer.Option(help="Weight of the implicit evidence, in [0, 1].")]
Target = Annotated[float | None, typer.Option(help="The pass rate to select near, in [0, 1].")]
ImplicitRollouts = Annotated[
    float | None, typer.Option(help="Rollouts that implicit evidence stands for; 0: the mean of the update.")
]
CapabilitySmoothing = Annotated[
    float | None, typer.Option(help="Share of the old capability kept in an update, in [0, 1).")
]
RolloutsPerUpdate = Annotated[
    int | None, typer.Option(help="Outcomes gather until so many rollouts are an update; 0: each report is one.")
]
Tolerance = Annotated[float | None, typer.Option(help="A deviation below this is dropped; 0: never.")]
Cooldown = Annotated[int | None, typer.Option(help="A task rests for so many updates after its evaluation.")]
UniformFraction = Annotated[float | None, typer.Option(help="Share of a batch drawn uniformly, in [0, 1].")]
Temperature = Annotated[float | None, typer.Option(help="Above 0: tasks near the target are likely, not certain.")]
Greedy = Annotated[bool | None, typer.Option("--greedy/--no-greedy", help="By the posterior mean instead of a draw.")]


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
