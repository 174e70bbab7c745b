"""The inputs of the item_response model: what a dataset's columns say of a task, as d numbers.

x = [1; logit of each reference pass rate; one-hot tag; standardised features]. The one-hot part is never formed for all
tasks, and float64 copies exist for one block of tasks at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bots_server.core.arrays import Floats
from bots_server.core.strata import Strata

Float = TypeVar("Float", np.float32, np.float64)

MAX_TAGS = 128  # tags beyond the most frequent share one effect
MIN_REFERENCE = 0.03  # pass rates of 0 and 1 have no logit
OTHER_TAGS = "tag:other"

_BLOCK = 512  # rows at once, or more of few columns: as float64 they fit into the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The inputs of one dataset: d = 1 + R + T + F. R references, T effects of tags, F features, G strata."""

    names: tuple[str, ...]  # `[d]` "intercept", "reference:NAME", "prior", "tag:NAME", "tag:other", "feature:NAME"
    references: NDArray[np.float32]  # `[G, R]` logit of each reference pass rate of a stratum
    effect: NDArray[np.uint8]  # `[tags]` which of the T effects a tag has; `[0]`: no tags
    mean: Floats  # `[d]` prior mean of the weights
    variance: Floats  # `[d]` prior variance of the weights
    walk: Floats  # `[d]` variance that an update adds to the weights if the drift is 1


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The columns of n tasks, or of n cells."""

    stratum: NDArray[np.integer]  # `[n]`
    tag: NDArray[np.integer] | None  # `[n]`; None: the tasks have no tags
    features: NDArray[np.float32] | None  # `[n, F]` standardised; None: the tasks have no features

    def __len__(self) -> int:
        return len(self.stratum)

    def part(self, which: NDArray[np.integer] | slice) -> "Rows":
        tag = None if self.tag is None else self.tag[which]
        return Rows(self.stratum[which], tag, None if self.features is None else self.features[which])


def arrange(
    strata: Strata,
    stratum_tasks: NDArray[np.integer],
    tag_tasks: NDArray[np.integer],
    reference_names: Sequence[str],
    tags: Sequence[str],
    feature_names: Sequence[str],
) -> Inputs:
    """Returns the inputs of a dataset with `[G]` tasks in each stratum and `[tags]` tasks of each tag.

    A missing reference is replaced by the mean logit of its column, as a missing feature is by the column's mean: it
    says nothing then of how the task differs from others. A prior other than Beta(1, 1) is one more reference, with
    pass rate a0 / (a0 + b0). As for every reference, outcomes teach what it is worth, so a0 + b0 has no effect.

    All features together move a logit by some 3 under their prior, however many they are. With a narrow prior pass
    rates are predicted close to each other for a long time; a wide one costs little if the features tell nothing.
    """
    pass_rates, names = strata.references.astype(np.float64), [f"reference:{name}" for name in reference_names]
    uniform = (strata.prior_alpha == 1) & (strata.prior_beta == 1)
    if not uniform.all():
        expected = np.where(uniform, np.nan, strata.prior_alpha / (strata.prior_alpha + strata.prior_beta))
        pass_rates, names = np.column_stack((pass_rates, expected)), [*names, "prior"]
    clipped = np.clip(pass_rates, MIN_REFERENCE, 1 - MIN_REFERENCE)
    logits = np.log(clipped / (1 - clipped))
    known = ~np.isnan(logits)
    mean = (stratum_tasks @ np.where(known, logits, 0.0)) / np.maximum(stratum_tasks @ known, 1)
    effect, tag_names = _effects(tag_tasks, tags)
    r, t, f = len(names), len(tag_names), len(feature_names)

    def each(intercept: float, reference: float, tag: float, feature: float) -> Floats:
        return np.repeat([intercept, reference, tag, feature], [1, r, t, f])

    return Inputs(
        names=("intercept", *names, *tag_names, *(f"feature:{name}" for name in feature_names)),
        references=np.where(known, logits, mean).astype(np.float32),
        effect=effect,
        mean=each(0.0, 1 / max(r, 1), 0.0, 0.0),
        variance=each(4.0, 0.25, 4.0, 10 / max(f, 1)),
        walk=each(1.0, 0.05, 0.25, 0.25 / max(f, 1)),
    )


def matrix(inputs: Inputs, rows: Rows) -> Floats:
    """Returns `[n, d]` x of some rows, which are few."""
    r, d = inputs.references.shape[1], len(inputs.names)
    x = np.zeros((len(rows), d))
    x[:, 0] = 1
    x[:, 1 : 1 + r] = inputs.references[rows.stratum]
    if rows.tag is not None:
        x[np.arange(len(rows)), 1 + r + inputs.effect[rows.tag]] = 1
    if rows.features is not None:
        x[:, d - rows.features.shape[1] :] = rows.features
    return x


def project(
    inputs: Inputs, rows: Rows, mean: Floats, covariance: Floats, precision: type[Float]
) -> tuple[NDArray[Float], NDArray[Float]]:
    """Returns `[n]` x.mean and `[n]` x'(covariance)x of any number of rows, in O(n (1 + R + F)^2).

    precision: of the arithmetic by row. As x'(covariance)x is a sum of squares here, in float32 too it is exact to one
               in 10^5.
    """
    r, f = inputs.references.shape[1], 0 if rows.features is None else rows.features.shape[1]
    index = np.arange(len(inputs.names))
    numeric, tagged = np.r_[index[1 : 1 + r], index[len(index) - f :]], index[1 + r : len(index) - f]
    order = np.concatenate((numeric, index[:1], tagged))
    # |root' x|^2, of which the first columns are of the numeric inputs alone but for what the intercept and a tag add.
    root = np.linalg.cholesky(covariance[np.ix_(order, order)])
    among, alone = root[: r + f, : r + f].astype(precision), root[r + f : r + f + 1]
    weights, alone_mean = mean[numeric].astype(precision), mean[:1]
    if len(tagged):  # one row for each effect
        alone, alone_mean = alone + root[r + f + 1 :], alone_mean + mean[tagged]
    alone_mean, alone_variance = alone_mean.astype(precision), np.square(alone[:, r + f :]).sum(1).astype(precision)
    added = alone[:, : r + f].astype(precision)
    means, variances = np.empty(len(rows), precision), np.empty(len(rows), precision)
    size = min(len(rows), max(_BLOCK, 65_536 // max(r + f, 1)))
    x, product = np.empty((size, r + f), precision), np.empty((size, r + f), precision)
    for start in range(0, len(rows), max(size, 1)):
        block = slice(start, start + size)
        part = rows.part(block)
        filled = x[: len(part)]
        filled[:, :r] = inputs.references[part.stratum]
        if part.features is not None:
            filled[:, r:] = part.features
        effect: NDArray[np.uint8] | slice = slice(None) if part.tag is None else inputs.effect[part.tag]
        means[block] = filled @ weights + alone_mean[effect]
        columns = np.matmul(filled, among, out=product[: len(part)])
        columns += added[effect]
        variances[block] = np.einsum("ij,ij->i", columns, columns) + alone_variance[effect]
    return means, variances


def moments(inputs: Inputs, rows: Rows, tasks: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Returns `[d]` mean and `[d, d]` covariance of x over the tasks, of which each row stands for `[n]` many."""
    d = len(inputs.names)
    average, second = np.zeros(d), np.zeros((d, d))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        x = matrix(inputs, rows.part(block))
        weighted = x * tasks[block, None]
        average += weighted.sum(0)
        second += weighted.T @ x
    average /= tasks.sum()
    return average, second / tasks.sum() - np.outer(average, average)


def _effects(tasks: NDArray[np.integer], tags: Sequence[str]) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns `[tags]` which effect each tag has, and the names of the effects."""
    largest = np.sort(np.argsort(-tasks, kind="stable")[:MAX_TAGS])
    effect = np.full(len(tags), MAX_TAGS, np.uint8)
    effect[largest] = np.arange(len(largest))
    names = [f"tag:{tags[tag]}" for tag in largest.tolist()]
    return effect, names if len(tags) <= MAX_TAGS else [*names, OTHER_TAGS]
