"""Conversions between stored messages and the core.

Reading raises ServerTooOld for a message that this build does not understand: one with a greater `min_reader` than
READER, or of an unknown kind. Fields that this build does not know are ignored, because a writer raises `min_reader` if
they change the result. Arrays are read back bit for bit.
"""

from bots_server.store.codec.datasets import Columns, columns, columns_message, strata, strata_message
from bots_server.store.codec.events import core_event, stored_event
from bots_server.store.codec.hyperparameters import hyperparameters, hyperparameters_message, stated
from bots_server.store.codec.snapshots import posterior, snapshot_message

__all__ = [
    "Columns",
    "columns",
    "columns_message",
    "core_event",
    "hyperparameters",
    "hyperparameters_message",
    "posterior",
    "snapshot_message",
    "stated",
    "stored_event",
    "strata",
    "strata_message",
]
