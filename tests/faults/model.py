"""The model: what jobs asked of a run and were told, which faults struck, and what a correct service may then show.

Times are seconds since 1970 by this machine's clock, which is also Redis'. The jobs write the history, the validator
reads it. The state that a log of changes leads to is the oracle's (`tests/core/oracle.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import bots
from bots.history import HyperparametersEvent, ReportEvent, RestoreEvent
from tests.core.oracle import Oracle

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """A report, in order of task."""

    tasks: tuple[int, ...]
    successes: tuple[float, ...]
    rollouts: tuple[int, ...]

    @staticmethod
    def of(tasks: Iterable[int], successes: Iterable[float], rollouts: Iterable[int]) -> Outcomes:
        """Returns the report of these columns; tasks are distinct."""
        rows = sorted(zip(map(int, tasks), map(float, successes), map(int, rollouts), strict=True))
        return Outcomes(tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows))


@dataclass(frozen=True)
class Hyperparameters:
    """A change of hyperparameters."""

    changes: tuple[tuple[str, float], ...]

    @staticmethod
    def of(changes: Mapping[str, float]) -> Hyperparameters:
        return Hyperparameters(tuple(sorted(changes.items())))


@dataclass(frozen=True)
class Restore:
    """A return to a version."""

    version: int


Content = Outcomes | Hyperparameters | Restore


@dataclass
class Change:
    """What a job asked to be added to a run's history, as often as it asked for it under this id."""

    request_id: str
    job: str
    content: Content
    asked: float  # the first time
    # (time, version) of each acknowledgement; no version where the answer does not say (UpdateRun).
    answers: list[tuple[float, int | None]] = field(default_factory=list)


@dataclass
class Selection:
    job: str
    selection_id: str
    tasks: tuple[int, ...]
    version: int
    asked: float
    answered: float
    lease_until: float | None = None  # by Redis' clock; None: no lease
    given_back: float | None = None  # when its release was first asked for, by a report or by itself


@dataclass(frozen=True)
class Fault:
    """Something that went wrong, from before it struck to after it was mended."""

    name: str
    began: float
    ended: float
    takes_back: bool  # acknowledged changes may be lost: the durability does not cover it
    moves_primary: bool = False  # for a while two servers may both hold themselves for the Redis primary


@dataclass
class History:
    """What happened to one run, seen from outside; any thread may append."""

    changes: list[Change] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)  # of valid calls: none is right
    errors: list[tuple[float, str]] = field(default_factory=list)  # temporary ones, as (time, reason): they are right


@dataclass(frozen=True)
class Entry:
    """One event of the log that survived."""

    version: int
    request_id: str
    job: str
    content: Content

    @staticmethod
    def of(event: bots.Event) -> Entry:
        """Returns what ListEvents says."""
        kind = event.kind
        content: Content
        if isinstance(kind, ReportEvent):
            content = Outcomes.of(kind.tasks, kind.successes, kind.rollouts)
        elif isinstance(kind, HyperparametersEvent):
            content = Hyperparameters.of(kind.changes)
        else:
            assert isinstance(kind, RestoreEvent)
            content = Restore(kind.version)
        return Entry(event.version, event.request_id, event.job, content)


@dataclass(frozen=True)
class Dataset:
    """Tasks with references in part, so that reports of some move the posterior of others. `[N]` each, NaN: none."""

    weak: Floats
    strong: Floats

    @staticmethod
    def draw(seed: int, size: int) -> Dataset:
        """Returns `size` tasks: references of 16 rollouts for three in four."""
        rng = np.random.default_rng(seed)
        weak, strong = (np.sort(rng.integers(0, 17, (2, size)), axis=0) / 16).astype(np.float32).astype(np.float64)
        without = rng.random(size) < 0.25
        weak[without] = strong[without] = np.nan
        return Dataset(weak, strong)


def replay(dataset: Dataset, log: Sequence[Entry]) -> Oracle:
    """Returns the state that a log leads to, from the prior on."""
    ones = np.ones(len(dataset.weak))
    state = Oracle(dataset.weak, dataset.strong, ones, ones)
    returns = {entry.content.version for entry in log if isinstance(entry.content, Restore)}
    kept = {0: state.copy()}
    for entry in log:
        content = entry.content
        if isinstance(content, Outcomes):
            state.report(content.tasks, content.successes, content.rollouts)
        elif isinstance(content, Hyperparameters):
            state.change(dict(content.changes))
        else:
            state = kept[content.version].copy()
        if entry.version in returns:
            kept[entry.version] = state.copy()
    return state
