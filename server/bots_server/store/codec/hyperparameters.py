"""Hyperparameters: stored messages and the core's dataclass."""

from __future__ import annotations

from collections.abc import Mapping

from bots_server.core.hyperparameters import Hyperparameters
from bots_server.storage.v1 import storage_pb2 as storage


def stated(message: storage.Hyperparameters) -> dict[str, float]:
    """Returns the fields that are present, by name."""
    return {field.name: value for field, value in message.ListFields()}


def hyperparameters(message: storage.Hyperparameters) -> Hyperparameters:
    """Returns the hyperparameters of a message; an absent field has its default."""
    return Hyperparameters(**stated(message))  # type: ignore[arg-type]  # by name, with the types of the proto


def hyperparameters_message(values: Mapping[str, float]) -> storage.Hyperparameters:
    """Returns the message that states these values and no others."""
    return storage.Hyperparameters(**values)  # type: ignore[arg-type]  # by name, with the types of the proto
