"""The rules of requests. Each check returns what it was given, or raises InvalidField (guarantee 7).

A handler checks its whole request before it asks the store to change anything.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from bots_server.api.callers import caller
from bots_server.errors import DatasetNotFound, Described, InvalidField
from bots_server.runs.dataset import Dataset

MAX_JOB_BYTES = 128
MAX_INCARNATION_BYTES = 64
MAX_PAGE = 1_000

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UID = re.compile(r"(?:[0-9a-f]{32})?")
_UUID = re.compile(r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?", re.IGNORECASE | re.ASCII)
_TOKEN_DIGITS = 16
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp")  # Unicode's categories of controls, formats such as direction, line separators
_JOINERS = "\u200c\u200d"  # formats that some scripts and emoji need

Number = TypeVar("Number", int, float)


def require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raises InvalidField unless the rule holds."""
    if not holds:
        raise InvalidField(field, value, rule)


def name(field: str, value: str) -> str:
    """Returns the name of a dataset, run, checkpoint or reference."""
    require(bool(_NAME.fullmatch(value)), field, value, "must match [a-z0-9][a-z0-9._-]{0,62}")
    return value


def dataset(field: str, value: str) -> str:
    """Returns the name of a dataset that may exist for the caller. Raises DatasetNotFound, as if there were none."""
    name(field, value)
    if not caller().may_see(value):
        raise DatasetNotFound(value)
    return value


def uid(field: str, value: str) -> str:
    """Returns 32 hexadecimal digits, or the empty string if it is not given."""
    require(bool(_UID.fullmatch(value)), field, value, "must be 32 hexadecimal digits, or empty")
    return value


def text(field: str, value: str, high: int, low: int = 0) -> str:
    """Returns text of a length in bytes, without invisible characters."""
    length = len(value.encode())
    if not low <= length <= high:
        rule = f"must be at most {high} bytes" if low == 0 else f"must be between {low} and {high} bytes"
        raise InvalidField(field, Described(f"{length} bytes"), rule)
    visible = value.isprintable() or not any(category(one) in _INVISIBLE and one not in _JOINERS for one in value)
    require(visible, field, value, "must be without control characters and invisible ones")
    return value


def job(value: str) -> str:
    return text("job", value, MAX_JOB_BYTES)


def incarnation(value: str) -> str:
    return text("incarnation", value, MAX_INCARNATION_BYTES)


def request_id(value: str) -> str:
    """Returns a UUID in lower case, or the empty string if it is not given."""
    rule = "must be a UUID in its 36-character text form, or empty"
    require(bool(_UUID.fullmatch(value)), "request_id", value, rule)
    return value.lower()


def request_age_ms(value: float) -> int:
    """Returns the age of a request in milliseconds, from seconds."""
    require(0 <= value <= 1e12, "request_age_seconds", value, "must be at least 0 and finite")
    return math.ceil(value * 1000)


def within(field: str, value: Number, low: Number, high: Number) -> Number:
    """Returns a number between two others, inclusive. NaN is refused."""
    if not low <= value <= high:
        raise InvalidField(field, value, f"must be between {low:.16g} and {high:.16g}")
    return value


def above_zero(field: str, value: float, high: float) -> float:
    """Returns a number above 0 and at most `high`. NaN is refused."""
    require(0 < value <= high, field, value, f"must be above 0 and at most {high:.16g}")
    return value


def at_least_zero(field: str, value: int) -> int:
    """Returns a number that is at least 0."""
    require(value >= 0, field, value, "must be at least 0")
    return value


def entries(field: str, values: Sequence[object], low: int, high: int) -> None:
    """Raises InvalidField unless the number of entries is between two others, inclusive."""
    if not low <= len(values) <= high:
        rule = f"must have {low} entries" if low == high else f"must have between {low} and {high} entries"
        raise InvalidField(field, Described(f"{len(values)} entries"), rule)


def distinct(field: str, values: Sequence[str]) -> None:
    """Raises InvalidField for the first entry that an earlier one equals."""
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        at = first.setdefault(value, index)
        require(at == index, f"{field}[{index}]", value, f"must differ from {field}[{at}]")


def column(field: str, values: NDArray[np.generic], valid: NDArray[np.bool_], rule: str) -> None:
    """Raises InvalidField for the first entry that is not valid."""
    if not valid.all():
        first = int(np.argmin(valid))
        raise InvalidField(f"{field}[{first}]", values[first].item(), rule)


def whole(field: str, values: Sequence[int], low: int, high: int) -> NDArray[np.int64]:
    """Returns whole numbers, each between two others, inclusive."""
    found = np.array(values, dtype=np.int64)
    column(field, found, (found >= low) & (found <= high), f"must be between {low} and {high}")
    return found


@dataclass(frozen=True)
class Page:
    """A page that is asked for."""

    listing: Sequence[str]  # what is listed: the token of another listing is refused
    size: int  # most items
    after: str  # the item that the page before ended with; empty: this is the first page

    def token(self, last: str) -> str:
        """Returns the token of the page after the item `last`: a digest that tells it from other text, and the item."""
        content = "\0".join((*self.listing, last)).encode()
        return hashlib.blake2b(content, digest_size=_TOKEN_DIGITS // 2).hexdigest() + last

    def next_token(self, found: Sequence[str]) -> str:
        """Returns the token of the next page, from the names of this one's items; empty if there is none."""
        return self.token(found[-1]) if len(found) == self.size else ""


def page(page_size: int, page_token: str, *listing: str, high: int = MAX_PAGE) -> Page:
    """Returns the page that is asked for: of 100 items if its size is not given."""
    size = within("page_size", page_size, 1, high) if page_size else 100
    asked = Page(listing, size, page_token[_TOKEN_DIGITS:])
    made = not page_token or page_token == asked.token(asked.after)
    require(made, "page_token", page_token, "must be a next_page_token of this listing")
    return asked


def tasks(
    dataset: Dataset,
    indices: Sequence[int],
    ids: Sequence[str],
    low: int,
    high: int,
    fields: tuple[str, str] = ("tasks", "ids"),
) -> NDArray[np.int64]:
    """Returns between `low` and `high` tasks that a column of indices or one of ids names, never both.

    fields: names of the two columns
    """
    if indices and ids:
        raise InvalidField(fields[1], Described(f"{len(ids)} entries"), f"must be absent if {fields[0]} is given")
    entries(fields[1] if ids else fields[0], ids or indices, low, high)
    if not (indices or ids):
        return np.empty(0, np.int64)
    if not ids:
        return whole(fields[0], indices, 0, len(dataset.tasks) - 1)
    require(dataset.ids is not None, fields[1], ids[0], f"must be absent: dataset {dataset.record.name!r} has no ids")
    assert dataset.ids is not None
    found = dataset.ids.find(ids)
    if (found < 0).any():
        first = int(np.argmax(found < 0))
        raise InvalidField(f"{fields[1]}[{first}]", ids[first], "must be an id of the dataset")
    return found


def tag(dataset: Dataset, field: str, value: str) -> int:
    number = dataset.tag_numbers.get(value)
    if number is None:
        raise InvalidField(field, value, f"must be a tag of dataset {dataset.record.name!r}")
    return number


def successes(values: Sequence[float], rollouts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns success counts, each between 0 and the rollouts of its entry."""
    counts = np.array(values, dtype=np.float64)
    valid = (counts >= 0) & (counts <= rollouts)
    most = rollouts[valid.argmin()]  # of the first that is not valid
    column("successes", counts, valid, f"must be between 0 and the entry's rollouts, {most}")
    return counts
