"""A dataset as a stream: a header with the fingerprint, then chunks of columns."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import grpc
import numpy as np
import pytest

import bots
from bots import upload
from tests.client.recorder import Recorder, fails

NAN = float("nan")


def test_columns_cross_as_the_proto_says(recorder: Recorder, client: bots.Client) -> None:
    """Every column arrives in order, missing rates as NaN, several references interleaved by task."""
    client.create_dataset(
        "d",
        weak=[0.25, None],
        references={"qwen": np.array([0.75, NAN])},
        features={"length": [3, 4]},
        prior=(2.0, np.array([1, 3])),
        tags=["b", "a"],
        ids=["x", 7],
        reference_grid=0.125,
    )
    ((header, chunk),) = [call.requests for call in recorder.of("CreateDataset")]
    assert (header.header.name, header.header.size, list(header.header.tags)) == ("d", 2, ["b", "a"])
    assert (header.header.has_ids, header.header.has_prior, header.header.reference_grid) == (True, True, 0.125)
    assert (list(header.header.references), list(header.header.features)) == (["qwen", "weak"], ["length"])
    got = chunk.chunk
    np.testing.assert_array_equal(got.references, [0.75, 0.25, NAN, NAN])
    assert list(got.features) == [3, 4]
    assert (list(got.prior_alpha), list(got.prior_beta)) == ([2, 2], [1, 3])
    assert (list(got.tag), list(got.ids), got.size) == ([0, 1], ["x", "7"], 2)


def test_columns_that_are_not_given_are_absent(recorder: Recorder, client: bots.Client) -> None:
    """A dataset of a size alone has no columns."""
    client.create_dataset("d", size=3)
    ((_, chunk),) = [call.requests for call in recorder.of("CreateDataset")]
    assert [field.name for field, _ in chunk.chunk.ListFields()] == ["size"]


def test_the_fingerprint_is_the_protos() -> None:
    """SHA-256 by hand, with one NaN of each kind and -0."""
    columns = upload.arrange("d", ids=["a", "é"], weak=[-0.0, NAN], tags=["x", "x"], reference_grid=0.5)

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value.encode())) + value.encode()

    def column(name: bytes, content: bytes) -> bytes:
        return name + b"\0" + hashlib.sha256(content).digest()

    expected = hashlib.sha256(
        b"bots.v1.Dataset"
        + struct.pack("<Qd", 2, 0.5)
        + struct.pack("<I", 1)
        + text("x")
        + struct.pack("<I", 1)
        + text("weak")
        + struct.pack("<I", 0)
        + column(b"references", struct.pack("<fI", 0.0, 0x7FC00000))
        + column(b"tag", struct.pack("<II", 0, 0))
        + column(b"ids", text("a") + text("é"))
    ).digest()
    assert upload.fingerprint(columns) == expected
    assert next(upload.messages(columns)).header.fingerprint == expected


def test_the_service_computes_the_same_fingerprint(real: bots.Client) -> None:
    """So 64 ranks upload once: the second stops after the header."""
    told: list[int] = []
    columns: dict[str, Any] = {
        "ids": [f"é{row}" for row in range(3_000)],
        "tags": ["a", "b", "c"] * 1_000,
        "weak": np.linspace(0, 1, 3_000),
        "features": np.random.default_rng(0).normal(size=(3_000, 2)),
        "prior": (2.0, 3.0),
    }
    first = real.create_dataset("d", **columns)
    assert first.fingerprint == upload.fingerprint(upload.arrange("d", **columns)).hex()
    assert first.created
    assert real.create_dataset("d", **columns, progress=told.append).created is False
    with pytest.raises(bots.AlreadyExistsError, match="size"):
        real.create_dataset("d", size=3)


@pytest.mark.parametrize("with_ids", [False, True])
def test_chunks_stay_below_the_limits_and_lose_nothing(with_ids: bool) -> None:
    """Chunks have at most 1048576 tasks and 4 MB, and put together are the dataset."""
    size = 1_200_000 if not with_ids else 100_000
    weak = np.random.default_rng(0).random(size, dtype=np.float32)
    ids = [f"{task:0128}" for task in range(size)] if with_ids else None
    told: list[int] = []
    columns = upload.arrange("d", weak=weak, prior=(1.0, 2.0), ids=ids)
    _, *chunks = upload.messages(columns, told.append)
    assert len(chunks) > 1
    assert all(message.ByteSize() < 4_000_000 and message.chunk.size <= 1_048_576 for message in chunks)
    np.testing.assert_array_equal(np.concatenate([message.chunk.references for message in chunks]), weak)
    if ids:
        assert [task_id for message in chunks for task_id in message.chunk.ids] == ids
    assert told == np.cumsum([message.chunk.size for message in chunks]).tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "dataset d: got no column and no size, must have one length"),
        ({"weak": [0.5], "tags": ["a", "b"]}, r"dataset d: got weak 1, tags 2, must have one length"),
        ({"weak": [0.5], "references": {"weak": [0.5]}}, "references: got 'weak', must not also be given as weak="),
        ({"ids": ["a", None]}, r"ids\[1\]: got None, must be a string or a whole number"),
        ({"tags": [["math", "hard"], ["code"]]}, r"tags\[0\]: got 2 values, must be one value"),
        ({"weak": ["0.5"]}, r"weak\[0\]: got '0.5', must be a number"),
        ({"features": [1, 2]}, r"features: got shape \(2,\), must be \[size, features\]"),
        ({"size": 2.5}, "size: got 2.5, must be a whole number"),
    ],
    ids=str,
)
def test_wrong_columns_are_refused_before_anything_is_sent(
    recorder: Recorder, client: bots.Client, columns: dict[str, Any], message: str
) -> None:
    """The message has the column, the value and the rule."""
    with pytest.raises(bots.InvalidArgumentError, match=message):
        client.create_dataset("d", **columns)
    assert recorder.of("CreateDataset") == []


def test_an_upload_is_not_retried(recorder: Recorder, client: bots.Client) -> None:
    """The caller decides whether to send it all again."""
    recorder.answers["CreateDataset"] = fails(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    with pytest.raises(bots.UnavailableError):
        client.create_dataset("d", size=1)
    assert len(recorder.of("CreateDataset")) == 1
