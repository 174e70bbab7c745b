"""What a run takes over from a run over another dataset, or over the same one with other columns."""

import numpy as np

from bots_server.core.arrays import Ints, find
from bots_server.core.item_response.model import ItemResponse, Residuals
from bots_server.core.tasks import Tasks


def carry(state: ItemResponse, old: Tasks, new: Tasks, row: Ints) -> ItemResponse:
    """Returns the state of a run over `new`, given `[N_new]` the number in `old` of each of its tasks; -1: it has none.

    The ability and the weights go by the name of the input, with what is known of how they depend on each other; an
    input of no such name starts at its prior. The residuals go by task. Weights of features are per standard deviation
    of a feature, so they suit datasets in which a feature has a similar mean and spread.
    """
    position = {name: index for index, name in enumerate(old.inputs.names)}
    known = [index for index, name in enumerate(new.inputs.names) if name in position]
    source = [position[new.inputs.names[index]] for index in known]
    mean, covariance = new.inputs.mean.copy(), np.diag(new.inputs.variance)
    mean[known] = state.mean[source]
    covariance[np.ix_(known, known)] = state.covariance[np.ix_(source, source)]
    tasks = np.flatnonzero(row >= 0)
    own = state.residuals
    at, seen = find(own.tasks, row[tasks])
    at = at[seen]
    return ItemResponse(
        mean=mean,
        covariance=covariance,
        log_likelihood=state.log_likelihood,
        residuals=Residuals(tasks[seen], own.mean[at], own.variance[at], own.memory[at]),
    )
