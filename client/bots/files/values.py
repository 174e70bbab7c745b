"""Cells of a file as texts and numbers. Nothing is guessed; a cell that is neither is a BadValue.

A text is the text as written: a cell of CSV, a string or a number of JSON as it stands there (007 of CSV, 1e3 of JSON).
A typed file has no written text for what is no string: there an integer is its decimal digits, a float must be whole
and is its digits (pandas makes floats of integers beside missing values), 16 raw bytes are a UUID, other bytes are
UTF-8, a date is ISO 8601, and true and false are those words.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bots.files.errors import BadValue

# Words for "not measured", in lower case.
MISSING = frozenset(("", "na", "n/a", "nan", "none", "null"))
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
EXACT_FLOATS = 2.0**53


def listed(column: Any) -> list[Any]:
    """Returns the cells of a column as a list; dates as ISO 8601."""
    if not isinstance(column, pa.Array):
        return list(column)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.string())
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        # A column of text that is not UTF-8: as bytes, so that the cell can be named.
        return column.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]


def texts(column: Any) -> list[str | None]:
    """Returns the texts of a column; None if a cell has none. BadValue: a cell is a list or an object."""
    values = listed(column)
    return [value if type(value) is str else _text(index, value) for index, value in enumerate(values)]


def numbers(column: Any, percent: bool = False) -> npt.NDArray[np.float64]:
    """Returns the numbers of a column as `[n]`; NaN if a cell has none. BadValue: a cell is something else.

    percent  a number may end in a percent sign, which is left out.
    """
    if isinstance(column, pa.Array) and _is_number(column.type):
        if pa.types.is_decimal(column.type) or pa.types.is_boolean(column.type):
            column = column.cast(pa.float64())
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values = listed(column)
    found = (_number(index, value, percent) for index, value in enumerate(values))
    return np.fromiter(found, dtype=np.float64, count=len(values))


def prose(column: Any) -> list[str]:
    """Returns the texts of a column of prompts: of a conversation (messages with `content`), the contents in order.

    A missing text is empty. BadValue: a cell is something else.
    """
    return [_encodable(index, _prose(index, value)) for index, value in enumerate(listed(column))]


def _is_number(kind: Any) -> bool:
    types = pa.types
    return any(of(kind) for of in (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean))


def _text(index: int, value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return None if value == "NaN" else str(value)
        case int():
            return str(value)
        case float() if value != value:
            return None
        case float() if value.is_integer() and abs(value) < EXACT_FLOATS:
            return str(int(value))
        case float():
            raise BadValue(index, value, "must be text or a whole number")
        case bytes() if len(value) == 16:
            return str(uuid.UUID(bytes=value))
        case bytes():
            return _decoded(index, value, "must be UTF-8 text, or 16 bytes of a UUID")
        case list() | dict():
            raise BadValue(index, value, f"must be text or a number, not {_sort(value)}")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return str(value)


def _number(index: int, value: Any, percent: bool) -> float:
    match value:
        case None:
            return np.nan
        case bool() | int() | float() | Decimal():
            return float(value)
        case bytes() | str():
            text = value.decode(errors="replace") if isinstance(value, bytes) else value.strip()
            if text.lower() in MISSING:
                return np.nan
            if NUMBER.fullmatch(text.removesuffix("%") if percent else text):
                return float(text.removesuffix("%"))
            rule = "must be a number"
            if text.endswith("%"):
                rule += "; for percentages use --scale 100"
            elif NUMBER.fullmatch(text.replace(",", ".", 1)):
                rule += " with a decimal point"
            raise BadValue(index, value, rule)
        case list() | dict():
            raise BadValue(index, value, f"must be a number, not {_sort(value)}")
        case _:
            raise BadValue(index, value, "must be a number")


def _prose(index: int, value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return str(value)
        case bytes():
            return _decoded(index, value, "must be UTF-8 text")
        case list() if all(isinstance(message, dict) and "content" in message for message in value):
            return "\n".join(_content(index, value, message["content"]) for message in value)
        case _:
            raise BadValue(index, value, "must be text, or a list of messages that have `content`")


def _decoded(index: int, value: bytes, rule: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadValue(index, value, rule) from None


def _encodable(index: int, text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadValue(index, text, "must be UTF-8: convert the file") from None
    return text


def _content(index: int, value: Any, content: Any) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "\n".join(_texts_of_parts(content))
        case _:
            raise BadValue(index, value, "must be messages whose `content` is text")


def _texts_of_parts(parts: Iterable[Any]) -> Iterable[str]:
    """Yields the texts of a message in several parts; images and the like have none."""
    return (part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _sort(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object: name a field inside it, such as {next(iter(value), 'name')!r} after a dot"
    return "a list"
