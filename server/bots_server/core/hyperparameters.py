"""What a run learns and selects by: one table of the hyperparameters, their defaults, their rules and their models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MODELS = ("interpolation", "item_response")

# In a dataset of at most so many tasks each may keep a posterior of its own. In a larger one outcomes must be forgotten
# at least this fast, so that the number of such tasks is that of some 2,000 updates.
MOST_OWN_TASKS = 2**20
LEAST_FORGETTING = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The defaults of forgetting, implicit_weight and target are the paper's (arXiv 2510.26374)."""

    target: float = 0.5  # p*, the pass rate to select near
    rest: float = 0.5  # an evaluated task is not selected again for rest * N evaluations; 0: never rests
    uniform_fraction: float = 0.0  # share of a batch drawn uniformly
    temperature: float = 0.0  # above 0: drawn with probability proportional to exp(-|p - target| / temperature)
    greedy: bool = False  # select by the posterior mean instead of a draw
    rollouts_per_update: int = 0  # R, pending rollouts that make an update; 0: each report, or selection, is an update
    # Of interpolation.
    forgetting: float = 0.1  # lambda, share of the evidence forgotten in an update
    implicit_weight: float = 0.1  # rho, weight of the implicit evidence
    implicit_rollouts: float = 0.0  # m, rollouts that implicit evidence stands for; 0: the update's mean by task
    # Of item_response.
    residual_memory: float = 0.99  # share of a task's own residual difficulty kept in an update
    drift: float = 0.01  # scale of the random walk of ability and weights


class InvalidHyperparameter(ValueError):
    """A value breaks its rule, which completes "must be"."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field}: got {value!r}, must be {rule}")
        self.field, self.value, self.rule = field, value, rule


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one hyperparameter."""

    words: str  # completes "must be"
    holds: Callable[[float], bool]  # False for NaN
    model: str | None = None  # the only model that has the hyperparameter; None: every model has it


RULES: Mapping[str, Rule] = {
    "target": Rule("between 0 and 1", lambda value: 0 <= value <= 1),
    "rest": Rule("between 0 and 1", lambda value: 0 <= value <= 1),
    "uniform_fraction": Rule("between 0 and 1", lambda value: 0 <= value <= 1),
    "temperature": Rule("between 0 and 1000000", lambda value: 0 <= value <= 1e6),
    "greedy": Rule("true or false", lambda value: value in (False, True)),
    "rollouts_per_update": Rule("between 0 and 1000000", lambda value: 0 <= value <= 1e6),
    "forgetting": Rule("at least 0 and below 1", lambda value: 0 <= value < 1, "interpolation"),
    "implicit_weight": Rule("between 0 and 1", lambda value: 0 <= value <= 1, "interpolation"),
    "implicit_rollouts": Rule("between 0 and 1000000", lambda value: 0 <= value <= 1e6, "interpolation"),
    "residual_memory": Rule("between 0 and 1", lambda value: 0 <= value <= 1, "item_response"),
    "drift": Rule("between 0 and 1", lambda value: 0 <= value <= 1, "item_response"),
}


def of_model(model: str, values: Hyperparameters) -> dict[str, Any]:
    """Returns the hyperparameters that a model has, by name."""
    return {name: getattr(values, name) for name, rule in RULES.items() if rule.model in (None, model)}


def check(model: str, **values: float) -> None:
    """Raises InvalidHyperparameter for the first value that breaks its rule or belongs to another model."""
    for field, value in values.items():
        rule = RULES[field]
        if rule.model not in (None, model):
            raise InvalidHyperparameter(field, value, f"absent: it belongs to {rule.model}, and the model is {model}")
        if not rule.holds(value):
            raise InvalidHyperparameter(field, value, rule.words)


def check_size(model: str, values: Hyperparameters, size: int) -> None:
    """Raises InvalidHyperparameter if a run over `size` tasks could keep too many posteriors of single tasks."""
    if size <= MOST_OWN_TASKS:
        return
    because = f", as the dataset has more than {MOST_OWN_TASKS} tasks"
    forgetting, memory, most = values.forgetting, values.residual_memory, 1 - LEAST_FORGETTING
    if model == "interpolation" and forgetting < LEAST_FORGETTING:
        raise InvalidHyperparameter("forgetting", forgetting, f"at least {LEAST_FORGETTING}{because}")
    if model == "item_response" and memory > most:
        raise InvalidHyperparameter("residual_memory", memory, f"at most {most}{because}")


def default_model(references: tuple[str, ...], tagged: bool, features: int) -> str:
    """Returns the model of a run that asks for none, given the dataset's reference names, tags and features."""
    both_alone = set(references) == {"weak", "strong"} and not tagged and features == 0
    return "interpolation" if both_alone else "item_response"
