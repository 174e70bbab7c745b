"""How an uploaded dataset differs from the one that has its name: for the message of DatasetExists."""

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store, codec


def header_difference(there: storage.DatasetRecord, header: pb.DatasetHeader) -> str:
    """Returns how the dataset that has the name differs by what the header says; empty: it does not."""
    if there.size != header.size:
        return f"its size is {there.size}, not {header.size}"
    if there.reference_grid != header.reference_grid:
        return f"its reference_grid is {there.reference_grid:.16g}, not {header.reference_grid:.16g}"
    if there.has_ids != header.has_ids:
        return "it has ids" if there.has_ids else "it has no ids"
    theirs = {
        "reference": [one.name for one in there.references],
        "tag": [one.name for one in there.tags],
        "feature": list(there.features),
    }
    ours = {"reference": header.references, "tag": header.tags, "feature": header.features}
    for kind, names in theirs.items():
        for index in range(max(len(names), len(ours[kind]))):
            one, other = (f"{column[index]!r}" if index < len(column) else "absent" for column in (names, ours[kind]))
            if one != other:
                return f"its {kind} number {index} is {one}, not {other}"
    return ""


def content_difference(store: Store, there: storage.DatasetRecord, ours: storage.DatasetRecord) -> str:
    """Returns in which column and task two datasets of equal headers differ, as far as the stored columns tell.

    ours: the record of an upload that is still staged
    """
    sides = [TaskReader(store, record) for record in (there, ours)]
    first: dict[str, int] = {}
    task = 0
    while task < there.size:
        size = min(side.left() for side in sides)
        theirs, own = (side.take(size) for side in sides)
        for column, values in theirs.items():
            differs = (values != own[column]) & ((values == values) | (own[column] == own[column]))  # NaN equals NaN
            if differs.any():
                first.setdefault(column, task + int(np.argmax(differs.reshape(size, -1).any(axis=1))))
        task += size
    for column in theirs:
        if column in first:
            return f"its {column} of task {first[column]} differ"
    return "its reference pass rates differ by less than reference_grid"


class TaskReader:
    """Reads a stored dataset task by task, in pieces of any size."""

    def __init__(self, store: Store, record: storage.DatasetRecord) -> None:
        self._strata = codec.strata(store.datasets.strata(record))
        self._chunks = store.datasets.columns(record)
        self._columns: dict[str, NDArray[np.generic]] = {}
        self._left = 0

    def left(self) -> int:
        """Returns how many tasks can be taken now, at least 1."""
        if not self._left:
            chunk = codec.columns(next(self._chunks))
            strata = self._strata
            self._left = len(chunk.stratum)
            columns = {
                "references": strata.references[chunk.stratum],
                "features": chunk.features,
                "priors": np.stack([strata.prior_alpha[chunk.stratum], strata.prior_beta[chunk.stratum]], axis=1),
                "tag": chunk.tag,
                "ids": None if chunk.ids is None else np.array(chunk.ids.read(np.arange(len(chunk.ids))), object),
            }
            self._columns = {name: column for name, column in columns.items() if column is not None}
        return self._left

    def take(self, size: int) -> dict[str, NDArray[np.generic]]:
        """Returns the columns of the next tasks, by name, in the order of the fingerprint."""
        taken = {name: column[:size] for name, column in self._columns.items()}
        self._columns = {name: column[size:] for name, column in self._columns.items()}
        self._left -= size
        return taken
