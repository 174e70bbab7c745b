"""From a message of the service to a frozen dataclass: the one mapping, by field names and types.

A field of the dataclass takes the message's field of the same name. An absent field is None, a timestamp a datetime in
UTC, an enum its name without prefix in small letters, bytes are hexadecimal digits, a message is a nested dataclass, a
repeated field a tuple, or an array if the dataclass says so.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")


def record(cls: type[T], message: Message, /, **given: Any) -> T:
    """Returns a `cls`: each field from `given`, or else from the message."""
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    fields = message.DESCRIPTOR.fields_by_name
    return cls(
        **given,
        **{
            name: _value(message, fields[name], hint)
            for name, hint in hints.items()
            if name not in given and name in fields
        },
    )


def utc(timestamp: Timestamp) -> datetime:
    """Returns the time, aware of being in UTC."""
    return timestamp.ToDatetime(tzinfo=timezone.utc)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _value(message: Message, field: Any, hint: Any) -> Any:
    if _repeated(field):
        entries = getattr(message, field.name)
        if "ndarray" in str(hint):
            return np.array(entries, dtype=typing.get_args(typing.get_args(hint)[1])[0])
        kind: Any = typing.get_args(hint)[0]
        nested = dataclasses.is_dataclass(kind)
        return tuple(record(kind, entry) if nested else entry for entry in entries)
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            return utc(value)
        return record(_required(hint), value)
    if field.enum_type is not None:
        prefix = "".join("_" + part if part.isupper() else part for part in field.enum_type.name).lstrip("_").upper()
        return field.enum_type.values_by_number[value].name.removeprefix(prefix + "_").lower()
    return value.hex() if isinstance(value, bytes) else value


def _repeated(field: Any) -> bool:
    # protobuf 6.31 and later warn about `label`, and versions before lack `is_repeated`.
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _required(hint: Any) -> Any:
    """Returns X of `X | None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
