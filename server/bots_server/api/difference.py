"""How an uploaded dataset differs from the one that has its name: for the message of DatasetExists."""

from collections.abc import Iterator
from itertools import zip_longest

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
    for kind, theirs, ours in (
        ("reference", [one.name for one in there.references], header.references),
        ("tag", [one.name for one in there.tags], header.tags),
        ("feature", there.features, header.features),
    ):
        for index, (one, other) in enumerate(zip_longest(map(repr, theirs), map(repr, ours), fillvalue="absent")):
            if one != other:
                return f"its {kind} number {index} is {one}, not {other}"
    return ""


def content_difference(store: Store, there: storage.DatasetRecord, ours: storage.DatasetRecord) -> str:
    """Returns in which column and task two datasets of equal headers differ, as far as the stored columns tell.

    ours: the record of an upload that is still staged
    """
    sides = [stored_columns(store, record) for record in (there, ours)]
    theirs, own = next(sides[0]), next(sides[1])
    first, task = dict[str, int](), 0
    while task < there.size:
        theirs = theirs if len(theirs["priors"]) else next(sides[0])
        own = own if len(own["priors"]) else next(sides[1])
        size = min(len(theirs["priors"]), len(own["priors"]))  # every dataset has priors
        for name in theirs:
            one, other = theirs[name][:size], own[name][:size]
            differs = (one != other) & ((one == one) | (other == other))  # NaN equals NaN
            if differs.any():
                first.setdefault(name, task + int(np.argmax(differs.reshape(size, -1).any(axis=1))))
        theirs, own = ({name: column[size:] for name, column in side.items()} for side in (theirs, own))
        task += size
    for name in theirs:
        if name in first:
            return f"its {name} of task {first[name]} differ"
    return "its reference pass rates differ by less than reference_grid"


def stored_columns(store: Store, record: storage.DatasetRecord) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yields the columns of a stored dataset, chunk by chunk, by name, in the order of the fingerprint."""
    strata = codec.strata(store.datasets.strata(record))
    for message in store.datasets.columns(record):
        chunk = codec.columns(message)
        columns = {
            "references": strata.references[chunk.stratum],
            "features": chunk.features,
            "priors": np.stack([strata.prior_alpha[chunk.stratum], strata.prior_beta[chunk.stratum]], axis=1),
            "tag": chunk.tag,
            "ids": None if chunk.ids is None else np.array(chunk.ids.read(np.arange(len(chunk.ids))), object),
        }
        yield {name: column for name, column in columns.items() if column is not None}
