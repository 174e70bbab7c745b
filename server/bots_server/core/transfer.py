"""A new run that goes on from the posterior of another one, over the same dataset or another."""

from dataclasses import replace

import numpy as np

from bots_server.core.arrays import Ints
from bots_server.core.coverage import restored
from bots_server.core.evidence import Evidence
from bots_server.core.hyperparameters import Hyperparameters
from bots_server.core.models import MODULES
from bots_server.core.posterior import Posterior, start
from bots_server.core.state import settled
from bots_server.core.task_set import NO_TASKS, with_tasks
from bots_server.core.tasks import Tasks


def transfer(posterior: Posterior, old: Tasks, new: Tasks, row: Ints, hyperparameters: Hyperparameters) -> Posterior:
    """Returns version 0 of a run over `new` that goes on from a posterior over `old`, with the same model.

    row: `[N]` row in `old` of each task of `new`, no row twice; -1: it has none, and starts at its prior

    Evidence, what rests and what is retired go along by task. Statistics and the count of evaluated tasks start anew.
    """
    kept = np.flatnonzero(row >= 0)
    where = np.full(len(old), -1)
    where[row.take(kept)] = kept

    def moved(tasks: Ints) -> Ints:
        found = where.take(tasks)
        return np.sort(found[found >= 0])

    state, model = posterior.state, posterior.model
    resting = (state.coverage.current, state.coverage.previous)
    sets = [with_tasks(NO_TASKS, moved(tasks.tasks()), len(new)) for tasks in resting]
    fresh = start(new, hyperparameters, model)
    carried = replace(
        fresh.state,
        learned=MODULES[model].carry(state.learned, old, new, row),
        pending=_evidence(state.pending, where),
        coverage=restored(new, 0, state.coverage.in_half, NO_TASKS, *sets),
    )
    return replace(fresh, retired=moved(posterior.retired), state=settled(carried, new, model, hyperparameters))


def _evidence(evidence: Evidence, where: Ints) -> Evidence:
    """Returns the evidence of the tasks that have a place in the new dataset."""
    tasks = where.take(evidence.tasks)
    order = np.argsort(tasks)
    order = order[tasks.take(order) >= 0]
    spread = None if evidence.effective is None else evidence.effective.take(order)
    return Evidence(tasks.take(order), evidence.successes.take(order), evidence.rollouts.take(order), spread)
