"""What a run learns and selects by, and the rule of each value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The defaults of forgetting, implicit_weight, target and capability_smoothing are the paper's (arXiv 2510.26374).

    forgetting:           lambda, share of the evidence forgotten in an update
    implicit_weight:      rho, weight of the implicit evidence
    target:               p*, the pass rate to select near
    implicit_rollouts:    m, rollouts that implicit evidence stands for; 0: the mean rollouts of the update's tasks
    capability_smoothing: share of the old capability kept in an update
    rollouts_per_update:  R, pending rollouts that make an update; 0: each report is one
    tolerance:            pseudo-counts below which a deviation is dropped; 0: never
    cooldown:             updates in which an evaluated task is not selected again
    uniform_fraction:     share of a batch drawn uniformly
    temperature:          above 0: drawn with probability proportional to exp(-|p - target| / temperature)
    greedy:               select by the posterior mean instead of a draw
    """

    forgetting: float = 0.1
    implicit_weight: float = 0.1
    target: float = 0.5
    implicit_rollouts: float = 0.0
    capability_smoothing: float = 0.9
    rollouts_per_update: int = 0
    tolerance: float = 1e-6
    cooldown: int = 0
    uniform_fraction: float = 0.0
    temperature: float = 0.0
    greedy: bool = False


class InvalidHyperparameter(ValueError):
    """A value is against its rule. Has `field`, `value` and `rule`."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} is {value!r} but must be {rule}")
        self.field = field
        self.value = value
        self.rule = rule


# Rule in words, and whether a value keeps it (NaN keeps none). The words complete "must be".
RULES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "forgetting": ("in [0, 1)", lambda value: 0 <= value < 1),
    "implicit_weight": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "target": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "implicit_rollouts": ("in [0, 1e6]", lambda value: 0 <= value <= 1e6),
    "capability_smoothing": ("in [0, 1)", lambda value: 0 <= value < 1),
    "rollouts_per_update": ("in [0, 1e9]", lambda value: 0 <= value <= 1e9),
    "tolerance": ("in [0, 1e-6]", lambda value: 0 <= value <= 1e-6),
    "cooldown": ("in [0, 10000]", lambda value: 0 <= value <= 10_000),
    "uniform_fraction": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "temperature": ("in [0, 1e6]", lambda value: 0 <= value <= 1e6),
    "greedy": ("true or false", lambda value: value in (False, True)),
}


def check(**values: float) -> None:
    """Raises InvalidHyperparameter for the first value that is against its rule; KeyError for an unknown name."""
    for field, value in values.items():
        rule, keeps = RULES[field]
        if not keeps(value):
            raise InvalidHyperparameter(field, value, rule)
