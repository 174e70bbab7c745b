"""The evidence models, behind one interface: a model is a module of pure, deterministic functions."""

from collections.abc import Mapping
from typing import Any, Protocol

from bots_server.core import interpolation, item_response
from bots_server.core.arrays import Floats, Ints
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.interpolation import Interpolation, InterpolationSummary
from bots_server.core.item_response import ItemResponse, ItemResponseSummary
from bots_server.core.tasks import Tasks

ModelState = Interpolation | ItemResponse
ModelSummary = InterpolationSummary | ItemResponseSummary


class Model(Protocol):
    """What a model's module has. `state` is a frozen dataclass of the model's own.

    BY_CELL: `baseline` is by cell (stratum and tag), and empty if the tasks have features; else by stratum
    """

    BY_CELL: bool

    def start(self, tasks: Tasks, hyperparameters: Hyperparameters) -> Any:
        """Returns the state before any evidence."""

    def update(self, state: Any, tasks: Tasks, hyperparameters: Hyperparameters, evidence: Evidence) -> Any:
        """Returns the state after one application of the equations to evidence of at most 1024 rollouts a task."""

    def baseline(self, state: Any, tasks: Tasks) -> tuple[Floats, Floats]:
        """Returns alpha and beta of the tasks that are not `deviating`: `[G]`, or `[C]` if `BY_CELL`."""

    def deviating(self, state: Any, tasks: Tasks) -> tuple[Ints, Floats, Floats]:
        """Returns `[D]` tasks, ascending, whose posterior is not their baseline, and their alpha and beta."""

    def alpha_beta(self, state: Any, tasks: Tasks, which: Ints) -> tuple[Floats, Floats]:
        """Returns `[n]` alpha and beta of the tasks `which`, in that order."""

    def without_own(self, state: Any, tasks: Tasks, which: Ints) -> Floats:
        """Returns `[n]` pass rates predicted without the task's own outcomes; NaN: none."""

    def carry(self, state: Any, old: Tasks, new: Tasks, row: Ints) -> Any:
        """Returns the state on another dataset. `row`: `[N]` row in `old` of each task of `new`; -1: it has none."""

    def summarise(self, state: Any, tasks: Tasks) -> Any:
        """Returns what a summary has of the model."""


MODULES: Mapping[str, Model] = {"interpolation": interpolation, "item_response": item_response}
