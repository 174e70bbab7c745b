"""The posterior of a run: a pure fold over the run's events.

Parts of one selection are one update. The newest 16 updates are open: a report that names the selection of an open
update is added to it, and the updates from there on are applied again. So the state after the parts of a selection, in
any order and between the reports of other selections, is the state after one report of their sum in the place of the
first part. A report without a selection is an update of its own.

If the run sets rollouts_per_update, outcomes join a pending sum instead, which is an update when it has that many
rollouts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bots_server.core.arrays import Floats, Ints, find, union
from bots_server.core.evidence import Evidence, merge
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.outlier import Outlier
from bots_server.core.state import (
    Factored,
    State,
    all_individual,
    factored,
    first_state,
    observed,
    settled,
    some_alpha_beta,
)
from bots_server.core.tasks import Tasks

OPEN_UPDATES = 16

# Of an open update that takes a further part. A selection has at most a tenth of it.
MOST_TASKS = 100_000

# Of the states between open updates every eighth is kept, and the newest. A part of an older update is applied from the
# last kept state before it; where the oldest open update has none, closed ones before it are kept.
_KEPT = 8


@dataclass(frozen=True, slots=True, eq=False)
class OpenUpdate:
    """An update that takes further parts of its selection, or one after such an update."""

    selection_id: str  # "": none, and no part is added
    evidence: Evidence  # sum of the parts so far
    policy_lag: int | None  # policy steps between selection and first report; None: not known
    shadow_tasks: Ints  # what the run would have selected in place of these, of all parts so far
    before: State | None  # the state before this update; None: not kept

    @property
    def closed(self) -> bool:
        """Returns whether it takes no further part, however new it is."""
        return not self.selection_id or len(self.evidence) >= MOST_TASKS


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """The state of a run after `version` events."""

    version: int  # number of events
    model: str  # name of the evidence model
    hyperparameters: Hyperparameters
    retired: Ints  # `[r]` ascending: tasks that are not selected
    last_report_time_ms: int  # since 1970-01-01 UTC; 0: no report yet
    # The updates from the oldest open one on, and at most 7 closed ones before it; the state before the first is kept.
    open: tuple[OpenUpdate, ...]
    state: State  # after all of them
    # What `individuals` returned. Not a part of the state.
    memo: list[Factored] = field(init=False, default_factory=list)

    @property
    def base(self) -> State:
        """Returns the state before the updates in `open`."""
        return self.open[0].before or self.state if self.open else self.state


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Outcomes that a job sent in one call."""

    evidence: Evidence
    time_ms: int
    selection_id: str = ""  # the selection that they answer; "": none
    policy_step: int | None = None  # of the report, for the statistics; None: not given
    selection_policy_step: int | None = None  # of the selection
    # Tasks that the run would have selected in place of these, for the statistics.
    shadow_tasks: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    outlier: Outlier | None = None  # how far it was outside what the run had seen; None: it was not. It changes nothing

    @property
    def policy_lag(self) -> int | None:
        """Returns the policy steps between selection and report, None if not known."""
        if self.policy_step is None or self.selection_policy_step is None:
            return None
        return self.policy_step - self.selection_policy_step


@dataclass(frozen=True, slots=True, eq=False)
class HyperparametersChanged:
    """New values of some hyperparameters, by name."""

    changes: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """The run goes back to a state; its version goes on."""

    state: Posterior


@dataclass(frozen=True, slots=True, eq=False)
class Undone:
    """The report that made `version` is taken out: the run goes on from `state`, which the other events gave."""

    version: int
    state: Posterior


@dataclass(frozen=True, slots=True, eq=False)
class Retired:
    """Tasks that are not selected from here on. `reason` is for people."""

    tasks: Ints
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Unretired:
    """Tasks that are selected again."""

    tasks: Ints


Event = Report | HyperparametersChanged | Restored | Undone | Retired | Unretired


def start(tasks: Tasks, hyperparameters: Hyperparameters, model: str) -> Posterior:
    """Returns version 0: no evidence."""
    return Posterior(
        version=0,
        model=model,
        hyperparameters=hyperparameters,
        retired=np.empty(0, np.int64),
        last_report_time_ms=0,
        open=(),
        state=first_state(tasks, model, hyperparameters),
    )


def reopened(posterior: Posterior, tasks: Tasks, updates: Iterable[OpenUpdate]) -> Posterior:
    """Returns a posterior without open updates with these opened on it; their `before` is not read.

    So a stored posterior is read: stored are `base`, as the state, and what the open updates were made of.
    """
    chain = list(updates)
    if not chain:
        return posterior
    chain[0] = replace(chain[0], before=posterior.state)
    return _applied(posterior, tasks, chain, 0)


def alpha_beta(posterior: Posterior, tasks: Tasks, which: Ints | None) -> tuple[Floats, Floats]:
    """Returns alpha and beta of the tasks `which`, in that order, or of all N (None); pending outcomes counted in."""
    if which is not None:
        return some_alpha_beta(posterior.state, tasks, posterior.model, which)
    own = individuals(posterior, tasks)
    if len(own) == len(tasks):
        return own.alpha, own.beta
    if own.by_cell:
        alpha, beta = np.empty(len(tasks)), np.empty(len(tasks))
        alpha[tasks.members] = np.repeat(own.baseline_alpha, tasks.cell_size)
        beta[tasks.members] = np.repeat(own.baseline_beta, tasks.cell_size)
    else:
        alpha, beta = own.baseline_alpha.take(tasks.stratum), own.baseline_beta.take(tasks.stratum)
    alpha[own.tasks], beta[own.tasks] = own.alpha, own.beta
    return alpha, beta


def individuals(posterior: Posterior, tasks: Tasks) -> Factored:
    """Returns alpha and beta of all tasks in factored form, pending outcomes counted in.

    Computed once a posterior; each time if all tasks are individual, as it then takes 24 bytes a task.
    """
    if all_individual(tasks, posterior.model):
        return factored(posterior.state, tasks, posterior.model)
    if not posterior.memo:
        posterior.memo.append(factored(posterior.state, tasks, posterior.model))
    return posterior.memo[0]


def fold(posterior: Posterior, tasks: Tasks, event: Event) -> Posterior:
    """Returns the state after one more event. Never changes its input.

    The state is a function of the events alone, to the last bit: it does not depend on how they were grouped.
    """
    version = posterior.version + 1
    match event:
        case Report():
            return _reported(replace(posterior, version=version, last_report_time_ms=event.time_ms), tasks, event)
        case HyperparametersChanged():
            changed = replace(posterior.hyperparameters, **event.changes)  # type: ignore[arg-type]
            state = settled(posterior.state, tasks, posterior.model, changed)
            return replace(posterior, version=version, hyperparameters=changed, open=(), state=state)
        case Restored():
            return replace(event.state, version=version, open=())
        case Undone():
            return replace(event.state, version=version)
        case Retired():
            return replace(posterior, version=version, retired=union(posterior.retired, event.tasks))
        case Unretired():
            retired = posterior.retired
            return replace(posterior, version=version, retired=retired[~find(event.tasks, retired)[1]])


def fold_all(posterior: Posterior, tasks: Tasks, events: Iterable[Event]) -> Posterior:
    """Returns the state after all the events: `fold` one by one."""
    for event in events:
        posterior = fold(posterior, tasks, event)
    return posterior


def _reported(posterior: Posterior, tasks: Tasks, report: Report) -> Posterior:
    """Returns the posterior with a report's outcomes."""
    given, model, evidence = posterior.hyperparameters, posterior.model, report.evidence
    if len(evidence) == 0:
        return posterior
    if given.rollouts_per_update > 0:
        state = observed(posterior.state, tasks, model, given, evidence, report.policy_lag, report.shadow_tasks)
        return replace(posterior, state=settled(state, tasks, model, given))
    chain = list(posterior.open)
    for at in range(max(len(chain) - OPEN_UPDATES, 0), len(chain)) if report.selection_id else ():
        part = chain[at]
        if part.selection_id == report.selection_id and len(part.evidence) + len(evidence) <= MOST_TASKS:
            lag = report.policy_lag if part.policy_lag is None else part.policy_lag
            shadow = union(part.shadow_tasks, report.shadow_tasks)
            chain[at] = replace(part, evidence=merge(part.evidence, evidence), policy_lag=lag, shadow_tasks=shadow)
            return _applied(posterior, tasks, chain, at)
    chain.append(OpenUpdate(report.selection_id, evidence, report.policy_lag, report.shadow_tasks, posterior.state))
    return _applied(posterior, tasks, chain, len(chain) - 1)


def _applied(posterior: Posterior, tasks: Tasks, chain: list[OpenUpdate], changed: int) -> Posterior:
    """Returns the posterior with the updates of a chain, of which those from `changed` on are not applied yet."""
    given, model = posterior.hyperparameters, posterior.model
    begin, state = _newest_state(chain, changed)
    for at in range(begin, len(chain)):
        update = chain[at]
        if update.before is not state:
            chain[at] = replace(update, before=state)
        waiting = observed(state, tasks, model, given, update.evidence, update.policy_lag, update.shadow_tasks)
        state = settled(waiting, tasks, model, given)
    for at, update in enumerate(chain[1:-1], 1):
        if update.before is not None and update.before.updates % _KEPT:
            chain[at] = replace(update, before=None)
    oldest = next((at for at in range(max(len(chain) - OPEN_UPDATES, 0), len(chain)) if not chain[at].closed), None)
    first = len(chain) if oldest is None else _newest_state(chain, oldest)[0]
    return replace(posterior, open=tuple(chain[first:]), state=state)


def _newest_state(chain: Sequence[OpenUpdate], upto: int) -> tuple[int, State]:
    """Returns the position of the last update up to `upto` whose `before` is kept, and that state."""
    return next((at, kept) for at in range(upto, -1, -1) if (kept := chain[at].before) is not None)
