"""CreateDataset, GetDataset, ListDatasets, DeleteDataset."""

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Service, dataset_parts, reason_of

COLUMNS: dict[str, Any] = {
    "ids": ["a", "é", "c"],
    "tags": ["x", "y", "x"],
    "references": {"weak": [0.25, np.nan, 0.0], "strong": [0.5, 1.0, np.nan]},
    "features": {"length": [3.0, -0.0, np.nan]},
    "prior": ([1.0, 2.0, 1.0], [1.0, 1.0, 4.0]),
    "reference_grid": 0.125,
}


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def fingerprint() -> bytes:
    """Returns the fingerprint of COLUMNS, put together by hand as the proto defines it."""
    nan = bytes.fromhex("0000c07f")
    references = struct.pack("<2f", 0.25, 0.5) + nan + struct.pack("<2f", 1.0, 0.0) + nan
    whole = b"bots.v1.Dataset" + struct.pack("<Qd", 3, 0.125)
    whole += struct.pack("<I", 2) + text("x") + text("y")
    whole += struct.pack("<I", 2) + text("weak") + text("strong")
    whole += struct.pack("<I", 1) + text("length")
    whole += b"references\0" + sha(references)
    whole += b"features\0" + sha(struct.pack("<2f", 3.0, 0.0) + nan)
    whole += b"prior_alpha\0" + sha(struct.pack("<3d", 1, 2, 1))
    whole += b"prior_beta\0" + sha(struct.pack("<3d", 1, 1, 4))
    whole += b"tag\0" + sha(struct.pack("<3I", 0, 1, 0))
    whole += b"ids\0" + sha(text("a") + text("é") + text("c"))
    return sha(whole)


def test_dataset_is_described_by_its_content(service: Service) -> None:
    """The answer has counts and the fingerprint that the proto defines."""
    made = service.dataset("tasks", 3, **COLUMNS)
    dataset = made.dataset
    assert made.created
    assert dataset.fingerprint == fingerprint()
    assert [(one.tag, one.tasks) for one in dataset.tags] == [("x", 2), ("y", 1)]
    assert [(one.name, one.tasks) for one in dataset.references] == [("weak", 2), ("strong", 2)]
    assert list(dataset.features) == ["length"]
    assert (dataset.size, dataset.strata, dataset.has_ids, dataset.reference_grid) == (3, 3, True, 0.125)
    assert service.stub.GetDataset(pb.GetDatasetRequest(name="tasks"), timeout=SECONDS).dataset == dataset


def test_equal_content_is_the_dataset_that_is_there(service: Service) -> None:
    """`created` is false, however the content was divided into chunks and NaN and 0 were encoded."""
    columns: dict[str, Any] = {"references": {"weak": np.full(3000, np.nan)}, "features": {"length": np.zeros(3000)}}
    made = service.dataset("tasks", 3000, **columns)
    header, whole = dataset_parts("tasks", 3000, **columns)
    pieces = []
    for begin, end in ((0, 1024), (1024, 2990), (2990, 3000)):
        size = end - begin
        pieces.append(pb.DatasetChunk(size=size, references=[-np.nan] * size, features=[-0.0] * size))
    again = service.upload(header, *pieces)
    assert (again.created, again.dataset) == (False, made.dataset)
    assert not service.upload(header, whole).created


def test_known_fingerprint_is_answered_after_the_header(service: Service) -> None:
    """So 64 ranks may create a dataset and one uploads it: the request stream is not read any further."""
    made = service.dataset("tasks", 3, **COLUMNS)
    header, _ = dataset_parts("tasks", 3, **COLUMNS)
    header.fingerprint = fingerprint()

    def endless() -> Iterator[pb.CreateDatasetRequest]:
        yield pb.CreateDatasetRequest(header=header)
        while True:
            yield pb.CreateDatasetRequest(chunk=pb.DatasetChunk(size=1_000_000))  # would be refused

    again = service.stub.CreateDataset(endless(), timeout=SECONDS)
    assert (again.created, again.dataset) == (False, made.dataset)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"size": 4, "ids": list("abcd"), "tags": list("xyxy")}, "its size is 3, not 4"),
        ({"reference_grid": 0.0}, "its reference_grid is 0.125, not 0"),
        ({"ids": []}, "it has ids"),
        (
            {"references": {"weak": [0.25, np.nan, 0.0], "other": 0.5}},
            "its reference number 1 is 'strong', not 'other'",
        ),
        ({"features": {"length": 3.0, "depth": 1.0}}, "its feature number 1 is absent, not 'depth'"),
        ({"tags": ["x", "z", "x"]}, "its tag number 1 is 'y', not 'z'"),
        ({"references": {"weak": [0.25, np.nan, 0.5], "strong": 0.5}}, "its references of task 1 differ"),
        ({"features": {"length": [3.0, 0.0, 1.0]}}, "its features of task 2 differ"),
        ({"prior": ([1.0, 2.0, 1.0], 1.0)}, "its priors of task 2 differ"),
        ({"tags": ["x", "y", "y"]}, "its tag of task 2 differ"),
        ({"ids": ["a", "e", "c"]}, "its ids of task 1 differ"),
        (
            {"references": {"weak": [0.26, np.nan, 0.0], "strong": [0.5, 1.0, np.nan]}},
            "its reference pass rates differ by less than reference_grid",
        ),
    ],
)
def test_refusal_of_other_content_says_what_differs(service: Service, changes: dict[str, Any], difference: str) -> None:
    """And nothing of the refused upload stays."""
    service.dataset("tasks", 3, **COLUMNS)
    before = service.state()
    columns = {**COLUMNS, **changes}
    size = columns.pop("size", 3)
    if size != 3:
        columns |= {"references": {"weak": 0.5, "strong": 0.5}, "features": {"length": 1.0}, "prior": (1.0, 1.0)}
    with pytest.raises(grpc.RpcError) as refused:
        service.dataset("tasks", size, **columns)
    assert reason_of(refused.value) == "DATASET_EXISTS"
    assert f"({difference})" in (refused.value.details() or "")
    assert service.state() == before


def test_header_with_another_fingerprint_is_refused_before_the_upload(service: Service) -> None:
    """If the header tells the difference."""
    service.dataset("tasks", 3, **COLUMNS)
    header, _ = dataset_parts("tasks", 4)
    header.fingerprint = b"x" * 32
    with pytest.raises(grpc.RpcError, match="its size is 3, not 4"):
        service.upload(header)


def test_duplicate_id_is_named_with_both_tasks(service: Service) -> None:
    """Also if the two are in different chunks."""
    ids = [f"task-{number}" for number in range(2000)]
    ids[1999] = "task-7"
    header, _ = dataset_parts("tasks", 2000, ids=ids)
    chunks = [pb.DatasetChunk(size=1024, ids=ids[:1024]), pb.DatasetChunk(size=976, ids=ids[1024:])]
    with pytest.raises(grpc.RpcError, match=r"ids\[1999\]: got 'task-7', must be distinct .*: task 7 has it"):
        service.upload(header, *chunks)
    assert service.state() == {}


def test_small_chunks_are_refused(service: Service) -> None:
    """A chunk that is not the last has at least 1024 tasks, so that a dataset has few keys."""
    header, _ = dataset_parts("tasks", 2)
    with pytest.raises(grpc.RpcError, match=r"chunk.size: got 1, must be at least 1024, except in the last chunk"):
        service.upload(header, pb.DatasetChunk(size=1), pb.DatasetChunk(size=1))
    assert service.state() == {}


def test_datasets_are_listed_by_name_in_pages(service: Service) -> None:
    """next_page_token leads on; an empty one ends the list."""
    for number in range(5):
        service.dataset(f"tasks-{number}", 1)
    listed, token, pages = [], "", 0
    while pages == 0 or token:
        page = service.stub.ListDatasets(pb.ListDatasetsRequest(page_size=2, page_token=token), timeout=SECONDS)
        listed += [dataset.name for dataset in page.datasets]
        token, pages = page.next_page_token, pages + 1
    assert listed == [f"tasks-{number}" for number in range(5)]


def test_dataset_with_runs_is_deleted_if_asked(service: Service) -> None:
    """FAILED_PRECONDITION says how many runs it has."""
    service.dataset("tasks", 5)
    service.create("tasks", "one")
    service.create("tasks", "two")
    with pytest.raises(grpc.RpcError, match="with its 2 runs") as refused:
        service.stub.DeleteDataset(pb.DeleteDatasetRequest(name="tasks"), timeout=SECONDS)
    assert reason_of(refused.value) == "DATASET_HAS_RUNS"
    assert service.stub.GetDataset(pb.GetDatasetRequest(name="tasks"), timeout=SECONDS).runs == 2
    service.stub.DeleteDataset(pb.DeleteDatasetRequest(name="tasks", delete_runs=True), timeout=SECONDS)
    assert service.state() == {}


def test_reference_grid_rounds_pass_rates(service: Service) -> None:
    """So that the number of strata is bounded."""
    rates = {"weak": [0.1, 0.12, 0.13, 0.9]}
    assert service.dataset("plain", 4, references=rates).dataset.strata == 4
    assert service.dataset("rounded", 4, references=rates, reference_grid=0.25).dataset.strata == 3
