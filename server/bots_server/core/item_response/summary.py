"""What a person sees of the item_response model: ability, and what makes tasks easy or hard."""

from dataclasses import dataclass

import numpy as np

from bots_server.core.item_response.model import ItemResponse
from bots_server.core.tasks import Tasks

# The inputs explain nothing if they account for less than EXPLAINED of the variance of the tasks' logits, or for less
# than is uncertain about it; that is said once the uncertainty is below KNOWN of what it was at first.
EXPLAINED = 0.05
KNOWN = 0.25


@dataclass(frozen=True, slots=True)
class InputWeight:
    """The weight of one input: by how much one unit of it moves the logit of a pass rate.

    A unit is a standard deviation of a feature, one of the logit of a reference, or having the tag.
    """

    input: str
    mean: float
    standard_deviation: float


@dataclass(frozen=True, slots=True)
class ItemResponseSummary:
    """The state of an item_response run at a glance."""

    ability: float  # logit of the pass rate, mean over the tasks, as the inputs predict it
    weights: tuple[InputWeight, ...]  # of all inputs but the intercept, the largest first
    residual_variance: float  # s2, variance of the logits that the inputs do not explain
    explained_share: float  # share in [0, 1] of the variance of the logits that the inputs explain
    inputs_explain_nothing: bool  # `explained_share` is below 0.05 or no more than noise, and not for lack of outcomes


def summarise(state: ItemResponse, tasks: Tasks) -> ItemResponseSummary:
    """Returns the summary, in O(d^2)."""
    average, scatter = tasks.input_moments
    spread = state.spread
    # The expected variance of x . theta over the tasks is known + unknown.
    known, unknown = state.mean @ scatter @ state.mean, (state.covariance * scatter).sum()
    at_first = tasks.inputs.variance @ np.diag(scatter)
    explained = known / (known + spread)
    columns = tasks.inputs.names, state.mean.tolist(), np.sqrt(np.diag(state.covariance)).tolist()
    weights = [InputWeight(*row) for row in zip(*columns, strict=True)][1:]
    return ItemResponseSummary(
        ability=float(average @ state.mean),
        weights=tuple(sorted(weights, key=lambda each: -abs(each.mean))),
        residual_variance=spread,
        explained_share=float(explained),
        inputs_explain_nothing=bool(
            len(state.mean) > 1 and unknown <= KNOWN * at_first and (explained < EXPLAINED or known < unknown)
        ),
    )
