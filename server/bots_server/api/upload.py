"""CreateDataset, GetDataset, ListDatasets, DeleteDataset."""

import hashlib
import struct
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.strata import StrataBuilder, TooManyStrata
from bots_server.core.task_ids import MAX_ID_BYTES, DuplicateTaskId, index_ids
from bots_server.errors import InvalidField
from bots_server.api.messages import Scalar
from bots_server.service import rules
from bots_server.service.rules import Told
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import Store

MAX_TASKS = 100_000_000
MAX_CHUNK = 1_048_576
MAX_TAGS = 1_024
MAX_TAG_BYTES = 64
MIN_PRIOR, MAX_PRIOR = 0.1, 1e6
CANONICAL_NAN = np.array([0x7FC00000], "<u4").view("<f4")[0]

HASHED_COLUMNS = ("weak", "strong", "prior_alpha", "prior_beta", "tag", "id")


class DatasetHandlers:
    """Datasets, as they come in, are listed and go."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, requests: Iterator[pb.CreateDatasetRequest]) -> pb.CreateDatasetResponse:
        first = next(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidField("part", Told("no header"), "the first message must be the header")
        building = DatasetBuilder(first.header)
        with self._store.datasets.upload(first.header.name) as upload:
            for index, request in enumerate(requests):
                if request.WhichOneof("part") != "chunk":
                    raise InvalidField("part", Told("header"), "each message after the first must be a chunk")
                upload.put(index, building.add(request.chunk))
            record, created = upload.commit(building.record(), building.strata())
        return pb.CreateDatasetResponse(dataset=messages.dataset_message(record), created=created)

    def get(self, request: pb.GetDatasetRequest) -> pb.GetDatasetResponse:
        record = self._store.datasets.get(rules.name("name", request.name))
        return pb.GetDatasetResponse(
            dataset=messages.dataset_message(record), runs=self._store.datasets.run_count(record)
        )

    def list(self, request: pb.ListDatasetsRequest) -> pb.ListDatasetsResponse:
        return pb.ListDatasetsResponse(datasets=map(messages.dataset_message, self._store.datasets.list()))

    def delete(self, request: pb.DeleteDatasetRequest) -> pb.DeleteDatasetResponse:
        self._store.datasets.delete(rules.name("name", request.name), delete_runs=request.delete_runs)
        return pb.DeleteDatasetResponse()


class DatasetBuilder:
    """A dataset on its way in: checks its chunks, finds its strata, and takes its fingerprint."""

    def __init__(self, header: pb.DatasetHeader) -> None:
        rules.name("name", header.name)
        rules.within("size", header.size, 1, MAX_TASKS)
        rules.within("reference_grid", header.reference_grid, 0.0, 0.5)
        rules.count("tags", header.tags, 0, MAX_TAGS)
        rules.each("tags", header.tags, _tag)
        if len(set(header.tags)) != len(header.tags):
            raise InvalidField("tags", Told("a repeated tag"), "must be distinct")
        self._header = header
        self._received = 0
        self._columns: frozenset[str] | None = None
        self._builder = StrataBuilder(header.reference_grid)
        self._hashes = {column: hashlib.sha256() for column in HASHED_COLUMNS}
        self._referenced = 0
        self._tag_counts = np.zeros(len(header.tags), dtype=np.int64)
        self._ids: list[NDArray[np.bytes_]] = []

    def add(self, chunk: pb.DatasetChunk) -> storage.TaskColumns:
        """Returns a chunk as it is stored. Raises InvalidField."""
        size = rules.within("chunk.size", chunk.size, 1, MAX_CHUNK)
        if self._received + size > self._header.size:
            raise InvalidField("chunk.size", size, f"chunks must add up to the header's size, {self._header.size:,}")
        self._same_columns(chunk)
        weak, strong = self._references(chunk, size)
        prior_alpha = self._prior("prior_alpha", chunk.prior_alpha, size)
        prior_beta = self._prior("prior_beta", chunk.prior_beta, size)
        tag = self._tags(chunk, size)
        ids, id_lengths = self._id_column(chunk, size)
        try:
            stratum = self._builder.add(weak, strong, prior_alpha, prior_beta, size)
        except TooManyStrata as error:
            raise InvalidField("reference_grid", self._header.reference_grid, str(error)) from None
        self._received += size
        return storage.TaskColumns(
            size=size, stratum=messages.pack(stratum, "<u4"), tag=tag, ids=ids, id_lengths=id_lengths
        )

    def record(self) -> storage.DatasetRecord:
        """Returns the record of the whole dataset, to which the upload adds its uid.

        Raises InvalidField where something is missing or double.
        """
        if self._received != self._header.size:
            raise InvalidField(
                "size", self._header.size, f"chunks must add up to the header's size; {self._received:,} tasks came"
            )
        if self._ids:
            try:
                index_ids(np.concatenate(self._ids))
            except DuplicateTaskId as error:
                raise InvalidField("ids", error.args[0], "must be distinct over the dataset") from None
        tags = [
            pb.TagCount(tag=tag, tasks=count)
            for tag, count in zip(self._header.tags, self._tag_counts.tolist(), strict=True)
        ]
        return storage.DatasetRecord(
            name=self._header.name,
            size=self._header.size,
            fingerprint=self._fingerprint(),
            reference_grid=self._header.reference_grid,
            tags=tags,
            has_ids=self._header.has_ids,
            strata=len(self._builder.strata()),
            referenced_tasks=self._referenced,
            create_time_ms=time.time_ns() // 1_000_000,
        )

    def strata(self) -> storage.StrataTable:
        return messages.strata_message(self._builder.strata())

    def _same_columns(self, chunk: pb.DatasetChunk) -> None:
        columns = frozenset(field.name for field, _ in chunk.ListFields()) - {"size"}
        for one, other in (("weak", "strong"), ("prior_alpha", "prior_beta")):
            if (one in columns) != (other in columns):
                missing = other if one in columns else one
                raise InvalidField(f"chunk.{missing}", Told("absent"), f"{one} and {other} go together")
        for column, expected in (("tag", bool(self._header.tags)), ("ids", self._header.has_ids)):
            if (column in columns) != expected:
                state = "present" if column in columns else "absent"
                raise InvalidField(f"chunk.{column}", Told(state), "must be present exactly where the header says so")
        if self._columns is None:
            self._columns = columns
        elif columns != self._columns:
            raise InvalidField(
                "chunk", sorted(columns), f"must have the first chunk's columns, {sorted(self._columns)}"
            )

    def _references(
        self, chunk: pb.DatasetChunk, size: int
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        if not chunk.weak:
            return None, None
        weak = _column("chunk.weak", chunk.weak, np.float32, size).copy()
        strong = _column("chunk.strong", chunk.strong, np.float32, size).copy()
        absent = np.isnan(weak)
        for field, column in (("chunk.weak", weak), ("chunk.strong", strong)):
            valid = np.isnan(column) | ((column >= 0) & (column <= 1))
            rules.refuse_where(field, column, ~valid, "must be in [0, 1], or NaN for none", self._received)
        rule = "a task must have both references or neither"
        rules.refuse_where("chunk.strong", strong, absent != np.isnan(strong), rule, self._received)
        weak[absent] = strong[absent] = CANONICAL_NAN
        weak += np.float32(0)  # -0 is 0
        strong += np.float32(0)
        self._hashes["weak"].update(weak.tobytes())
        self._hashes["strong"].update(strong.tobytes())
        self._referenced += size - int(np.count_nonzero(absent))
        return weak, strong

    def _prior(self, name: str, data: bytes, size: int) -> NDArray[np.float64] | None:
        if not data:
            return None
        prior = _column(f"chunk.{name}", data, np.float64, size)
        valid = (prior >= MIN_PRIOR) & (prior <= MAX_PRIOR)
        rules.refuse_where(f"chunk.{name}", prior, ~valid, "must be in [0.1, 1e6]", self._received)
        self._hashes[name].update(prior.tobytes())
        return prior

    def _tags(self, chunk: pb.DatasetChunk, size: int) -> bytes:
        if not self._header.tags:
            return b""
        tag = _column("chunk.tag", chunk.tag, np.uint32, size)
        known = len(self._header.tags)
        rules.refuse_where(
            "chunk.tag", tag, tag >= known, f"must be in [0, {known}), the header's tags", self._received
        )
        self._hashes["tag"].update(chunk.tag)
        self._tag_counts += np.bincount(tag, minlength=known)
        return chunk.tag

    def _id_column(self, chunk: pb.DatasetChunk, size: int) -> tuple[bytes, bytes]:
        if not self._header.has_ids:
            return b"", b""
        if len(chunk.ids) != size:
            raise InvalidField(
                "chunk.ids", Told(f"{len(chunk.ids):,} entries"), f"must have {size:,} entries, the chunk's size"
            )
        ids = [name.encode() for name in chunk.ids]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=size)
        rules.refuse_where(
            "chunk.ids", lengths, (lengths < 1) | (lengths > MAX_ID_BYTES), "must be 1 to 64 bytes", self._received
        )
        text = b"".join(ids)
        if b"\0" in text:
            raise InvalidField("chunk.ids", Told("an id with NUL"), "must be without NUL")
        self._ids.append(np.array(ids))
        self._hashes["id"].update(b"".join(struct.pack("<I", len(name)) + name for name in ids))
        return text, messages.pack(lengths, "<u4")

    def _fingerprint(self) -> bytes:
        """Returns the SHA-256 that `bots.v1.Dataset.fingerprint` defines."""
        header, columns = self._header, self._columns or frozenset()
        digest = hashlib.sha256(b"bots.v1.Dataset")
        digest.update(struct.pack("<QdI", header.size, header.reference_grid, len(header.tags)))
        for tag in header.tags:
            digest.update(struct.pack("<I", len(tag.encode())) + tag.encode())
        for column in HASHED_COLUMNS:
            if column in columns or (column == "id" and header.has_ids):
                digest.update(column.encode() + b"\0" + self._hashes[column].digest())
        return digest.digest()


def _tag(field: str, value: str) -> str:
    if not 1 <= len(value.encode()) <= MAX_TAG_BYTES:
        raise InvalidField(field, value, f"must be 1 to {MAX_TAG_BYTES} bytes")
    return value


def _column(field: str, data: bytes, dtype: type[Scalar], size: int) -> NDArray[Scalar]:
    """Returns the little-endian array in `data`, which must have `size` entries."""
    width = np.dtype(dtype).itemsize
    if len(data) != width * size:
        raise InvalidField(field, Told(f"{len(data):,} bytes"), f"must be {width} bytes a task, {width * size:,}")
    return messages.unpack(data, np.dtype(dtype).newbyteorder("<").str, dtype)
