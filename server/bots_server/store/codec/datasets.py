"""Strata and columns of datasets: stored messages and arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.strata import Strata
from bots_server.core.task_ids import Texts, from_lengths
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store.codec.arrays import pack, rows, unpack


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of n consecutive tasks.

    stratum:  `[n]` uint32
    tag:      `[n]` uint32; None: the dataset has no tags
    ids:      n texts; None: it has no ids
    features: `[n, F]` float32; None: it has no features
    """

    stratum: NDArray[np.uint32]
    tag: NDArray[np.uint32] | None
    ids: Texts | None
    features: NDArray[np.float32] | None


def strata_message(strata: Strata) -> storage.StrataTable:
    """Returns the message of a dataset's strata."""
    return storage.StrataTable(
        references=pack(strata.references, "<f4"),
        prior_alpha=pack(strata.prior_alpha, "<f8"),
        prior_beta=pack(strata.prior_beta, "<f8"),
    )


def strata(table: storage.StrataTable) -> Strata:
    """Returns the strata of a dataset."""
    prior_alpha = unpack(table.prior_alpha, "<f8", np.float64)
    return Strata(
        references=rows(table.references, len(prior_alpha)),
        prior_alpha=prior_alpha,
        prior_beta=unpack(table.prior_beta, "<f8", np.float64),
    )


def columns_message(
    *,
    stratum: NDArray[np.integer],
    tag: NDArray[np.integer] | None = None,
    ids: Texts | None = None,
    features: NDArray[np.float32] | None = None,
) -> storage.TaskColumns:
    """Returns the message of the columns of consecutive tasks, shaped as in `Columns`."""
    message = storage.TaskColumns(size=len(stratum), stratum=pack(stratum, "<u4"))
    if tag is not None:
        message.tag = pack(tag, "<u4")
    if ids is not None:
        message.ids = ids.text[:-8].tobytes()
        message.id_lengths = pack(np.diff(ids.start), "<u4")
    if features is not None:
        message.features = pack(features, "<f4")
    return message


def columns(message: storage.TaskColumns) -> Columns:
    """Returns the columns of consecutive tasks."""
    return Columns(
        stratum=unpack(message.stratum, "<u4", np.uint32),
        tag=unpack(message.tag, "<u4", np.uint32) if message.tag else None,
        ids=from_lengths(message.ids, np.frombuffer(message.id_lengths, "<u4")) if message.id_lengths else None,
        features=rows(message.features, message.size) if message.features else None,
    )
