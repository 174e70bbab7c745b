"""A dataset as the stream of messages of CreateDataset: a header with the fingerprint, then chunks of columns."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bots import columns
from bots.columns import Column
from bots.errors import invalid
from bots.v1 import task_selection_pb2 as pb

# The server takes 1048576 tasks and 4 MB a chunk.
MOST_TASKS = 1 << 20
MOST_BYTES = 3_500_000
MOST_ID_BYTES = 256
STEP = 1 << 16  # tasks that are hashed at once
NAN = np.uint32(0x7FC00000)


@dataclass(frozen=True, eq=False)
class Columns:
    """A dataset, checked as far as its shape goes; the service checks the values.

    references   reference name -> `[size]` float32, missing ones NaN.
    features     feature name -> `[size]` float32, missing ones NaN.
    prior        (alpha, beta), each `[size]` float64, or None.
    tags         the distinct tags, in order of first appearance.
    tag          `[size]` uint32 index into tags, or None.
    ids          `[size]` strings, or None.
    """

    name: str
    size: int
    reference_grid: float
    references: Mapping[str, npt.NDArray[np.float32]]
    features: Mapping[str, npt.NDArray[np.float32]]
    prior: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None
    tags: tuple[str, ...]
    tag: npt.NDArray[np.uint32] | None
    ids: list[str] | None


def arrange(
    name: str,
    *,
    size: int | None = None,
    ids: Column = None,
    tags: Column = None,
    references: Mapping[str, Column] | None = None,
    weak: Column = None,
    strong: Column = None,
    features: Column = None,
    prior: tuple[Column, Column] | None = None,
    reference_grid: float = 0.0,
) -> Columns:
    """Returns the columns as arrays. InvalidArgumentError: they do not have one common length, or hold other things."""
    rates = dict(references or {})
    for known, given in (("weak", weak), ("strong", strong)):
        if given is not None:
            if known in rates:
                raise invalid("references", repr(known), f"must not also be given as {known}=")
            rates[known] = given
    fields = {known: known if known in ("weak", "strong") else f"references[{known!r}]" for known in rates}
    numbers = {fields[known]: columns.floats(fields[known], given) for known, given in rates.items()}
    numbers |= {f"features[{name!r}]": column for name, column in _features(features).items()}
    written = None if ids is None else columns.texts("ids", ids)
    tagged = None if tags is None else columns.texts("tags", tags)
    alpha_beta = None
    if prior is not None:
        alpha_beta = columns.floats("prior alpha", prior[0]), columns.floats("prior beta", prior[1])
    lengths = {field: len(column) for field, column in numbers.items()}
    lengths |= {field: len(column) for field, column in (("ids", written), ("tags", tagged)) if column is not None}
    for field, column in zip(("prior alpha", "prior beta"), alpha_beta or (), strict=False):
        if len(column) != 1:
            lengths[field] = len(column)
    if size is not None:
        lengths["size"] = columns.whole("size", columns.plain(size))
    if len(set(lengths.values())) != 1:
        said = ", ".join(f"{field} {length}" for field, length in lengths.items()) or "no column and no size"
        raise invalid(f"dataset {name}", said, "must have one length")
    (size,) = set(lengths.values())
    distinct = {tag: number for number, tag in enumerate(dict.fromkeys(tagged or ()))}
    singles = {field: column.astype(np.float32) for field, column in numbers.items()}
    return Columns(
        name=name,
        size=size,
        reference_grid=columns.number("reference_grid", reference_grid),
        references=dict(zip(rates, list(singles.values())[: len(rates)], strict=True)),
        features=dict(zip(_features_names(features), list(singles.values())[len(rates) :], strict=True)),
        prior=None if alpha_beta is None else (_filled(alpha_beta[0], size), _filled(alpha_beta[1], size)),
        tags=tuple(distinct),
        tag=None if tagged is None else np.fromiter((distinct[tag] for tag in tagged), np.uint32, size),
        ids=written,
    )


def messages(dataset: Columns, progress: Callable[[int], object] | None = None) -> Iterator[pb.CreateDatasetRequest]:
    """Yields the header and the chunks. `progress` is called with the number of tasks handed over, after each chunk."""
    yield pb.CreateDatasetRequest(
        header=pb.DatasetHeader(
            name=dataset.name,
            size=dataset.size,
            tags=dataset.tags,
            has_ids=dataset.ids is not None,
            reference_grid=dataset.reference_grid,
            references=list(dataset.references),
            features=list(dataset.features),
            has_prior=dataset.prior is not None,
            fingerprint=fingerprint(dataset),
        )
    )
    step = tasks_per_chunk(dataset)
    for start in range(0, dataset.size, step):
        end = min(start + step, dataset.size)
        part = slice(start, end)
        chunk = pb.DatasetChunk(size=end - start)
        if dataset.references:
            chunk.references.extend(_interleaved(dataset.references, part).tolist())
        if dataset.features:
            chunk.features.extend(_interleaved(dataset.features, part).tolist())
        if dataset.prior is not None:
            chunk.prior_alpha.extend(dataset.prior[0][part].tolist())
            chunk.prior_beta.extend(dataset.prior[1][part].tolist())
        if dataset.tag is not None:
            chunk.tag.extend(dataset.tag[part].tolist())
        if dataset.ids is not None:
            chunk.ids.extend(dataset.ids[part])
        yield pb.CreateDatasetRequest(chunk=chunk)
        if progress is not None:
            progress(end)


def tasks_per_chunk(dataset: Columns) -> int:
    """Returns the number of tasks of a chunk that stays below the limits of the server."""
    width = 4 * (len(dataset.references) + len(dataset.features))
    width += 16 if dataset.prior is not None else 0
    width += 5 if dataset.tag is not None else 0
    if dataset.ids is not None:
        longest = max((len(task_id.encode()) for task_id in dataset.ids), default=0)
        width += longest + 3  # a field number and a length
    return max(1024, min(MOST_TASKS, MOST_BYTES // max(width, 1)))


def fingerprint(dataset: Columns) -> bytes:
    """Returns SHA-256 of the content, as `Dataset.fingerprint` in task_selection.proto defines it."""
    digest = hashlib.sha256(b"bots.v1.Dataset" + struct.pack("<Qd", dataset.size, dataset.reference_grid))
    for names in (dataset.tags, dataset.references, dataset.features):
        digest.update(struct.pack("<I", len(names)) + b"".join(_text(name) for name in names))
    for column, content in _contents(dataset):
        digest.update(column + b"\0" + content)
    return digest.digest()


def _contents(dataset: Columns) -> Iterator[tuple[bytes, bytes]]:
    for column, numbers in ((b"references", dataset.references), (b"features", dataset.features)):
        if numbers:
            yield column, _hash(_canonical(_interleaved(numbers, part)) for part in _parts(dataset.size))
    for column, values in zip((b"prior_alpha", b"prior_beta"), dataset.prior or (), strict=False):
        yield column, hashlib.sha256(values.astype("<f8").tobytes()).digest()
    if dataset.tag is not None:
        yield b"tag", hashlib.sha256(dataset.tag.astype("<u4").tobytes()).digest()
    if dataset.ids is not None:
        ids = dataset.ids
        yield b"ids", _hash(b"".join(map(_text, ids[part])) for part in _parts(dataset.size))


def _hash(parts: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + STEP, size)) for start in range(0, size, STEP))


def _canonical(values: npt.NDArray[np.float32]) -> bytes:
    values = values + np.float32(0)  # -0 becomes 0
    bits = values.view(np.uint32)
    bits[np.isnan(values)] = NAN
    return bits.astype("<u4").tobytes()


def _interleaved(numbers: Mapping[str, npt.NDArray[np.float32]], part: slice) -> npt.NDArray[np.float32]:
    return np.stack([column[part] for column in numbers.values()], axis=1).ravel()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded


def _features_names(features: Column) -> list[str]:
    return list(_features(features))


def _features(features: Column) -> dict[str, npt.NDArray[np.float64]]:
    """Returns feature name -> column, from a mapping or an array `[size, F]` (named "0", "1", ...)."""
    if features is None:
        return {}
    if isinstance(features, Mapping):
        return {name: columns.floats(f"features[{name!r}]", column) for name, column in features.items()}
    if hasattr(features, "columns") and hasattr(features, "to_numpy"):  # a data frame
        return {str(name): columns.floats(f"features[{name!r}]", features[name]) for name in features.columns}
    matrix: npt.NDArray[Any] = np.asarray(columns.plain(features), dtype=np.float64)
    if matrix.ndim != 2:
        raise invalid("features", f"shape {matrix.shape}", "must be [size, features] or a mapping of columns")
    return {str(number): column for number, column in enumerate(matrix.T)}


def _filled(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    return np.broadcast_to(values, (size,)) if len(values) == 1 else values
