"""From a message of the service to a frozen dataclass with the same fields."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")


def record(cls: type[T], message: Message, /, **converted: Any) -> T:
    """Returns a `cls`: each field from `converted`, or else the field of the same name of the message."""
    names = (field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    return cls(**{name: converted[name] if name in converted else getattr(message, name) for name in names})


def utc(timestamp: Timestamp) -> datetime:
    """Returns the time, aware of being in UTC."""
    return timestamp.ToDatetime(tzinfo=timezone.utc)
