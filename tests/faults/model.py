"""The model: what jobs asked of a run and were answered, which faults struck, and what a correct service may then show.

Times are seconds since 1970 by this machine's clock, which is also Redis'. The jobs write the history, the validator
reads it. The state that a log of changes leads to is the oracle's (`tests/core/oracle.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

import bots
from bots.history import HyperparametersEvent, ReportEvent, RestoreEvent, RetireEvent, UndoEvent
from tests.core.oracle import Oracle, oracle
from tests.strategies import given_values

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """A report, in order of task, and the selection that it answers ("": none)."""

    tasks: tuple[int, ...]
    successes: tuple[float, ...]
    rollouts: tuple[int, ...]
    selection: str = ""

    @staticmethod
    def of(tasks: Iterable[int], successes: Iterable[float], rollouts: Iterable[int], selection: str = "") -> Outcomes:
        """Returns the report of these columns; tasks are distinct."""
        rows = sorted(zip(map(int, tasks), map(float, successes), map(int, rollouts), strict=True))
        columns = tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows)
        return Outcomes(*columns, selection)


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


@dataclass(frozen=True)
class Retire:
    """Tasks, in order, leave the run's selections; with `undo` they come back."""

    tasks: tuple[int, ...]
    undo: bool = False


@dataclass(frozen=True)
class Undo:
    """The report of a version is taken out."""

    version: int


Content = Outcomes | Hyperparameters | Restore | Retire | Undo


@dataclass
class Change:
    """What a job asked to be added to a run's history, as often as it asked for it under this id."""

    request_id: str
    job: str
    content: Content
    asked: float  # the first time
    # (time, version) of each acknowledgement; no version if the answer does not say (UpdateRun, RetireTasks).
    answers: list[tuple[float, int | None]] = field(default_factory=list)


@dataclass
class Selection:
    """A selection as it was answered.

    resting:     number of its tasks that were still resting
    lease_until: by Redis' clock; None: no lease
    given_back:  task -> when the end of its lease was first asked for, by a report, a release or a new incarnation
    """

    job: str
    selection_id: str
    tasks: tuple[int, ...]
    version: int
    asked: float
    answered: float
    resting: int = 0
    lease_until: float | None = None
    given_back: dict[int, float] = field(default_factory=dict)

    def give_back(self, tasks: Iterable[int], time: float) -> None:
        """Notes that the leases of tasks are asked to end."""
        for task in tasks:
            self.given_back.setdefault(task, time)


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
    """What happened to one run, seen from outside; any thread may append.

    refusals:      of valid calls: none is right
    disagreements: (asked, answered, what) of ranks that got different batches under one key
    errors:        temporary ones, as (time, reason): they are right
    """

    changes: list[Change] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    disagreements: list[tuple[float, float, str]] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)


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
        content: Content
        match event.kind:
            case ReportEvent() as report:
                content = Outcomes.of(report.tasks, report.successes, report.rollouts, report.selection_id)
            case HyperparametersEvent() as changed:
                content = Hyperparameters.of(changed.changes)
            case RetireEvent() as retired:
                content = Retire(tuple(retired.tasks.tolist()), retired.undo)
            case RestoreEvent() as restored:
                content = Restore(restored.version)
            case UndoEvent() as undone:
                content = Undo(undone.version)
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


def replay(
    dataset: Dataset,
    log: Sequence[Entry],
    visit: Callable[[int, Oracle], object] = lambda version, state: None,
    without: frozenset[int] = frozenset(),
) -> Oracle:
    """Returns the state that a log leads to, from the prior on; calls `visit` with each version and its state.

    without: versions of reports that are left out
    """
    ones = np.ones(len(dataset.weak))
    each = {"weak": dataset.weak, "strong": dataset.strong, "prior_alpha": ones, "prior_beta": ones}
    state = oracle(each, given_values({}))
    returns = {entry.content.version for entry in log if isinstance(entry.content, Restore)}
    kept = {0: state.copy()}
    visit(0, state)
    for at, entry in enumerate(log):
        match entry.content:
            case Outcomes() if entry.version in without:
                pass
            case Outcomes() as report:
                state.report(report.tasks, report.successes, report.rollouts, report.selection)
            case Hyperparameters() as changed:
                state.change(dict(changed.changes))
            case Retire(tasks, undo):
                state.retired = state.retired - set(tasks) if undo else state.retired | set(tasks)
            case Restore(version):
                state = kept[version].restored()
            case Undo(version):
                state = replay(dataset, log[:at], without=without | {version})
        if entry.version in returns:
            kept[entry.version] = state.copy()
        visit(entry.version, state)
    return state


def alpha_beta(state: Oracle) -> tuple[Floats, Floats]:
    """Returns `[N]` alpha and beta as the service shows them."""
    return state.now().seen()


def resting(state: Oracle) -> set[int]:
    """Returns the tasks that rest."""
    coverage = replace(state.base, ever=set(), current=set(state.base.current))
    for _, outcomes in state.open:
        coverage.evaluate(outcomes.keys(), state.given["rest"])
    return coverage.current | coverage.previous
