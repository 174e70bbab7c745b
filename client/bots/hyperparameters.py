"""What a run learns and selects by: typed keywords for calls, a frozen dataclass for values.

The two list the fields of `Hyperparameters` in task_selection.proto, which has each one's meaning, range and default. A
test holds the three equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from bots.columns import missing, number, plain, whole
from bots.errors import invalid
from bots.v1 import task_selection_pb2 as pb

Model = Literal["interpolation", "item_response"]


class HyperparameterValues(TypedDict, total=False):
    """Hyperparameters as keywords (PEP 692)."""

    target: float
    rest: float
    uniform_fraction: float
    temperature: float
    greedy: bool
    rollouts_per_update: int
    forgetting: float
    implicit_weight: float
    implicit_rollouts: float
    residual_memory: float
    drift: float


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a run learns and selects by. None: not given in a call, and not of the run's model in an answer.

    target               pass rate to select near, between 0 and 1.
    rest                 a task rests until `rest` times the dataset's size other evaluations have happened; 0 to 1.
    uniform_fraction     share of a batch that is drawn uniformly, between 0 and 1.
    temperature          above 0: tasks near the target are likely instead of certain.
    greedy               select by the posterior mean instead of a draw.
    rollouts_per_update  0: the outcomes of one selection are one update; else outcomes wait for this many rollouts.
    forgetting           interpolation: share of the evidence forgotten in an update.
    implicit_weight      interpolation: weight of the implicit evidence.
    implicit_rollouts    interpolation: rollouts that implicit evidence stands for; 0: the update's mean.
    residual_memory      item_response: share of a task's own difficulty that is kept in an update.
    drift                item_response: scale of the random walk in an update.
    """

    target: float | None = None
    rest: float | None = None
    uniform_fraction: float | None = None
    temperature: float | None = None
    greedy: bool | None = None
    rollouts_per_update: int | None = None
    forgetting: float | None = None
    implicit_weight: float | None = None
    implicit_rollouts: float | None = None
    residual_memory: float | None = None
    drift: float | None = None


NAMES = tuple(field.name for field in dataclasses.fields(Hyperparameters))


def hyperparameters_message(given: Hyperparameters | None, keywords: Mapping[str, Any]) -> pb.Hyperparameters:
    """Returns the message. TypeError: an unknown name, one that is given twice, or a value of the wrong type."""
    values = {} if given is None else {name: getattr(given, name) for name in NAMES}
    for name, value in keywords.items():
        if name not in NAMES:
            raise TypeError(f"{name}: no such hyperparameter, must be one of {', '.join(NAMES)}")
        if values.get(name) is not None and value is not None:
            raise TypeError(f"{name}: given both in `hyperparameters` and as a keyword")
        values[name] = value if value is not None else values.get(name)
    return pb.Hyperparameters(**{name: _typed(name, value) for name, value in values.items() if value is not None})


def _typed(name: str, value: Any) -> Any:
    value = plain(value)
    try:
        if name == "greedy":
            if whole(name, value) not in (0, 1):
                raise invalid(name, repr(value), "must be True or False")
            return bool(value)
        return whole(name, value) if name == "rollouts_per_update" else number(name, _present(name, value))
    except ValueError as error:
        raise TypeError(str(error)) from None


def _present(name: str, value: Any) -> Any:
    if missing(value) or isinstance(value, list):
        raise invalid(name, repr(value), "must be a number")
    return value
