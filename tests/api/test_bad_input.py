"""Bad input is refused whole, with the field, the value and the rule in the message; nothing of it is stored."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import Service, reason_of

NAN, INFINITY = float("nan"), float("inf")
RUN: dict[str, Any] = {"dataset": "letters", "run": "policy"}


@dataclass
class Bad:
    """A request against one rule: the method, the request, and what the message must say of it."""

    method: str
    request: Message
    field: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.method} {self.field} {self.value}"


def select(field: str, value: str, rule: str, **fields: Any) -> Bad:
    return Bad("SelectBatch", pb.SelectBatchRequest(**{**RUN, "batch_size": 2, **fields}), field, value, rule)


def report(field: str, value: str, rule: str, **fields: Any) -> Bad:
    whole = {**RUN, "tasks": [0, 1], "successes": [1, 2], "rollouts": [4, 4]}
    return Bad("ReportOutcomes", pb.ReportOutcomesRequest(**{**whole, **fields}), field, value, rule)


def run(field: str, value: str, rule: str, **fields: Any) -> Bad:
    return Bad("CreateRun", pb.CreateRunRequest(**{"dataset": "letters", "name": "new", **fields}), field, value, rule)


def learns(field: str, value: float, rule: str) -> Bad:
    settings = pb.Hyperparameters(**{field: value})  # type: ignore[arg-type]
    return run(f"hyperparameters.{field}", repr(value), rule, hyperparameters=settings)


def keeps(field: str, value: int, rule: str) -> Bad:
    return run(f"retention.{field}", repr(value), rule, retention=pb.Retention(**{field: value}))


NAME = "must match [a-z0-9][a-z0-9._-]{0,62}"
BAD = [
    select("dataset", "'Letters'", NAME, dataset="Letters"),
    select("run", "''", NAME, run=""),
    select("run", "'" + "x" * 64, NAME, run="x" * 64),
    select("run_uid", "'12'", "must be 32 hexadecimal digits, or empty", run_uid="12"),
    select("batch_size", "0", "must be in [1, 10,000]", batch_size=0),
    select("batch_size", "10001", "must be in [1, 10,000]", batch_size=10_001),
    select("job", "129 bytes", "must be at most 128 bytes", job="j" * 129),
    select("request_id", "'nope'", "must be a UUID of version 7", request_id="nope"),
    select(
        "request_id",
        "'3f0c",
        "must be a UUID of version 7",
        request_id="3f0c2a52-5b2e-4d0c-9d55-0d0a4a1a9b11",
    ),
    select("excluded_tasks[1]", "26", "must be in [0, 26), the dataset's tasks", excluded_tasks=[0, 26]),
    select("excluded_tasks[0]", "-1", "must be in [0, 26)", excluded_tasks=[-1]),
    select("excluded_tasks", "10,001 entries", "must have at most 10,000 entries", excluded_tasks=[0] * 10_001),
    select("excluded_ids[0]", "'zz'", "must be an id of the dataset", excluded_ids=["zz"]),
    select("tags", "'digit'", "must be a tag of the dataset", tags=["digit"]),
    select("tag_quotas", "'digit'", "must be a tag of the dataset", tag_quotas={"digit": 2}),
    select("tag_quotas", "a sum of 3", "must add up to batch_size, 2", tag_quotas={"vowel": 1, "consonant": 2}),
    select("tag_quotas[vowel]", "0", "must be in [1, 10,000]", tag_quotas={"vowel": 0, "consonant": 2}),
    select("tag_weights[vowel]", "0.0", "must be in (0, ", tag_weights={"vowel": 0.0}),
    select("tag_weights[vowel]", "nan", "must be in (0, ", tag_weights={"vowel": NAN}),
    select("tags and tag_quotas", "present", "at most one", tags=["vowel"], tag_quotas={"vowel": 2}),
    select("lease_seconds", "0.0", "must be in (0, 86,400", lease_seconds=0.0),
    select("lease_seconds", "nan", "must be in (0, 86,400", lease_seconds=NAN),
    select("target", "1.5", "must be in [0.0, 1.0]", target=1.5),
    select("target", "nan", "must be in [0.0, 1.0]", target=NAN),
    select("temperature", "-1.0", "must be in [0.0, 1,000,000.0]", temperature=-1.0),
    select("seed", "-1", "must be >= 0", seed=-1),
    select("policy_step", "-1", "must be >= 0", policy_step=-1),
    report("run", "'A'", NAME, run="A"),
    report("tasks", "0 entries", "must have 1 to 100,000 entries", tasks=[], successes=[], rollouts=[]),
    report("tasks[1]", "26", "must be in [0, 26), the dataset's tasks", tasks=[0, 26]),
    report("tasks[0]", "-1", "must be in [0, 26), the dataset's tasks", tasks=[-1, 0]),
    report("ids", "present", "must be absent where tasks are given", ids=["a", "b"]),
    report("ids[1]", "'?'", "must be an id of the dataset", tasks=[], ids=["a", "?"]),
    report("ids[0]", "''", "must be an id of the dataset", tasks=[], ids=["", "a"]),
    report("successes", "1 entries", "must have 2 entries", successes=[1]),
    report("rollouts", "3 entries", "must have 2 entries", rollouts=[1, 1, 1]),
    report("successes[1]", "-0.5", "must be finite and in [0, rollouts]", successes=[1, -0.5]),
    report("successes[0]", "4.5", "must be finite and in [0, rollouts]", successes=[4.5, 1]),
    report("successes[0]", "nan", "must be finite and in [0, rollouts]", successes=[NAN, 1]),
    report("successes[0]", "inf", "must be finite and in [0, rollouts]", successes=[INFINITY, 1]),
    report("rollouts[1]", "0", "must be in [1, 1,000,000]", rollouts=[4, 0]),
    report("rollouts[0]", "-4", "must be in [1, 1,000,000]", rollouts=[-4, 4]),
    report("rollouts[0]", "1000001", "must be in [1, 1,000,000]", rollouts=[1_000_001, 4]),
    report("policy_step", "-1", "must be >= 0", policy_step=-1),
    report("request_id", "'x'", "must be a UUID of version 7", request_id="x"),
    report("selection_id", "'x'", "must be 32 hexadecimal digits", selection_id="x"),
    run("name", "'New'", NAME, name="New"),
    learns("forgetting", 1.0, "must be in [0, 1)"),
    learns("forgetting", NAN, "must be in [0, 1)"),
    learns("implicit_weight", -0.1, "must be in [0, 1]"),
    learns("target", 2.0, "must be in [0, 1]"),
    learns("implicit_rollouts", 2e6, "must be in [0, 1e6]"),
    learns("capability_smoothing", 1.0, "must be in [0, 1)"),
    learns("rollouts_per_update", -1, "must be in [0, 1e9]"),
    learns("tolerance", 0.1, "must be in [0, 1e-6]"),
    learns("cooldown", 10_001, "must be in [0, 10000]"),
    learns("uniform_fraction", 1.5, "must be in [0, 1]"),
    learns("temperature", INFINITY, "must be in [0, 1e6]"),
    keeps("snapshot_interval", 0, "must be in [1, 100,000]"),
    keeps("history", 0, "must be in [1, 10,000,000]"),
    keeps("history_stride", 0, "must be in [1, 1,000,000]"),
    keeps("request_memory", 1, "must be in [1,000, 10,000,000]"),
    run("fork_from.run", "'X'", NAME, fork_from=pb.ForkPoint(run="X")),
    Bad("GetRun", pb.GetRunRequest(dataset="letters", name="!"), "run", "'!'", NAME),
    Bad("GetDataset", pb.GetDatasetRequest(name=""), "name", "''", NAME),
    Bad("UpdateRun", pb.UpdateRunRequest(dataset="letters", name="policy"), "hyperparameters", "absent", "at least"),
    Bad("ReleaseSelection", pb.ReleaseSelectionRequest(**RUN), "selection_id", "''", "must be a selection's id"),
    Bad("RestoreRun", pb.RestoreRunRequest(**RUN), "point", "absent", "must be a checkpoint or a version"),
    Bad("RestoreRun", pb.RestoreRunRequest(**RUN, version=-1), "version", "-1", "must be >= 0"),
    Bad("CreateCheckpoint", pb.CreateCheckpointRequest(**RUN, name="-"), "name", "'-'", NAME),
    Bad(
        "CreateCheckpoint",
        pb.CreateCheckpointRequest(**RUN, name="a", ttl_seconds=0),
        "ttl_seconds",
        "0.0",
        "must be in (0, 315,360,000",
    ),
    Bad("ListEvents", pb.ListEventsRequest(**RUN, limit=0), "limit", "0", "must be in [1, 10,000]"),
    Bad("ListEvents", pb.ListEventsRequest(**RUN, after_version=-1), "after_version", "-1", "must be in [0, "),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input_is_refused_with_field_value_and_rule(letters: Service, bad: Bad) -> None:
    """A request against a rule is INVALID_ARGUMENT, says which, and changes nothing."""
    before = letters.state()
    with pytest.raises(grpc.RpcError) as refused:
        getattr(letters.stub, bad.method)(bad.request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "INVALID_FIELD"
    message = refused.value.details()
    assert message is not None
    assert message.startswith(f"{bad.field} = {bad.value}")
    assert bad.rule in message
    assert letters.state() == before


@pytest.mark.parametrize("method", ["GetPosteriors", "WatchRun"])
def test_bad_input_ends_a_stream_before_it_begins(letters: Service, method: str) -> None:
    """A stream that is asked for against a rule gives nothing but the refusal."""
    requests: dict[str, Message] = {
        "GetPosteriors": pb.GetPosteriorsRequest(**RUN, tasks=[99]),
        "WatchRun": pb.WatchRunRequest(**RUN, interval_seconds=0.0),
    }
    with pytest.raises(grpc.RpcError) as refused:
        list(getattr(letters.stub, method)(requests[method], timeout=10))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def f4(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def f8(*values: float) -> bytes:
    return np.array(values, "<f8").tobytes()


def u4(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


def header(**fields: Any) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(header=pb.DatasetHeader(**{"name": "new", "size": 2, **fields}))


def chunk(**fields: Any) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(chunk=pb.DatasetChunk(**{"size": 2, **fields}))


BAD_UPLOADS: dict[str, tuple[list[pb.CreateDatasetRequest], str]] = {
    "nothing": ([], "part = no header"),
    "no header": ([chunk()], "part = no header"),
    "two headers": ([header(), header()], "part = header"),
    "name": ([header(name="_")], f"name = '_': {NAME}"),
    "size 0": ([header(size=0)], "size = 0: must be in [1, 100,000,000]"),
    "grid": ([header(reference_grid=0.6)], "reference_grid = 0.6: must be in [0.0, 0.5]"),
    "tag empty": ([header(tags=[""])], "tags[0] = '': must be 1 to 64 bytes"),
    "tag twice": ([header(tags=["a", "a"])], "tags = a repeated tag"),
    "too many tags": ([header(tags=[str(i) for i in range(1025)])], "tags = 1,025 entries"),
    "chunk of nothing": ([header(), chunk(size=0)], "chunk.size = 0"),
    "too many tasks": ([header(size=1), chunk()], "chunk.size = 2: chunks must add up"),
    "too few tasks": ([header(size=3), chunk()], "size = 3: chunks must add up to the header's size; 2 tasks came"),
    "weak alone": ([header(), chunk(weak=f4(0, 0))], "chunk.strong = absent: weak and strong go together"),
    "alpha alone": ([header(), chunk(prior_alpha=f8(1, 1))], "chunk.prior_beta = absent"),
    "short column": ([header(), chunk(weak=f4(0), strong=f4(0, 0))], "chunk.weak = 4 bytes"),
    "rate above 1": ([header(), chunk(weak=f4(0, 0), strong=f4(1, 1.5))], "chunk.strong[1] = 1.5: must be in [0, 1]"),
    "rate below 0": ([header(), chunk(weak=f4(-0.5, 0), strong=f4(1, 1))], "chunk.weak[0] = -0.5: must be in [0, 1]"),
    "one of two NaN": (
        [header(), chunk(weak=f4(0, NAN), strong=f4(1, 1))],
        "chunk.strong[1] = 1.0: a task must have both references or neither",
    ),
    "prior too small": (
        [header(), chunk(prior_alpha=f8(1, 0.05), prior_beta=f8(1, 1))],
        "chunk.prior_alpha[1] = 0.05: must be in [0.1, 1e6]",
    ),
    "prior NaN": ([header(), chunk(prior_alpha=f8(1, 1), prior_beta=f8(1, NAN))], "chunk.prior_beta[1] = nan"),
    "later chunk": (
        [header(size=4), chunk(weak=f4(0, 0), strong=f4(1, 1)), chunk(weak=f4(0, 2), strong=f4(1, 1))],
        "chunk.weak[3] = 2.0",
    ),
    "other columns": (
        [header(size=4), chunk(weak=f4(0, 0), strong=f4(1, 1)), chunk()],
        "must have the first chunk's columns",
    ),
    "unknown tag": ([header(tags=["a"]), chunk(tag=u4(0, 1))], "chunk.tag[1] = 1: must be in [0, 1)"),
    "tag column missing": ([header(tags=["a"]), chunk()], "chunk.tag = absent"),
    "ids missing": ([header(has_ids=True), chunk()], "chunk.ids = absent"),
    "ids not announced": ([header(), chunk(ids=["a", "b"])], "chunk.ids = present"),
    "too few ids": ([header(has_ids=True), chunk(ids=["a"])], "chunk.ids = 1 entries"),
    "id twice": ([header(has_ids=True), chunk(ids=["a", "a"])], "ids = 'a': must be distinct over the dataset"),
    "id empty": ([header(has_ids=True), chunk(ids=["a", ""])], "chunk.ids[1] = 0: must be 1 to 64 bytes"),
    "id too long": ([header(has_ids=True), chunk(ids=["a", "b" * 65])], "chunk.ids[1] = 65: must be 1 to 64 bytes"),
    "id with NUL": ([header(has_ids=True), chunk(ids=["a", "b\0"])], "must be without NUL"),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_a_bad_dataset_leaves_nothing(service: Service, name: str) -> None:
    """A dataset against a rule is INVALID_ARGUMENT, and no key of it stays in Redis."""
    requests, message = BAD_UPLOADS[name]
    with pytest.raises(grpc.RpcError) as refused:
        service.stub.CreateDataset(iter(requests), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in (refused.value.details() or "")
    assert service.state() == {}


def test_a_stream_that_breaks_leaves_nothing(service: Service) -> None:
    """CreateDataset that is cancelled in the middle leaves no dataset, and no key of it stays in Redis."""
    arrived = threading.Event()

    def requests() -> Iterator[pb.CreateDatasetRequest]:
        yield header(size=4)
        yield chunk()
        arrived.wait(10)

    call = service.stub.CreateDataset.future(requests(), timeout=10)
    service.wait_until(lambda: service.state() != {})
    call.cancel()
    arrived.set()
    service.wait_until(lambda: service.state() == {})
    assert service.client.list_datasets() == []


def absent(method: str, /, **fields: Any) -> Callable[[Service], object]:
    return lambda service: getattr(service.stub, method)(getattr(pb, f"{method}Request")(**fields), timeout=10)


NOBODY = {"dataset": "nothing", "run": "policy"}
NO_RUN = {"dataset": "letters", "run": "nobody"}
ABSENT = [
    ("DATASET_NOT_FOUND", absent("GetDataset", name="nothing")),
    ("DATASET_NOT_FOUND", absent("DeleteDataset", name="nothing")),
    ("DATASET_NOT_FOUND", absent("ListRuns", dataset="nothing")),
    ("DATASET_NOT_FOUND", absent("CreateRun", dataset="nothing", name="policy")),
    ("DATASET_NOT_FOUND", absent("SelectBatch", **NOBODY, batch_size=1)),
    ("RUN_NOT_FOUND", absent("GetRun", dataset="letters", name="nobody")),
    ("RUN_NOT_FOUND", absent("DeleteRun", dataset="letters", name="nobody")),
    ("RUN_NOT_FOUND", absent("SelectBatch", **NO_RUN, batch_size=1)),
    ("RUN_NOT_FOUND", absent("ReportOutcomes", **NO_RUN, tasks=[0], successes=[1], rollouts=[1])),
    ("RUN_NOT_FOUND", absent("GetRunSummary", **NO_RUN)),
    ("RUN_NOT_FOUND", absent("ListEvents", **NO_RUN)),
    ("RUN_NOT_FOUND", absent("CreateRun", dataset="letters", name="new", fork_from=pb.ForkPoint(run="nobody"))),
    ("CHECKPOINT_NOT_FOUND", absent("DeleteCheckpoint", **RUN, name="none")),
    ("CHECKPOINT_NOT_FOUND", absent("RestoreRun", **RUN, checkpoint="none")),
    ("VERSION_NOT_FOUND", absent("RestoreRun", **RUN, version=7)),
    ("VERSION_NOT_FOUND", absent("CreateCheckpoint", **RUN, name="a", version=7)),
]


@pytest.mark.parametrize(("reason", "call"), ABSENT)
def test_what_is_not_there_is_not_found(letters: Service, reason: str, call: Callable[[Service], object]) -> None:
    """A name that means nothing is NOT_FOUND, with the kind of thing as the reason."""
    before = letters.state()
    with pytest.raises(grpc.RpcError) as refused:
        call(letters)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(refused.value) == reason
    assert letters.state() == before
