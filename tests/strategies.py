"""The Hypothesis strategies of all tests: datasets, hyperparameters and histories of any shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.strata import StrataBuilder
from bots_server.core.tasks import Tasks, arrange


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset of N tasks, as a user gives them; an absent column is None.

    weak, strong:            `[N]` float32, NaN: none
    prior_alpha, prior_beta: `[N]` float64
    tag:                     `[N]` index into `tags`
    """

    size: int
    weak: NDArray[np.float32] | None = None
    strong: NDArray[np.float32] | None = None
    prior_alpha: NDArray[np.float64] | None = None
    prior_beta: NDArray[np.float64] | None = None
    tag: NDArray[np.uint32] | None = None
    tags: tuple[str, ...] = ()

    def arranged(self) -> Tasks:
        """Returns the dataset as the core has it."""
        builder = StrataBuilder(0.0)
        stratum = builder.add(self.weak, self.strong, self.prior_alpha, self.prior_beta, self.size)
        return arrange(builder.strata(), stratum, self.tag, self.tags)

    def each(self) -> dict[str, Any]:
        """Returns `[N]` weak, strong, prior_alpha and prior_beta of each task, what is absent filled in."""
        nothing, one = np.full(self.size, np.nan), np.ones(self.size)
        return {
            "weak": nothing if self.weak is None else self.weak.astype(np.float64),
            "strong": nothing if self.strong is None else self.strong.astype(np.float64),
            "prior_alpha": one if self.prior_alpha is None else self.prior_alpha,
            "prior_beta": one if self.prior_beta is None else self.prior_beta,
        }


@dataclass(frozen=True)
class Outcomes:
    """What one report says; a task may appear several times."""

    tasks: tuple[int, ...]
    successes: tuple[float, ...]
    rollouts: tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """Hyperparameters that change."""

    changes: dict[str, Any]


@dataclass(frozen=True)
class Restore:
    """The run goes back to the state that it had after `version` modulo (its version + 1) events."""

    version: int


Step = Outcomes | Change | Restore

# Grids repeat, so that strata have several members; any float32 at all makes strata of one.
_sixteenths = st.integers(0, 16).map(lambda j: j / 16)
pass_rates = _sixteenths | st.floats(0, 1, width=32)
_priors = st.sampled_from([0.1, 0.5, 1.0, 2.0, 1e6]) | st.floats(0.1, 100)


@st.composite
def columns(draw: st.DrawFn, max_size: int = 10) -> Columns:
    """Datasets with and without references, priors and tags; strata are shared by some tasks."""
    size = draw(st.integers(1, max_size))

    def pairs(values: st.SearchStrategy[float], absent: float) -> NDArray[np.float64] | None:
        some = st.tuples(values, values)
        pool = draw(st.lists(some | st.just((absent, absent)), min_size=1, max_size=4))
        picked = draw(st.none() | st.lists(st.sampled_from(pool), min_size=size, max_size=size))
        return None if picked is None else np.array(picked, np.float64)

    references, priors = pairs(pass_rates, np.nan), pairs(_priors, 1.0)
    tags = tuple(f"tag-{j}" for j in range(draw(st.integers(0, 3))))
    tag = draw(st.lists(st.integers(0, len(tags) - 1), min_size=size, max_size=size)) if tags else None
    return Columns(
        size=size,
        weak=None if references is None else references[:, 0].astype(np.float32),
        strong=None if references is None else references[:, 1].astype(np.float32),
        prior_alpha=None if priors is None else priors[:, 0],
        prior_beta=None if priors is None else priors[:, 1],
        tag=None if tag is None else np.array(tag, np.uint32),
        tags=tags,
    )


# What the fold reads, other than `tolerance`, which decides what a test may ask.
_learning: dict[str, st.SearchStrategy[Any]] = {
    "forgetting": st.sampled_from([0.0, 0.1, 0.5]) | st.floats(0, 0.999),
    "implicit_weight": st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
    "implicit_rollouts": st.just(0.0) | st.floats(0.5, 64),
    "capability_smoothing": st.sampled_from([0.0, 0.9]) | st.floats(0, 0.99),
    "rollouts_per_update": st.just(0) | st.integers(1, 200),
    "cooldown": st.integers(0, 3),
}

changes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=_learning)


@st.composite
def outcomes(draw: st.DrawFn, size: int, max_outcomes: int = 6) -> Outcomes:
    """Reports on a dataset of `size` tasks, some with fractional successes and some with a task twice."""
    one = st.tuples(st.integers(0, size - 1), st.integers(1, 64), st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    drawn = draw(st.lists(one, min_size=1, max_size=max_outcomes))
    whole = draw(st.booleans())
    return Outcomes(
        tasks=tuple(task for task, _, _ in drawn),
        successes=tuple(round(share * n) if whole else share * n for _, n, share in drawn),
        rollouts=tuple(n for _, n, _ in drawn),
    )


def histories(size: int, max_steps: int = 12) -> st.SearchStrategy[list[Step]]:
    """Histories on a dataset of `size` tasks, mostly of reports."""
    report = outcomes(size)
    step = st.one_of(report, report, report, changes.map(Change), st.integers(0, max_steps).map(Restore))
    return st.lists(step, min_size=1, max_size=max_steps)


@st.composite
def runs(draw: st.DrawFn, max_steps: int = 12) -> tuple[Columns, dict[str, Any], list[Step]]:
    """A dataset, what its run starts with, and the run's history."""
    dataset = draw(columns())
    return dataset, draw(changes), draw(histories(dataset.size, max_steps))


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[slice]:
    """Ways to cut a sequence of `length` into groups of consecutive entries."""
    inner: Sequence[int] = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    edges = [0, *inner, length]
    return [slice(begin, end) for begin, end in pairwise(edges)]
