"""Uniform selection while the service is away, over what is known of a dataset. Pure: knows no batch and no run."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bots.errors import FailedPreconditionError, invalid

# A dataset with more text than this has no ids in fallback.
MOST_BYTES = 256 << 20

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Texts:
    """Many strings in little memory: their UTF-8 joined, and `[n + 1]` offsets."""

    joined: bytes
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Returns the strings packed."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(b"".join(encoded), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.joined[self.offsets[row] : self.offsets[row + 1]].decode()

    @functools.cached_property
    def _hashes(self) -> tuple[npt.NDArray[np.int64], Rows]:
        hashes = np.fromiter((hash(self[row]) for row in range(len(self))), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def row(self, text: str) -> int | None:
        """Returns the row of a string; None: it is not there."""
        hashes, order = self._hashes
        at = int(np.searchsorted(hashes, hash(text)))
        while at < len(hashes) and hashes[at] == hash(text):
            if self[int(order[at])] == text:
                return int(order[at])
            at += 1
        return None


def packed_ids(ids: Sequence[str] | None) -> Texts | None:
    """Returns the ids of a dataset packed; None: it has none, or too many to keep."""
    if ids is None or sum(map(len, ids)) + 8 * len(ids) > MOST_BYTES:
        return None
    return Texts.of(ids)


@dataclass(frozen=True, eq=False)
class KnownTasks:
    """What this process knows of a dataset.

    ids   None: the dataset has none, or too many to keep (`has_ids` tells).
    tags  tag -> number of tasks.
    tag   `[size]` index into tags; None: not known, or there are no tags.
    """

    size: int
    has_ids: bool
    ids: Texts | None = None
    tags: Mapping[str, int] = field(default_factory=dict)
    tag: npt.NDArray[np.int64] | None = None

    @functools.cached_property
    def members(self) -> dict[str, Rows]:
        """The rows of each tag, ascending."""
        assert self.tag is not None
        order = np.argsort(self.tag, kind="stable")
        counts = np.bincount(self.tag, minlength=len(self.tags))
        return dict(zip(self.tags, np.split(order, np.cumsum(counts)[:-1]), strict=True))

    def packed(self) -> bytes:
        """Returns this as bytes, for a file."""
        head = {"size": self.size, "has_ids": self.has_ids, "tags": dict(self.tags)}
        parts = [
            json.dumps(head).encode(),
            b"" if self.tag is None else self.tag.astype("<i8").tobytes(),
            b"" if self.ids is None else self.ids.offsets.astype("<i8").tobytes(),
            b"" if self.ids is None else self.ids.joined,
        ]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    @classmethod
    def unpacked(cls, content: bytes) -> KnownTasks:
        """Returns what `packed` made bytes of."""
        parts = []
        while content:
            end = 8 + int.from_bytes(content[:8], "little")
            parts.append(content[8:end])
            content = content[end:]
        head, tag, offsets, joined = parts
        return cls(
            **json.loads(head),
            tag=np.frombuffer(tag, "<i8").astype(np.int64) if tag else None,
            ids=Texts(joined, np.frombuffer(offsets, "<i8").astype(np.int64)) if offsets else None,
        )


@dataclass(frozen=True)
class SelectionSpec:
    """What a selection asks for, as far as a uniform one can follow it. At most one of tags, quotas and weights."""

    batch_size: int
    excluded_rows: Sequence[int] = ()
    excluded_ids: Sequence[str] = ()
    tags: Sequence[str] = ()
    quotas: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    fill: bool = False
    allow_fewer: bool = False


def check_rows(field: str, rows: Sequence[int], size: int) -> None:
    """InvalidArgumentError: a row is not of the dataset."""
    for position, row in enumerate(rows):
        if not 0 <= row < size:
            raise invalid(f"{field}[{position}]", row, f"must be between 0 and {size - 1}")


def check_ids(field: str, ids: Sequence[str], known: KnownTasks) -> None:
    """InvalidArgumentError: an id is not of the dataset, as far as its ids are known."""
    if ids and not known.has_ids:
        raise invalid(f"{field}[0]", repr(ids[0]), "must be a row number: the dataset has no ids")
    for position, task_id in enumerate(ids):
        if known.ids is not None and known.ids.row(task_id) is None:
            rule = "must be an id of the dataset (pass rows=True for row numbers)"
            raise invalid(f"{field}[{position}]", repr(task_id), rule)


def select(rng: np.random.Generator, known: KnownTasks, spec: SelectionSpec) -> Rows:
    """Returns distinct rows in random order, drawn uniformly from the tasks that the spec leaves.

    Tags are heeded if the tag of each task is known. InvalidArgumentError: the spec names a task or a tag that is not
    there. FailedPreconditionError (TOO_FEW_ELIGIBLE): too few tasks are left.
    """
    check_rows("excluded_tasks", spec.excluded_rows, known.size)
    check_ids("excluded_ids", spec.excluded_ids, known)
    for tag in (*spec.tags, *spec.quotas, *spec.weights):
        if known.tags and tag not in known.tags:
            raise invalid("tags", repr(tag), "must be a tag of the dataset")
    excluded = set(spec.excluded_rows)
    if spec.excluded_ids and known.ids is not None:
        excluded |= {row for task_id in spec.excluded_ids if (row := known.ids.row(task_id)) is not None}
    rows = _chosen(rng, known, spec, excluded)
    if len(rows) < spec.batch_size and not spec.allow_fewer:
        raise FailedPreconditionError(
            f"batch_size: got {spec.batch_size}, must be at most {len(rows)}, the number of eligible tasks",
            code="FAILED_PRECONDITION",
            reason="TOO_FEW_ELIGIBLE",
        )
    return rows


def _chosen(rng: np.random.Generator, known: KnownTasks, spec: SelectionSpec, excluded: set[int]) -> Rows:
    wanted = spec.tags or spec.quotas or spec.weights
    if not wanted or known.tag is None:
        return _draw(rng, known.size, None, spec.batch_size, excluded)
    if spec.tags:
        members = np.concatenate([known.members[tag] for tag in spec.tags])
        return _draw(rng, len(members), members, spec.batch_size, excluded)
    quotas = spec.quotas or _quotas(rng, known, spec, excluded)
    parts = [_draw(rng, len(known.members[tag]), known.members[tag], quota, excluded) for tag, quota in quotas.items()]
    rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if spec.fill and len(rows) < spec.batch_size:
        others = np.concatenate([known.members[tag] for tag in quotas])
        more = _draw(rng, len(others), others, spec.batch_size - len(rows), excluded | set(rows.tolist()))
        rows = np.concatenate([rows, more])
    return rows


def _quotas(rng: np.random.Generator, known: KnownTasks, spec: SelectionSpec, excluded: set[int]) -> dict[str, int]:
    weights = {
        tag: weight
        for tag, weight in spec.weights.items()
        if weight > 0 and (not excluded or not excluded.issuperset(known.members[tag].tolist()))
    }
    if not weights:
        return {}
    shares = np.array(list(weights.values()))
    return dict(zip(weights, rng.multinomial(spec.batch_size, shares / shares.sum()).tolist(), strict=True))


def _draw(rng: np.random.Generator, size: int, members: Rows | None, count: int, excluded: set[int]) -> Rows:
    """Returns at most `count` rows of `members` (None: all). It costs count + excluded, not size."""
    drawn = rng.choice(size, min(size, count + len(excluded)), replace=False)
    rows = drawn if members is None else members[drawn]
    if excluded:
        rows = rows[[row not in excluded for row in rows.tolist()]]
    return rows[:count].astype(np.int64)
