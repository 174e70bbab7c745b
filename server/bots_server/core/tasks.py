"""The tasks of one dataset, arranged for selection and the fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bots_server.core import inputs as columns
from bots_server.core.arrays import Floats, Ints
from bots_server.core.inputs import Inputs, Rows
from bots_server.core.strata import Strata


@dataclass(frozen=True, eq=False)
class Tasks:
    """One dataset, immutable and shared by all its runs.

    N tasks, G strata, C nonempty cells (stratum x tag), R references, F features.
    """

    strata: Strata
    stratum: NDArray[np.unsignedinteger]  # `[N]` uint16 or uint32, number of the task's stratum
    tag: NDArray[np.unsignedinteger] | None  # `[N]` uint8 or uint16, number in `tags`; None: the tasks have no tags
    tags: tuple[str, ...]
    members: NDArray[np.int32]  # `[N]` the tasks in the order (stratum, tag, task)
    stratum_start: Ints  # `[G + 1]`; stratum g is `members[stratum_start[g]:stratum_start[g + 1]]`
    cell_start: Ints  # `[C + 1]`; cell c is `members[cell_start[c]:cell_start[c + 1]]`
    cell_stratum: Ints  # `[C]` ascending
    cell_tag: Ints  # `[C]` ascending within a stratum; 0 if the tasks have no tags
    cell_key: Ints  # `[C]` ascending: cell_stratum * number of tags + cell_tag
    reference_names: tuple[str, ...]
    weak: NDArray[np.float32]  # `[G]` pass rate at capability 0; 0 if only `strong` is known, NaN if neither is
    strong: NDArray[np.float32]  # `[G]` pass rate at capability 1; 1 if only `weak` is known, NaN if neither is
    features: NDArray[np.float32] | None  # `[N, F]` each of mean 0 and variance 1, 0 if missing; None: F = 0
    feature_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stratum)

    def cell_of(self, which: NDArray[np.integer]) -> Ints:
        """Returns the cell of each task."""
        stratum = self.stratum.take(which).astype(np.int64)
        if self.tag is not None:
            stratum *= len(self.tags)
            stratum += self.tag.take(which)
        elif len(self.cell_stratum) == len(self.strata):  # no stratum is empty
            return stratum
        return self.cell_key.searchsorted(stratum)

    def tag_of(self, which: Ints) -> NDArray[np.integer]:
        """Returns the tag of each task; 0 if the tasks have no tags."""
        return np.zeros(len(which), np.int64) if self.tag is None else self.tag.take(which)

    @cached_property
    def cell_size(self) -> Ints:
        """`[C]` number of tasks of each cell."""
        return np.diff(self.cell_start)

    @cached_property
    def inputs(self) -> Inputs:
        """The inputs of the item_response model."""
        tag_tasks = np.bincount(self.cell_tag, self.cell_size, len(self.tags))[: len(self.tags)]
        stratum_tasks = np.diff(self.stratum_start)
        names = self.reference_names, self.tags, self.feature_names
        return columns.arrange(self.strata, stratum_tasks, tag_tasks, *names)

    @cached_property
    def input_moments(self) -> tuple[Floats, Floats]:
        """`[d]` mean and `[d, d]` covariance of the inputs over the tasks."""
        if self.features is None:
            cells = Rows(self.cell_stratum, None if self.tag is None else self.cell_tag, None)
            return columns.moments(self.inputs, cells, self.cell_size)
        every = Rows(self.stratum, self.tag, self.features)
        return columns.moments(self.inputs, every, np.ones(len(self), np.int64))


def arrange(
    strata: Strata,
    stratum: NDArray[np.integer],
    tag: NDArray[np.integer] | None = None,
    tags: Sequence[str] = (),
    *,
    reference_names: Sequence[str] = (),
    features: NDArray[np.float32] | None = None,
    feature_names: Sequence[str] = (),
) -> Tasks:
    """Returns the tasks of a dataset.

    stratum:       `[N]` the stratum of each task
    tag:           `[N]` index into `tags` of each task; None: no tags
    reference_names: of the columns of `strata.references`
    features:      `[N, F]` as given, NaN: missing
    feature_names: names of the features; empty: "feature 0", "feature 1", ...
    """
    narrow_stratum: type[np.unsignedinteger] = np.uint16 if len(strata) <= 2**16 else np.uint32
    narrow_tag: type[np.unsignedinteger] = np.uint8 if len(tags) <= 2**8 else np.uint16
    column = stratum.astype(narrow_stratum, copy=False)
    tag_column = None if tag is None else tag.astype(narrow_tag, copy=False)
    # Digits of 16 bits, the least first: numpy's stable sort of those is a radix sort.
    digits = [column] if len(strata) <= 2**16 else [column.astype(np.uint16), (column >> 16).astype(np.uint16)]
    order = np.lexsort(digits if tag_column is None else [tag_column, *digits])
    by_stratum = column[order]
    first = np.ones(len(order), np.bool_)  # of its cell
    first[1:] = by_stratum[1:] != by_stratum[:-1]
    if tag_column is not None:
        by_tag = tag_column[order]
        first[1:] |= by_tag[1:] != by_tag[:-1]
    cells = np.flatnonzero(first)
    cell_start = np.append(cells, len(order))
    cell_stratum = by_stratum[cells].astype(np.int64)
    cell_tag = np.zeros(len(cells), np.int64) if tag_column is None else by_tag[cells].astype(np.int64)
    weak, strong = _ends(strata, reference_names)
    width = 0 if features is None else features.shape[1]
    return Tasks(
        strata=strata,
        stratum=column,
        tag=tag_column,
        tags=tuple(tags),
        members=order.astype(np.int32),
        stratum_start=cell_start[cell_stratum.searchsorted(np.arange(len(strata) + 1))],
        cell_start=cell_start,
        cell_stratum=cell_stratum,
        cell_tag=cell_tag,
        cell_key=cell_stratum if tag_column is None else cell_stratum * len(tags) + cell_tag,
        reference_names=tuple(reference_names),
        weak=weak,
        strong=strong,
        features=None if features is None or width == 0 else _standardised(features),
        feature_names=tuple(feature_names) or tuple(f"feature {k}" for k in range(width)),
    )


def _ends(strata: Strata, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns `[G]` pass rates at capability 0 and 1: the references "weak" and "strong", of which one is enough."""
    missing = np.full(len(strata), np.nan, np.float32)
    rates = dict(zip(names, strata.references.T, strict=True))
    weak, strong = rates.get("weak", missing), rates.get("strong", missing)
    low = np.where(np.isnan(weak) & ~np.isnan(strong), np.float32(0), weak)
    high = np.where(np.isnan(strong) & ~np.isnan(weak), np.float32(1), strong)
    return low, high


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns `[N, F]` features with mean 0 and standard deviation 1; missing (NaN) and constant ones are 0."""
    result = np.empty(features.shape, np.float32)
    for k, column in enumerate(features.T):
        values = column.astype(np.float64)
        known = ~np.isnan(values)
        mean = values[known].mean() if known.any() else 0.0
        values -= mean
        values[~known] = 0.0
        spread = np.sqrt(np.square(values).sum() / max(np.count_nonzero(known), 1))
        # A constant column has a spread of rounding alone.
        result[:, k] = values / spread if spread > 1e-6 * max(abs(mean), 1e-30) else 0.0
    return result
