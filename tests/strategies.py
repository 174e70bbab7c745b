"""The Hypothesis strategies of all tests: datasets, hyperparameters and histories of any shape."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset of N tasks, as a user gives them; an absent column is None.

    references:              `[N]` float32 by name, NaN: missing
    prior_alpha, prior_beta: `[N]` float64
    tag:                     `[N]` index into `tags`
    features:                `[N, F]` float32, NaN: missing
    """

    size: int
    references: dict[str, NDArray[np.float32]]
    prior_alpha: NDArray[np.float64] | None = None
    prior_beta: NDArray[np.float64] | None = None
    tag: NDArray[np.uint32] | None = None
    tags: tuple[str, ...] = ()
    features: NDArray[np.float32] | None = None

    def arranged(self) -> Tasks:
        """Returns the dataset as the core has it."""
        builder = StrataBuilder(len(self.references))
        table = np.stack(list(self.references.values()), 1) if self.references else None
        stratum = builder.add(table, self.prior_alpha, self.prior_beta, self.size)
        return arrange(
            builder.strata(),
            stratum,
            self.tag,
            self.tags,
            reference_names=tuple(self.references),
            features=self.features,
        )

    def each(self) -> dict[str, Any]:
        """Returns `[N]` weak, strong, prior_alpha and prior_beta of each task, what is absent filled in."""
        nothing, one = np.full(self.size, np.nan, np.float32), np.ones(self.size)
        return {
            "weak": self.references.get("weak", nothing).astype(np.float64),
            "strong": self.references.get("strong", nothing).astype(np.float64),
            "prior_alpha": one if self.prior_alpha is None else self.prior_alpha,
            "prior_beta": one if self.prior_beta is None else self.prior_beta,
        }


@dataclass(frozen=True)
class Outcomes:
    """What one report says; a task may appear several times. `selection`: its selection, "": none."""

    tasks: tuple[int, ...]
    successes: tuple[float, ...]
    rollouts: tuple[int, ...]
    selection: str = ""


@dataclass(frozen=True)
class Change:
    """Hyperparameters that change."""

    changes: dict[str, Any]


@dataclass(frozen=True)
class Restore:
    """The run goes back to the state that it had after `version` modulo (its version + 1) events."""

    version: int


@dataclass(frozen=True)
class Retire:
    """Tasks leave the run's selections, or come back."""

    tasks: tuple[int, ...]
    back: bool


Step = Outcomes | Change | Restore | Retire

# Grids repeat, so that strata have several members; any float32 at all makes strata of one.
_sixteenths = st.integers(0, 16).map(lambda j: j / 16)
pass_rates = _sixteenths | st.floats(0, 1, width=32)
_priors = st.sampled_from([0.1, 0.5, 1.0, 2.0, 1e6]) | st.floats(0.1, 100)


@st.composite
def columns(draw: st.DrawFn, max_size: int = 10, features: bool = False) -> Columns:
    """Datasets with and without references, priors and tags; strata are shared by some tasks."""
    size = draw(st.integers(1, max_size))
    names = draw(st.lists(st.sampled_from(["weak", "strong", "another"]), unique=True))
    row = st.tuples(*[pass_rates | st.just(np.nan) for _ in names], _priors, _priors)
    plain = row.map(lambda values: (*values[:-2], 1.0, 1.0))
    rows = draw(st.lists(draw(st.sampled_from([row, plain])), min_size=1, max_size=4))
    table = np.array(draw(st.lists(st.sampled_from(rows), min_size=size, max_size=size)), np.float64)
    tags = tuple(f"tag-{j}" for j in range(draw(st.integers(0, 3))))
    tag = draw(st.lists(st.integers(0, len(tags) - 1), min_size=size, max_size=size)) if tags else None
    given = draw(st.booleans())
    width = draw(st.integers(0, 2)) if features else 0
    values = st.sampled_from([0.0, 1.0, -2.0, np.nan]) | st.floats(-10, 10, width=32)
    matrix = draw(st.lists(values, min_size=size * width, max_size=size * width))
    return Columns(
        size=size,
        references={name: table[:, j].astype(np.float32) for j, name in enumerate(names)},
        prior_alpha=table[:, -2] if given else None,
        prior_beta=table[:, -1] if given else None,
        tag=None if tag is None else np.array(tag, np.uint32),
        tags=tags,
        features=np.array(matrix, np.float32).reshape(size, width) if width else None,
    )


# What the fold reads.
_learning: dict[str, st.SearchStrategy[Any]] = {
    "rollouts_per_update": st.just(0) | st.just(0) | st.integers(1, 200),
    "rest": st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
}
_of_model: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "interpolation": {
        "forgetting": st.sampled_from([0.0, 0.1, 0.5]) | st.floats(0, 0.999),
        "implicit_weight": st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
        "implicit_rollouts": st.just(0.0) | st.floats(0.5, 64),
    },
    "item_response": {
        "residual_memory": st.sampled_from([0.9, 0.99, 1.0]) | st.floats(0, 1),
        "drift": st.sampled_from([0.0, 0.01]) | st.floats(0, 1),
    },
}


def changes(model: str = "interpolation") -> st.SearchStrategy[dict[str, Any]]:
    """New values of some of the hyperparameters that a model's fold reads."""
    return st.fixed_dictionaries({}, optional={**_learning, **_of_model[model]})


def given_values(begin: dict[str, Any]) -> dict[str, float]:
    """Returns all hyperparameters of a run that begins with these."""
    return asdict(Hyperparameters(**begin))


@st.composite
def outcomes(draw: st.DrawFn, size: int, max_outcomes: int = 6) -> Outcomes:
    """Reports on a dataset of `size` tasks, some with fractional successes and some with a task twice."""
    rollouts = st.integers(1, 64) | st.sampled_from([1024, 1025, 10_000])
    one = st.tuples(st.integers(0, size - 1), rollouts, st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    drawn = draw(st.lists(one, min_size=1, max_size=max_outcomes))
    whole = draw(st.booleans())
    return Outcomes(
        tasks=tuple(task for task, _, _ in drawn),
        successes=tuple(round(share * n) if whole else share * n for _, n, share in drawn),
        rollouts=tuple(n for _, n, _ in drawn),
        selection=draw(st.sampled_from(["", "a", "b", "c"])),
    )


def histories(size: int, max_steps: int = 12, model: str = "interpolation") -> st.SearchStrategy[list[Step]]:
    """Histories on a dataset of `size` tasks, mostly of reports."""
    report = outcomes(size)
    restore = st.integers(0, max_steps).map(Restore)
    retire = st.builds(Retire, st.lists(st.integers(0, size - 1), max_size=4).map(tuple), st.booleans())
    step = st.one_of(report, report, report, report, changes(model).map(Change), restore, retire)
    return st.lists(step, min_size=1, max_size=max_steps)


@st.composite
def runs(
    draw: st.DrawFn, max_steps: int = 12, model: str = "interpolation"
) -> tuple[Columns, dict[str, Any], list[Step]]:
    """A dataset, what its run starts with, and the run's history."""
    dataset = draw(columns(features=model == "item_response"))
    return dataset, draw(changes(model)), draw(histories(dataset.size, max_steps, model))


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[slice]:
    """Ways to cut a sequence of `length` into groups of consecutive entries."""
    inner: Sequence[int] = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    edges = [0, *inner, length]
    return [slice(begin, end) for begin, end in pairwise(edges)]
