"""The tasks of one dataset, arranged as selection and the fold need them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.strata import Strata


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """One dataset, immutable and shared by all its runs. N tasks, G strata, C nonempty cells (stratum x tag).

    strata:        the G strata
    stratum:       `[N]` uint16 or uint32, number of the task's stratum
    tag:           `[N]` uint8 or uint16, number of the task's tag in `tags`; None: the tasks have no tags
    tags:          names of the tags
    members:       `[N]` int32, the tasks in the order (stratum, tag, task)
    stratum_start: `[G + 1]` int64; stratum g is `members[stratum_start[g]:stratum_start[g + 1]]`
    cell_start:    `[C + 1]` int64; cell c is `members[cell_start[c]:cell_start[c + 1]]`
    cell_stratum:  `[C]` int64, ascending
    cell_tag:      `[C]` int64, ascending within a stratum; 0 where the tasks have no tags
    """

    strata: Strata
    stratum: NDArray[np.unsignedinteger]
    tag: NDArray[np.unsignedinteger] | None
    tags: tuple[str, ...]
    members: NDArray[np.int32]
    stratum_start: NDArray[np.int64]
    cell_start: NDArray[np.int64]
    cell_stratum: NDArray[np.int64]
    cell_tag: NDArray[np.int64]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.stratum)


def arrange(
    strata: Strata,
    stratum: NDArray[np.integer],
    tag: NDArray[np.integer] | None = None,
    tags: Sequence[str] = (),
) -> Tasks:
    """Returns the tasks of a dataset, given `[N]` the stratum and, where there are `tags`, `[N]` the tag of each."""
    narrow_stratum: type[np.unsignedinteger] = np.uint16 if len(strata) <= 2**16 else np.uint32
    narrow_tag: type[np.unsignedinteger] = np.uint8 if len(tags) <= 2**8 else np.uint16
    column = stratum.astype(narrow_stratum, copy=False)
    tag_column = None if tag is None else tag.astype(narrow_tag, copy=False)
    order = _stable_order(*(() if tag_column is None else (tag_column,)), column)
    by_stratum = column[order]
    first = np.ones(len(order), np.bool_)  # of its cell
    first[1:] = by_stratum[1:] != by_stratum[:-1]
    if tag_column is not None:
        by_tag = tag_column[order]
        first[1:] |= by_tag[1:] != by_tag[:-1]
    cells = np.flatnonzero(first)
    cell_start = np.append(cells, len(order))
    cell_stratum = by_stratum[cells].astype(np.int64)
    return Tasks(
        strata=strata,
        stratum=column,
        tag=tag_column,
        tags=tuple(tags),
        members=order.astype(np.int32),
        stratum_start=cell_start[cell_stratum.searchsorted(np.arange(len(strata) + 1))],
        cell_start=cell_start,
        cell_stratum=cell_stratum,
        cell_tag=np.zeros(len(cells), np.int64) if tag_column is None else by_tag[cells].astype(np.int64),
    )


def _stable_order(*columns: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Returns the order that sorts by the last column, then the one before it, ..., then the position.

    Sorts digit by digit, the least first: for 16 bits and below numpy's stable sort is a radix sort.
    """
    digits: list[NDArray[np.unsignedinteger]] = []
    for column in columns:
        if column.dtype.itemsize <= 2:
            digits.append(column)
        else:
            digits += [column.astype(np.uint16), (column >> np.uint32(16)).astype(np.uint16)]
    order = digits[0].argsort(kind="stable")
    for digit in digits[1:]:
        order = order[digit[order].argsort(kind="stable")]
    return order
