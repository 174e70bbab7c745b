"""A dataset on its way in: its chunks checked, its strata found, its fingerprint taken."""

import hashlib
import struct
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.core.strata import StrataBuilder, TooManyStrata
from bots_server.core.task_ids import DuplicateTaskId, Texts, index_ids, join, pack
from bots_server.errors import Described, InvalidField
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import codec

MAX_TASKS = 100_000_000
MAX_CHUNK = 1_048_576
MAX_TAGS = 1_024
MAX_REFERENCES = 8
MAX_FEATURES = 64
MAX_NAME_BYTES = 64  # of a tag or feature
MAX_ID_BYTES = 256
MIN_PRIOR, MAX_PRIOR = 0.1, 1e6
MAX_FLOAT = float(np.finfo(np.float32).max)
CANONICAL_NAN = np.array([0x7FC00000], "<u4").view("<f4")[0]
COLUMNS = ("references", "features", "prior_alpha", "prior_beta", "tag", "ids")  # in the order of the fingerprint

Floats = NDArray[np.float32]


def check_header(header: pb.DatasetHeader) -> pb.DatasetHeader:
    """Returns a header that keeps the rules. Raises InvalidField."""
    checks.name("header.name", header.name)
    checks.within("header.size", header.size, 1, MAX_TASKS)
    checks.within("header.reference_grid", header.reference_grid, 0.0, 0.5)
    checks.entries("header.tags", header.tags, 0, MAX_TAGS)
    checks.entries("header.references", header.references, 0, MAX_REFERENCES)
    checks.entries("header.features", header.features, 0, MAX_FEATURES)
    for index, reference in enumerate(header.references):
        checks.name(f"header.references[{index}]", reference)
    for field, names in (("header.tags", header.tags), ("header.features", header.features)):
        for index, text in enumerate(names):
            checks.text(f"{field}[{index}]", text, MAX_NAME_BYTES, 1)
    for field in ("tags", "references", "features"):
        checks.distinct(f"header.{field}", getattr(header, field))
    length = len(header.fingerprint)
    checks.require(length in (0, 32), "header.fingerprint", Described(f"{length} bytes"), "must be 32 bytes, or empty")
    return header


class DatasetBuilder:
    """Checks the chunks of a dataset in turn, and makes its record and strata at the end."""

    def __init__(self, header: pb.DatasetHeader) -> None:
        self._header = header
        self._received = 0
        self._strata = StrataBuilder(len(header.references), header.reference_grid)
        prior = header.has_prior
        present = (header.references, header.features, prior, prior, header.tags, header.has_ids)  # as in COLUMNS
        self._hashes = {column: hashlib.sha256() for column, has in zip(COLUMNS, present, strict=True) if has}
        self._with_rate = np.zeros(len(header.references), np.int64)
        self._with_tag = np.zeros(len(header.tags), np.int64)
        self._ids: list[Texts] = []

    def add(self, chunk: pb.DatasetChunk) -> storage.TaskColumns:
        """Returns a chunk as it is stored. Raises InvalidField."""
        size = checks.within("chunk.size", chunk.size, 1, MAX_CHUNK)
        if self._received + size > self._header.size:
            rule = f"must add up to header.size, {self._header.size}; {self._received} tasks came before"
            raise InvalidField("chunk.size", size, rule)
        for column in COLUMNS:
            given, expected = len(getattr(chunk, column)), size if column in self._hashes else 0
            if column in ("references", "features"):
                expected *= len(getattr(self._header, column))
            rule = f"must have {expected} entries, as the header and chunk.size say"
            checks.require(given == expected, f"chunk.{column}", Described(f"{given} entries"), rule)
        references = self._floats("references", chunk, 0.0, 1.0, "must be between 0 and 1, or NaN")
        if references is not None:
            self._with_rate += np.count_nonzero(references == references, axis=0)
        features = self._floats("features", chunk, -MAX_FLOAT, MAX_FLOAT, "must be finite, or NaN")
        prior_alpha, prior_beta = self._prior("prior_alpha", chunk), self._prior("prior_beta", chunk)
        tag = self._tag(chunk)
        ids = self._id_column(chunk)
        try:
            stratum = self._strata.add(references, prior_alpha, prior_beta, size)
        except TooManyStrata as error:
            grid = self._header.reference_grid
            raise InvalidField("header.reference_grid", grid, f"must be coarser: {error}") from None
        self._received += size
        return codec.columns_message(codec.Columns(stratum, tag, ids, features))

    def record(self) -> storage.DatasetRecord:
        """Returns the record of the whole dataset, without what the upload sets. Raises InvalidField."""
        header = self._header
        rule = f"must be the tasks of all chunks, {self._received}"
        checks.require(self._received == header.size, "header.size", header.size, rule)
        if self._ids:
            try:
                index_ids(join(self._ids))
            except DuplicateTaskId as error:
                double, first, second = error.args
                rule = f"must be distinct over the dataset: task {first} has it"
                raise InvalidField(f"ids[{second}]", double, rule) from None
        return messages.like(
            storage.DatasetRecord,
            header,
            fingerprint=self._fingerprint(),
            tags=counted(header.tags, self._with_tag),
            references=counted(header.references, self._with_rate),
            strata=len(self._strata.strata()),
        )

    def strata(self) -> storage.StrataTable:
        return codec.strata_message(self._strata.strata())

    def _floats(
        self, name: Literal["references", "features"], chunk: pb.DatasetChunk, low: float, high: float, rule: str
    ) -> Floats | None:
        """Returns a column as `[n, names]`, NaN if missing, with one NaN and without -0."""
        if name not in self._hashes:
            return None
        names = getattr(self._header, name)
        values = np.array(getattr(chunk, name), np.float32).reshape(-1, len(names))
        valid = np.isnan(values) | (values >= low) & (values <= high)
        if not valid.all():
            row, at = divmod(int(np.argmin(valid)), len(names))
            of = f"task {self._received + row}, {names[at]!r}"
            field = f"chunk.{name}[{row * len(names) + at}]"
            raise InvalidField(field, values[row, at].item(), f"{rule} ({of})")
        values += np.float32(0)  # -0 + 0 is 0
        values[np.isnan(values)] = CANONICAL_NAN
        self._hashes[name].update(values.astype("<f4", copy=False).tobytes())
        return values

    def _prior(self, name: str, chunk: pb.DatasetChunk) -> NDArray[np.float64] | None:
        if name not in self._hashes:
            return None
        prior = np.array(getattr(chunk, name), np.float64)
        valid = (prior >= MIN_PRIOR) & (prior <= MAX_PRIOR)
        checks.column(f"chunk.{name}", prior, valid, "must be between 0.1 and 1000000")
        self._hashes[name].update(prior.astype("<f8", copy=False).tobytes())
        return prior

    def _tag(self, chunk: pb.DatasetChunk) -> NDArray[np.uint32] | None:
        if "tag" not in self._hashes:
            return None
        tag = np.array(chunk.tag, np.uint32)
        known = len(self._header.tags)
        rule = f"must be between 0 and {known - 1}, as the header has {known} tags"
        checks.column("chunk.tag", tag, tag < known, rule)
        self._hashes["tag"].update(tag.astype("<u4", copy=False).tobytes())
        self._with_tag += np.bincount(tag, minlength=known)
        return tag

    def _id_column(self, chunk: pb.DatasetChunk) -> Texts | None:
        if "ids" not in self._hashes:
            return None
        for index, text in enumerate(chunk.ids):
            checks.text(f"chunk.ids[{index}]", text, MAX_ID_BYTES, 1)
        ids = [text.encode() for text in chunk.ids]
        self._hashes["ids"].update(with_lengths(ids))
        self._ids.append(pack(ids))
        return self._ids[-1]

    def _fingerprint(self) -> bytes:
        """Returns the SHA-256 that `bots.v1.Dataset.fingerprint` defines."""
        header = self._header
        digest = hashlib.sha256(b"bots.v1.Dataset" + struct.pack("<Qd", header.size, header.reference_grid))
        for names in (header.tags, header.references, header.features):
            digest.update(struct.pack("<I", len(names)) + with_lengths([name.encode() for name in names]))
        for column, content in self._hashes.items():
            digest.update(column.encode() + b"\0" + content.digest())
        return digest.digest()


def with_lengths(texts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def counted(names: Sequence[str], counts: NDArray[np.int64]) -> list[storage.NamedCount]:
    return [storage.NamedCount(name=name, tasks=tasks) for name, tasks in zip(names, counts.tolist(), strict=True)]
