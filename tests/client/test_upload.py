"""A dataset as a stream of chunks."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

import bots
from bots import upload
from tests.client.recorder import Recorder, fails

NAN = float("nan")


def arranged(**columns: Any) -> upload.Columns:
    nothing: dict[str, Any] = dict.fromkeys(("size", "weak", "strong", "prior", "tags", "ids"))
    return upload.arrange("d", **(nothing | {"reference_grid": 0.0} | columns))


def test_columns_cross_as_little_endian_arrays(recorder: Recorder, client: bots.Client) -> None:
    """Every column arrives in the type and order that the proto says, missing references as NaN."""
    client.create_dataset(
        "d",
        weak=[0.25, None],
        strong=np.array([0.75, NAN]),
        prior=(2.0, np.array([1, 3])),
        tags=["b", "a"],
        ids=["x", "y"],
        reference_grid=0.125,
    )
    ((header, chunk),) = [call.requests for call in recorder.calls]
    assert header.header.name == "d"
    assert (header.header.size, list(header.header.tags), header.header.has_ids) == (2, ["b", "a"], True)
    assert header.header.reference_grid == 0.125
    got = chunk.chunk
    np.testing.assert_array_equal(np.frombuffer(got.weak, "<f4"), [0.25, NAN])
    np.testing.assert_array_equal(np.frombuffer(got.strong, "<f4"), [0.75, NAN])
    np.testing.assert_array_equal(np.frombuffer(got.prior_alpha, "<f8"), [2, 2])
    np.testing.assert_array_equal(np.frombuffer(got.prior_beta, "<f8"), [1, 3])
    np.testing.assert_array_equal(np.frombuffer(got.tag, "<u4"), [0, 1])
    assert (got.size, list(got.ids)) == (2, ["x", "y"])


def test_columns_that_are_not_given_are_absent(recorder: Recorder, client: bots.Client) -> None:
    """A dataset of a size alone has no columns at all."""
    client.create_dataset("d", size=3)
    (call,) = recorder.calls
    header, chunk = call.requests
    assert (header.header.size, list(header.header.tags), header.header.has_ids) == (3, [], False)
    assert [field.name for field, _ in chunk.chunk.ListFields()] == ["size"]


@pytest.mark.parametrize("with_ids", [False, True])
def test_chunks_stay_below_the_limits_and_lose_nothing(with_ids: bool) -> None:
    """Chunks have at most 1,048,576 tasks and 4 MB, and put together are the dataset."""
    size = 1_500_000 if not with_ids else 100_000
    weak = np.random.default_rng(0).random(size, dtype=np.float32)
    ids = [f"{task:064}" for task in range(size)] if with_ids else None
    told: list[int] = []
    columns = arranged(weak=weak, strong=weak, prior=(1.0, weak + 1), tags=["t"] * size, ids=ids)
    header, *chunks = upload.messages(columns, told.append)
    assert header.header.size == size
    assert len(chunks) > 1
    assert all(message.ByteSize() < 4_000_000 and message.chunk.size <= 1_048_576 for message in chunks)
    np.testing.assert_array_equal(np.concatenate([np.frombuffer(m.chunk.strong, "<f4") for m in chunks]), weak)
    if ids:
        assert [task_id for message in chunks for task_id in message.chunk.ids] == ids
    assert told == np.cumsum([message.chunk.size for message in chunks]).tolist()
    assert told[-1] == size


def test_a_dataset_without_columns_is_chunked_by_count() -> None:
    """A chunk without columns still has at most 1,048,576 tasks."""
    assert [m.chunk.size for m in upload.messages(arranged(size=2_000_000), None)][1:] == [
        1 << 20,
        2_000_000 - (1 << 20),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "nothing"),
        ({"size": 2, "weak": [0.5], "strong": [0.5]}, "'weak': 1"),
        ({"weak": [0.5], "strong": [0.5, 0.5]}, "must have one length"),
        ({"prior": (1.0, 1.0)}, "nothing"),
        ({"prior": ([1.0], [1.0, 2.0])}, "must have one length"),
        ({"ids": ["a", 7]}, "ids: 7 at task 1, must be a string"),
        ({"tags": ["a", None]}, "tags: None at task 1, must be a string"),
        ({"tags": np.array([1.5])}, "tags: 1.5 at task 0"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: dict[str, Any], message: str) -> None:
    """A dataset whose columns have no common length, or ids that are no strings, is a ValueError here already."""
    with pytest.raises(ValueError, match=message):
        arranged(**columns)


def test_a_refusal_ends_the_upload(recorder: Recorder, client: bots.Client) -> None:
    """What the service refuses in a stream is the error of the call."""
    recorder.answers["CreateDataset"] = fails(grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS")
    with pytest.raises(bots.AlreadyExistsError):
        client.create_dataset("d", size=1)
