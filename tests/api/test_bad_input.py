"""Guarantee 7: bad input is refused whole, with the field, the value and the rule; nothing of it is stored."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import SECONDS, Service, reason_of

NAN, INFINITY = float("nan"), float("inf")
REF = pb.RunRef(dataset="letters", name="policy")
RUN: dict[str, Any] = {"run": REF}


@dataclass
class Bad:
    """A request that breaks one rule: the method, the request, and its message, which names the field first."""

    method: str
    request: Message
    message: str

    def __str__(self) -> str:
        return f"{self.method} {self.message}"


def select(message: str, **fields: Any) -> Bad:
    return Bad("SelectBatch", pb.SelectBatchRequest(**{**RUN, "batch_size": 2, **fields}), message)


def report(message: str, **fields: Any) -> Bad:
    whole = {**RUN, "tasks": [0, 1], "successes": [1, 2], "rollouts": [4, 4]}
    return Bad("ReportOutcomes", pb.ReportOutcomesRequest(**{**whole, **fields}), message)


def create(message: str, **fields: Any) -> Bad:
    whole = {"dataset": "letters", "name": "new", "model": pb.EVIDENCE_MODEL_INTERPOLATION}
    return Bad("CreateRun", pb.CreateRunRequest(**{**whole, **fields}), message)


def learn(message: str, **values: Any) -> Bad:
    return create(f"hyperparameters.{message}", hyperparameters=pb.Hyperparameters(**values))


def quotas(**tasks: int) -> pb.TagQuotas:
    return pb.TagQuotas(tasks=tasks)


def weights(**values: float) -> pb.TagWeights:
    return pb.TagWeights(weights=values)


NAME = "must match [a-z0-9][a-z0-9._-]{0,62}"
UUID = "must be a UUID in its 36-character text form, or empty"
TASK = "must be between 0 and 25"
INVISIBLE = "must be without control characters and invisible ones"
BAD = [
    select(f"run.dataset: got 'Letters', {NAME}", run=pb.RunRef(dataset="Letters", name="policy")),
    select(f"run.name: got '', {NAME}", run=pb.RunRef(dataset="letters")),
    select(f"run.name: got '{'x' * 64}', {NAME}", run=pb.RunRef(dataset="letters", name="x" * 64)),
    select(
        "run.uid: got '12', must be 32 hexadecimal digits, or empty",
        run=pb.RunRef(dataset="letters", name="policy", uid="12"),
    ),
    select("batch_size: got 0, must be between 1 and 10000", batch_size=0),
    select("batch_size: got 10001, must be between 1 and 10000", batch_size=10_001),
    select("job: got 129 bytes, must be at most 128 bytes", job="j" * 129),
    select(f"job: got 'a\\nb', {INVISIBLE}", job="a\nb"),
    select(f"job: got 'a\\u202eb', {INVISIBLE}", job="a\u202eb"),
    select(f"incarnation: got '\\u2028', {INVISIBLE}", incarnation="\u2028"),
    select("incarnation: got 65 bytes, must be at most 64 bytes", incarnation="i" * 65),
    select(f"request_id: got 'nope', {UUID}", request_id="nope"),
    select(f"excluded_tasks[1]: got 26, {TASK}", excluded_tasks=[0, 26]),
    select(f"excluded_tasks[0]: got -1, {TASK}", excluded_tasks=[-1]),
    select("excluded_tasks: got 100001 entries, must have between 0 and 100000 entries", excluded_tasks=[0] * 100_001),
    select("excluded_ids[0]: got 'zz', must be an id of the dataset", excluded_ids=["zz"]),
    select(
        "excluded_ids: got 1 entries, must be absent if excluded_tasks is given", excluded_tasks=[1], excluded_ids=["a"]
    ),
    select("any_of.tags[0]: got 'digit', must be a tag of dataset 'letters'", any_of=pb.TagList(tags=["digit"])),
    select("any_of.tags: got 0 entries, must have between 1 and 2 entries", any_of=pb.TagList()),
    select("any_of.tags[1]: got 'vowel', must differ from any_of.tags[0]", any_of=pb.TagList(tags=["vowel", "vowel"])),
    select("quotas.tasks['digit']: got 'digit', must be a tag of dataset", quotas=quotas(digit=2)),
    select(
        "quotas.tasks: got a sum of 3, must add up to batch_size, 2",
        quotas=quotas(vowel=1, consonant=2),
    ),
    select("quotas.tasks['vowel']: got -1, must be at least 0", quotas=quotas(vowel=-1, consonant=3)),
    select("weights.weights: got no weight above 0, must have a weight above 0", weights=weights(vowel=0.0)),
    select("weights.weights['vowel']: got nan, must be finite and at least 0", weights=weights(vowel=NAN)),
    select("fill: got True, must come with quotas or weights", fill=True),
    select("tag_targets['vowel']: got 1.5, must be between 0 and 1", tag_targets={"vowel": 1.5}),
    select("lease_seconds: got 0.0, must be above 0 and at most 3600", lease_seconds=0.0),
    select("lease_seconds: got nan, must be above 0 and at most 3600", lease_seconds=NAN),
    select("lease_seconds: got 3601.0, must be above 0 and at most 3600", lease_seconds=3601),
    select("overrides.target: got 1.5, must be between 0 and 1", overrides=pb.Hyperparameters(target=1.5)),
    select("overrides.target: got nan, must be between 0 and 1", overrides=pb.Hyperparameters(target=NAN)),
    select("overrides.rest: got 0.5, must be absent", overrides=pb.Hyperparameters(rest=0.5)),
    select("seed: got -1, must be at least 0", seed=-1),
    select("policy_step: got -1, must be at least 0", policy_step=-1),
    report(f"run.name: got 'A', {NAME}", run=pb.RunRef(dataset="letters", name="A")),
    report("tasks: got 0 entries, must have between 1 and 100000 entries", tasks=[], successes=[], rollouts=[]),
    report(f"tasks[1]: got 26, {TASK}", tasks=[0, 26]),
    report(f"tasks[0]: got -1, {TASK}", tasks=[-1, 0]),
    report("ids: got 2 entries, must be absent if tasks is given", ids=["a", "b"]),
    report("ids[1]: got '?', must be an id of the dataset", tasks=[], ids=["a", "?"]),
    report("ids[0]: got '', must be an id of the dataset", tasks=[], ids=["", "a"]),
    report("successes: got 1 entries, must have 2 entries", successes=[1]),
    report("rollouts: got 3 entries, must have 2 entries", rollouts=[1, 1, 1]),
    report("effective: got 1 entries, must have 2 entries", effective=[True]),
    report("successes[1]: got -0.5, must be between 0 and the entry's rollouts, 4", successes=[1, -0.5]),
    report("successes[0]: got 4.5, must be between 0 and the entry's rollouts, 4", successes=[4.5, 1]),
    report("successes[0]: got nan, must be between 0 and the entry's rollouts, 4", successes=[NAN, 1]),
    report("successes[0]: got inf, must be between 0 and the entry's rollouts, 4", successes=[INFINITY, 1]),
    report("rollouts[1]: got 0, must be between 1 and 1000000", rollouts=[4, 0]),
    report("rollouts[0]: got 1000001, must be between 1 and 1000000", rollouts=[1_000_001, 4]),
    report("policy_step: got -1, must be at least 0", policy_step=-1),
    report("selection_policy_step: got 4, must be at most policy_step, 3", policy_step=3, selection_policy_step=4),
    report(f"request_id: got 'x', {UUID}", request_id="x"),
    report("request_age_seconds: got -1.0, must be at least 0 and finite", request_age_seconds=-1),
    report("request_age_seconds: got nan, must be at least 0 and finite", request_age_seconds=NAN),
    report("selection_id: got 'x', must be 32 hexadecimal digits", selection_id="x"),
    create(f"name: got 'New', {NAME}", name="New"),
    create("policy: got 129 bytes, must be at most 128 bytes", policy="p" * 129),
    create("model: got 7, must be a value of EvidenceModel", model=7),
    learn("forgetting: got 1.0, must be at least 0 and below 1", forgetting=1.0),
    learn("target: got nan, must be between 0 and 1", target=NAN),
    learn("drift: got 0.01, must be absent: it belongs to item_response", drift=0.01),
    create(f"fork_from.run: got 'X', {NAME}", fork_from=pb.ForkPoint(run="X")),
    create("fork_from.version: got -1, must be at least 0", fork_from=pb.ForkPoint(run="policy", version=-1)),
    create(
        "fork_from.kept_tasks: got 3, must be absent in a request", fork_from=pb.ForkPoint(run="policy", kept_tasks=3)
    ),
    create(
        "model: got 'item_response', must be the forked run's, interpolation",
        model=pb.EVIDENCE_MODEL_ITEM_RESPONSE,
        fork_from=pb.ForkPoint(run="policy"),
    ),
    Bad("GetRun", pb.GetRunRequest(run=pb.RunRef(dataset="letters", name="!")), f"run.name: got '!', {NAME}"),
    Bad("GetDataset", pb.GetDatasetRequest(), f"name: got '', {NAME}"),
    Bad("UpdateRun", pb.UpdateRunRequest(**RUN), "hyperparameters: got none, must have at least one field"),
    Bad("ReleaseSelection", pb.ReleaseSelectionRequest(**RUN), "selection_id: got '', must be the id of a selection"),
    Bad("RetireTasks", pb.RetireTasksRequest(**RUN), "tasks: got 0 entries, must have between 1 and 100000 entries"),
    Bad("RetireTasks", pb.RetireTasksRequest(**RUN, tasks=[26]), f"tasks[0]: got 26, {TASK}"),
    Bad("RestoreRun", pb.RestoreRunRequest(**RUN), "point: got None, must be a checkpoint or a version"),
    Bad("RestoreRun", pb.RestoreRunRequest(**RUN, version=-1), "version: got -1, must be at least 0"),
    Bad("CreateCheckpoint", pb.CreateCheckpointRequest(**RUN, name="-"), f"name: got '-', {NAME}"),
    Bad(
        "CreateCheckpoint",
        pb.CreateCheckpointRequest(**RUN, name="a", ttl_seconds=0),
        "ttl_seconds: got 0.0, must be above 0 and at most 315360000",
    ),
    Bad(
        "ListRuns",
        pb.ListRunsRequest(dataset="letters", page_size=1001),
        "page_size: got 1001, must be between 1",
    ),
    Bad("ListEvents", pb.ListEventsRequest(**RUN, page_size=-1), "page_size: got -1, must be between 1 and 10000"),
    Bad(
        "ListEvents",
        pb.ListEventsRequest(**RUN, page_token="x"),
        "page_token: got 'x', must be a next_page_token of this listing",
    ),
    Bad("ListEvents", pb.ListEventsRequest(**RUN, after_version=-1), "after_version: got -1, must be between 0 and "),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input_is_refused_with_field_value_and_rule(letters: Service, bad: Bad) -> None:
    """INVALID_ARGUMENT, and nothing changes."""
    before = letters.state()
    with pytest.raises(grpc.RpcError) as refused:
        getattr(letters.stub, bad.method)(bad.request, timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "INVALID_FIELD"
    assert (refused.value.details() or "").startswith(bad.message)
    assert letters.state() == before


NEEDED: dict[str, dict[str, Any]] = {
    "CreateRun": {"dataset": "letters", "name": "new"},
    "SelectBatch": {"batch_size": 2},
    "ReportOutcomes": {"tasks": [0], "successes": [1], "rollouts": [4]},
    "RetireTasks": {"tasks": [0]},
    "RestoreRun": {"version": 0},
    "UndoReport": {"version": 1},
    "UpdateRun": {"hyperparameters": pb.Hyperparameters(target=0.4)},
}
WORDS = [
    (name, field)
    for name, method in pb.DESCRIPTOR.services_by_name["TaskSelectionService"].methods_by_name.items()
    for field in ("job", "incarnation", "reason", "policy")
    if field in method.input_type.fields_by_name
]


@pytest.mark.parametrize(("method", "field"), WORDS, ids=[" ".join(words) for words in WORDS])
def test_control_characters_are_refused_in_every_text(letters: Service, method: str, field: str) -> None:
    """They would reach the terminals of those who read the history, the leases or the runs."""
    request = getattr(pb, f"{method}Request")(**NEEDED.get(method, {}), **{field: "\x1b]0;x\x07"})
    if "run" in request.DESCRIPTOR.fields_by_name:
        request.run.CopyFrom(REF)
    with pytest.raises(grpc.RpcError) as refused:
        getattr(letters.stub, method)(request, timeout=SECONDS)
    assert isinstance(refused.value, grpc.Call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == f"{field}: got '\\x1b]0;x\\x07', {INVISIBLE}"


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetPosteriors", pb.GetPosteriorsRequest(**RUN, tasks=[99])),
        ("WatchRun", pb.WatchRunRequest(**RUN, interval_seconds=0.0)),
    ],
)
def test_bad_input_ends_a_stream_before_it_begins(letters: Service, method: str, request_: Message) -> None:
    """A stream gives nothing but the refusal."""
    with pytest.raises(grpc.RpcError) as refused:
        list(getattr(letters.stub, method)(request_, timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def header(**fields: Any) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(header=pb.DatasetHeader(**{"name": "new", "size": 2, **fields}))


def chunk(**fields: Any) -> pb.CreateDatasetRequest:
    return pb.CreateDatasetRequest(chunk=pb.DatasetChunk(**{"size": 2, **fields}))


RATES: dict[str, Any] = {"references": ["weak", "strong"]}
PRIOR: dict[str, Any] = {"has_prior": True}
DISTINCT = "must be distinct over the dataset: task 0 has it"
BAD_UPLOADS: list[tuple[list[pb.CreateDatasetRequest], str]] = [
    ([], "part: got no header, must be the header in the first message"),
    ([chunk()], "part: got no header, must be the header in the first message"),
    ([header(), header()], "part: got header, must be a chunk in each message after the first"),
    ([header(name="_")], f"header.name: got '_', {NAME}"),
    ([header(size=0)], "header.size: got 0, must be between 1 and 100000000"),
    ([header(reference_grid=0.6)], "header.reference_grid: got 0.6, must be between 0 and 0.5"),
    ([header(tags=[""])], "header.tags[0]: got 0 bytes, must be between 1 and 64 bytes"),
    ([header(tags=["a", "a"])], "header.tags[1]: got 'a', must differ from header.tags[0]"),
    (
        [header(tags=[str(i) for i in range(1025)])],
        "header.tags: got 1025 entries, must have between 0 and 1024 entries",
    ),
    ([header(references=["A"])], f"header.references[0]: got 'A', {NAME}"),
    ([header(references=list("abcdefghi"))], "header.references: got 9 entries, must have between 0 and 8 entries"),
    ([header(features=["x\n"])], f"header.features[0]: got 'x\\n', {INVISIBLE}"),
    ([header(tags=["\ufeffmath"])], f"header.tags[0]: got '\\ufeffmath', {INVISIBLE}"),
    ([header(fingerprint=b"x")], "header.fingerprint: got 1 bytes, must be 32 bytes, or empty"),
    ([header(), chunk(size=0)], "chunk.size: got 0, must be between 1 and 1048576"),
    ([header(size=1), chunk()], "chunk.size: got 2, must add up to header.size, 1; 0 tasks came before"),
    ([header(size=3), chunk()], "header.size: got 3, must be the tasks of all chunks, 2"),
    ([header(**RATES), chunk(references=[0, 0, 0])], "chunk.references: got 3 entries, must have 4 entries"),
    ([header(), chunk(references=[0, 0])], "chunk.references: got 2 entries, must have 0 entries"),
    (
        [header(**RATES), chunk(references=[0, 1, 0, 1.5])],
        "chunk.references[3]: got 1.5, must be between 0 and 1, or NaN (task 1, 'strong')",
    ),
    ([header(**RATES), chunk(references=[-0.5, 1, 0, 1])], "chunk.references[0]: got -0.5, must be between 0 and 1"),
    (
        [header(features=["length"]), chunk(features=[1, INFINITY])],
        "chunk.features[1]: got inf, must be finite, or NaN (task 1, 'length')",
    ),
    (
        [header(**PRIOR), chunk(prior_alpha=[1, 0.05], prior_beta=[1, 1])],
        "chunk.prior_alpha[1]: got 0.05, must be between 0.1 and 1000000",
    ),
    ([header(**PRIOR), chunk(prior_alpha=[1, 1], prior_beta=[1, NAN])], "chunk.prior_beta[1]: got nan"),
    ([header(**PRIOR), chunk(prior_alpha=[1, 1])], "chunk.prior_beta: got 0 entries, must have 2 entries"),
    ([header(tags=["a"]), chunk(tag=[0, 1])], "chunk.tag[1]: got 1, must be between 0 and 0"),
    ([header(tags=["a"]), chunk()], "chunk.tag: got 0 entries, must have 2 entries"),
    ([header(has_ids=True), chunk()], "chunk.ids: got 0 entries, must have 2 entries"),
    ([header(), chunk(ids=["a", "b"])], "chunk.ids: got 2 entries, must have 0 entries"),
    ([header(has_ids=True), chunk(ids=["a", "a"])], f"ids[1]: got 'a', {DISTINCT}"),
    ([header(has_ids=True), chunk(ids=["a", ""])], "chunk.ids[1]: got 0 bytes, must be between 1 and 256 bytes"),
    ([header(has_ids=True), chunk(ids=["a", "b" * 257])], "chunk.ids[1]: got 257 bytes, must be between 1 and 256"),
    ([header(has_ids=True), chunk(ids=["a", "b\0"])], f"chunk.ids[1]: got 'b\\x00', {INVISIBLE}"),
    ([header(has_ids=True), chunk(ids=["a", "a\u200b"])], f"chunk.ids[1]: got 'a\\u200b', {INVISIBLE}"),
]


@pytest.mark.parametrize(("requests", "message"), BAD_UPLOADS, ids=[message for _, message in BAD_UPLOADS])
def test_bad_dataset_leaves_nothing(service: Service, requests: list[pb.CreateDatasetRequest], message: str) -> None:
    """INVALID_ARGUMENT, and no key of it stays in Redis."""
    with pytest.raises(grpc.RpcError) as refused:
        service.stub.CreateDataset(iter(requests), timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(message)
    assert service.state() == {}


def test_text_of_any_script_is_accepted(service: Service) -> None:
    """Joiners, which emoji and some scripts need, spaces, and characters that Unicode does not know yet."""
    ids = ["👩\u200d🔬", "क्\u200dष", "a\u00a0b", "数学", "\U000e0fff"]
    service.dataset("texts", 5, ids=ids, tags=["π r²"] * 5)
    batch = service.create("texts", "policy").select(5, job="café")
    assert sorted(batch.ids) == sorted(ids)


def test_upload_that_breaks_leaves_nothing(service: Service) -> None:
    """CreateDataset that is cancelled in the middle."""
    arrived = threading.Event()

    def requests() -> Iterator[pb.CreateDatasetRequest]:
        yield header(size=4000)
        yield chunk(size=2000)
        arrived.wait(SECONDS)

    call = service.stub.CreateDataset.future(requests(), timeout=SECONDS)
    service.wait_until(lambda: service.state() != {})
    call.cancel()
    arrived.set()
    service.wait_until(lambda: service.state() == {})
    assert not service.stub.ListDatasets(pb.ListDatasetsRequest(), timeout=SECONDS).datasets


def absent(method: str, /, **fields: Any) -> Callable[[Service], object]:
    return lambda service: getattr(service.stub, method)(getattr(pb, f"{method}Request")(**fields), timeout=SECONDS)


ABSENT = [
    ("DATASET_NOT_FOUND", absent("GetDataset", name="nothing")),
    ("DATASET_NOT_FOUND", absent("DeleteDataset", name="nothing")),
    ("DATASET_NOT_FOUND", absent("ListRuns", dataset="nothing")),
    ("DATASET_NOT_FOUND", absent("CreateRun", dataset="nothing", name="policy")),
    ("RUN_NOT_FOUND", absent("CreateRun", dataset="letters", name="new", fork_from=pb.ForkPoint(run="none"))),
    ("CHECKPOINT_NOT_FOUND", absent("DeleteCheckpoint", **RUN, name="none")),
    ("VERSION_NOT_FOUND", absent("CreateCheckpoint", **RUN, name="a", version=7)),
]


@pytest.mark.parametrize(("reason", "call"), ABSENT)
def test_absent_things_are_not_found(letters: Service, reason: str, call: Callable[[Service], object]) -> None:
    """With the kind of thing as the reason."""
    before = letters.state()
    with pytest.raises(grpc.RpcError) as refused:
        call(letters)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(refused.value) == reason
    assert letters.state() == before
