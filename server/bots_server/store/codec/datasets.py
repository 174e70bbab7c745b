"""Strata and columns of datasets: stored messages and arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bots_server.core.strata import Strata
from bots_server.core.task_ids import Texts, from_lengths
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store.codec.arrays import floats, pack, packed, rows, unpack


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of n consecutive tasks.

    stratum:  `[n]` whole numbers; read: uint32
    tag:      `[n]` whole numbers; read: uint32; None: the dataset has no tags
    ids:      n texts; None: it has no ids
    features: `[n, F]` float32; None: it has no features
    """

    stratum: NDArray[np.integer]
    tag: NDArray[np.integer] | None = None
    ids: Texts | None = None
    features: NDArray[np.float32] | None = None


def strata_message(strata: Strata) -> storage.StrataTable:
    """Returns the message of a dataset's strata."""
    return storage.StrataTable(**packed(strata, references="<f4", prior_alpha="<f8", prior_beta="<f8"))


def strata(table: storage.StrataTable) -> Strata:
    """Returns the strata of a dataset."""
    alpha, beta = floats(table.prior_alpha), floats(table.prior_beta)
    return Strata(rows(table.references, len(alpha)), alpha, beta)


def columns_message(columns: Columns) -> storage.TaskColumns:
    """Returns the message of the columns of consecutive tasks."""
    ids = columns.ids
    return storage.TaskColumns(
        size=len(columns.stratum),
        ids=b"" if ids is None else ids.text[:-8].tobytes(),
        id_lengths=b"" if ids is None else pack(np.diff(ids.start), "<u4"),
        **packed(columns, stratum="<u4", tag="<u4", features="<f4"),
    )


def columns(message: storage.TaskColumns) -> Columns:
    """Returns the columns of consecutive tasks."""
    return Columns(
        stratum=unpack(message.stratum, "<u4", np.uint32),
        tag=unpack(message.tag, "<u4", np.uint32) if message.tag else None,
        ids=from_lengths(message.ids, np.frombuffer(message.id_lengths, "<u4")) if message.id_lengths else None,
        features=rows(message.features, message.size) if message.features else None,
    )
