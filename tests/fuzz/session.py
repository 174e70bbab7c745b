"""Calls to two servers over one Redis, and what must hold after each call, whatever was sent."""

import logging
import math
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server import errors
from bots_server.api.methods import MAX_MESSAGE_BYTES
from bots_server.telemetry.logs import TextFormatter
from tests.api.service import Service, dataset_parts, reason_of, trailing
from tests.fuzz.requests import IDS, SERVICE, TAGS, World

SECONDS = 10.0  # no call takes so long: it hangs
MESSAGE_BYTES = 4_096  # of a status message; gRPC's limit for all metadata is 8 KiB by default
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}
DENIALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
READABLE = "rich"  # the dataset of those who may read one
# NaN: there is nothing to take the mean of, or nothing was drawn.
NAN_MESSAGES = {"Accuracy", "CalibrationBin", "Evidence", "Shadow", "ShadowBin", "Outlier"}
NAN_FIELDS = {"draws", "uniform_effective_task_ratio"}
FIELD = re.compile(r"[a-z_]+(\.[a-z_]+)*(\[.*\])?: got .*, must ", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
WRITES = "return string.match(redis.call('INFO', 'persistence'), 'rdb_changes_since_last_save:(%d+)')"
MANY = 256  # tasks, so that a small selection does not draw all of them
LEASE_SECONDS = 3_600.0  # a lease of so long does not expire during a test
ADVANCING = {"ReportOutcomes", "UpdateRun", "RestoreRun", "UndoReport", "RetireTasks"}


def reasons(branch: type[errors.Failure] = errors.Failure) -> set[str]:
    """Returns the words of bots-reason."""
    return {getattr(branch, "reason", "")}.union(*(reasons(below) for below in branch.__subclasses__()))


REASONS = reasons()


@dataclass
class Known:
    """What must be true of a run: what was acknowledged.

    retired: tasks by version; of a fork not those that it took along
    """

    ref: pb.RunRef
    ids: list[str]
    is_fork: bool
    version: int = 0
    posteriors: bytes = b""
    retired: list[set[int]] = field(default_factory=lambda: [set()])
    checkpoints: dict[str, int] = field(default_factory=dict)  # versions
    leases: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # selection, job, incarnation by task
    applied: dict[str, int] = field(default_factory=dict)  # versions of events by their request ids
    selections: dict[str, pb.SelectBatchResponse] = field(default_factory=dict)


class Session:
    """Calls about four datasets and five runs of an empty Redis."""

    def __init__(self, service: Service, other: Service) -> None:
        (self._redis,) = service.redis.primaries()
        self._redis.flushall()
        self._writes = 0
        self.world = World()
        self._stubs = service.stub, other.stub
        self.calls = 0
        half = len(IDS) // 2
        columns: dict[str, Any] = {"ids": IDS, "tags": TAGS * half, "references": {"weak": 0.25, "strong": 0.75}}
        service.upload(*dataset_parts("rich", len(IDS), features={"length": range(len(IDS))}, **columns))
        service.upload(*dataset_parts("bare", MANY))
        service.upload(*dataset_parts("wide", MANY, features={"length": range(MANY)}))
        service.upload(*dataset_parts("tiny", 1, references={"weak": 0, "strong": 1}))
        for dataset in "rich", "bare", "wide", "tiny":
            service.create(dataset, "model")
        service.create("rich", "mixed", model="EVIDENCE_MODEL_INTERPOLATION", rest=0)
        self._runs: dict[str, Known] = {}
        self._refresh()

    @property
    def is_spent(self) -> bool:
        """Returns whether most of the runs are gone, so that most further calls are refused."""
        return len(self._runs) < 3

    def call(self, method: str, messages: Sequence[Message], server: int = 0) -> str:
        """Calls a method on one of the servers and returns the status; fails if an invariant is broken."""
        self.calls += 1
        before = self._run_of(messages)
        try:
            response = call(self._stubs[server], method, messages)
        except grpc.RpcError as error:
            if not is_too_long(error, messages):
                check_refusal(error)
            self._check_unchanged(1 - server, before)  # the other server must see no trace of it either
            if before is not None and reason_of(error) == "TOO_FEW_ELIGIBLE":  # the incarnation has begun all the same
                self._begin_incarnation(before, messages[0])
            return error.code().name
        check_numbers(response)
        if method in ("CreateDataset", "DeleteDataset", "CreateRun", "DeleteRun"):
            if self._wrote():
                self._refresh()
        elif before is not None:
            self._accepted(method, before, messages[0], response)
        return "OK"

    def call_raw(self, channel: Any, method: str, bodies: Sequence[bytes]) -> str:
        """Sends bytes that are no request, and returns the status; fails unless they are refused without a trace."""
        self.calls += 1
        status = call_raw(channel, method, bodies)
        # Of a stream the first message alone may be enough.
        assert status == "INVALID_ARGUMENT" or SERVICE.methods_by_name[method].client_streaming, status
        self._check_unchanged(0)
        return status

    def call_limited(self, stub: TaskSelectionServiceStub, method: str, messages: Sequence[Message]) -> str:
        """Calls a method for somebody who may only read a dataset, or nothing, and returns the status."""
        self.calls += 1
        try:
            response = call(stub, method, messages)
        except grpc.RpcError as error:
            if not is_too_long(error, messages):
                check_refusal(error, REFUSALS | DENIALS)
            status = error.code().name
        else:
            check_numbers(response)
            run = getattr(messages[0], "run", None)
            assert run is None or run.dataset == READABLE, response
            assert all(dataset.name == READABLE for dataset in getattr(response, "datasets", ())), response
            status = "OK"
        self._check_unchanged(0)
        return status

    def check(self) -> None:
        """Checks what must hold at any time of all runs, on both servers."""
        for known in self._runs.values():
            for server in (0, 1):
                assert self._state(known, server) == (known.version, known.posteriors)
            for stub in self._stubs:
                check_summary(stub.GetRunSummary(pb.GetRunSummaryRequest(run=known.ref), timeout=SECONDS).summary)

    def end(self) -> None:
        """Checks the runs, deletes everything, and checks that nothing is left."""
        self.check()
        stub = self._stubs[0]
        for known in self._runs.values():
            stub.DeleteRun(pb.DeleteRunRequest(run=known.ref), timeout=SECONDS)
        for dataset in stub.ListDatasets(pb.ListDatasetsRequest(), timeout=SECONDS).datasets:
            stub.DeleteDataset(pb.DeleteDatasetRequest(name=dataset.name), timeout=SECONDS)
        Service.wait_until(lambda: not self._redis.keys())  # a server may be writing a snapshot

    def _wrote(self) -> bool:
        """Returns whether Redis changed since the last look, which a server's own work in the background does too."""
        before, self._writes = self._writes, self._redis.eval(WRITES, 0)
        return before != self._writes

    def _check_unchanged(self, server: int, only: Known | None = None) -> None:
        """Fails if a run is not as it was when the last call was acknowledged; `only`: look at no other one."""
        if self._wrote():
            for known in self._runs.values() if only is None else [only]:
                assert self._state(known, server) == (known.version, known.posteriors)

    def _accepted(self, method: str, known: Known, request: Any, response: Any) -> None:
        advances = method in ADVANCING and (not request.request_id or request.request_id.lower() not in known.applied)
        if advances:
            known.version += 1
            known.retired.append(set(known.retired[-1]))
            self.world.versions.append(known.version)
        if self._wrote() or advances:
            version, known.posteriors = self._state(known, 0)
            assert version == known.version, f"{method} made version {version} of {known.version}"
        if advances:
            known.applied[request.request_id.lower()] = known.version
        elif method in ADVANCING and method != "UpdateRun":
            assert response.version == known.applied[request.request_id.lower()], f"not the first answer: {response}"
        match method:
            case "SelectBatch":
                self._selected(known, request, response)
            case "ReportOutcomes" if request.selection_id:
                self._free(known, tasks_of(request, known), request.selection_id)
            case "ReleaseSelection":
                self._free(known, tasks_of(request, known) or list(known.leases), request.selection_id)
            case "RetireTasks" if advances:
                retired = known.retired[-1]
                (retired.difference_update if request.undo else retired.update)(tasks_of(request, known))
                assert known.is_fork or response.retired_tasks == len(retired)
            case "CreateCheckpoint":
                known.checkpoints[request.name] = response.checkpoint.version
            case "RestoreRun" if advances:  # the retired tasks are that version's
                version = request.version if request.HasField("version") else known.checkpoints[request.checkpoint]
                known.retired[-1] = set(known.retired[version])
                known.leases.clear()
            case "EndLeases":
                every = not request.HasField("job")
                self._free(known, [task for task, of in known.leases.items() if every or of[1] == request.job])
            case "ListEvents":
                assert all(0 < event.version <= known.version for event in response.events)
                self.world.words["page_token"].append(response.next_page_token)

    def _begin_incarnation(self, known: Known, request: Any) -> None:
        """Ends the leases of the job's earlier incarnations."""
        job, incarnation = request.job, request.incarnation
        if job and incarnation:
            ended = [task for task, of in known.leases.items() if of[1] == job and of[2] not in ("", incarnation)]
            self._free(known, ended)

    def _selected(self, known: Known, request: pb.SelectBatchRequest, response: pb.SelectBatchResponse) -> None:
        chosen = list(response.tasks)
        given = request.request_id.lower()
        if given in known.selections:
            assert response == known.selections[given] or repr(response) == repr(known.selections[given])
            return
        self._begin_incarnation(known, request)
        assert len(set(chosen)) == len(chosen)
        assert len(chosen) == request.batch_size or (request.allow_fewer and len(chosen) < request.batch_size)
        assert not known.retired[-1].intersection(chosen)
        assert not known.leases.keys() & set(chosen), f"{request.job} got what others lease"
        assert not {*request.excluded_tasks} & set(chosen)
        assert not {*request.excluded_ids} & set(response.ids)
        assert all(0 <= mean <= 1 for mean in response.means)
        assert all(math.isnan(one) or 0 <= one <= 1 for one in response.draws)
        assert len(response.means) == len(response.draws) == len(chosen)
        if given:
            known.selections[given] = response
        self.world.words["selection_id"].append(response.selection_id)
        if request.lease_seconds >= LEASE_SECONDS:
            known.leases.update(dict.fromkeys(chosen, (response.selection_id, request.job, request.incarnation)))

    def _free(self, known: Known, tasks: Sequence[int], selection: str = "") -> None:
        for task in tasks:
            if selection in ("", known.leases.get(task, ("",))[0]):
                known.leases.pop(task, None)

    def _run_of(self, messages: Sequence[Any]) -> Known | None:
        if not messages or "run" not in messages[0].DESCRIPTOR.fields_by_name:
            return None
        ref = messages[0].run
        names = (one for one in self._runs.values() if (one.ref.dataset, one.ref.name) == (ref.dataset, ref.name))
        return next(names, None)

    def _state(self, known: Known, server: int) -> tuple[int, bytes]:
        """Returns version and posteriors, which are finite and above zero."""
        stub = self._stubs[server]
        version = stub.GetRun(pb.GetRunRequest(run=known.ref), timeout=SECONDS).run.version
        content = bytearray()
        for chunk in stub.GetPosteriors(pb.GetPosteriorsRequest(run=known.ref), timeout=SECONDS):
            assert chunk.version == version
            values = np.array([chunk.alpha, chunk.beta])
            assert np.isfinite(values).all(), chunk
            assert (values > 0).all(), chunk
            chunk.version = 0
            content += chunk.SerializeToString()
        return version, bytes(content)

    def _refresh(self) -> None:
        """Looks at which runs there are, in what state new ones are, and that known ones are as they were."""
        found: dict[str, Known] = {}
        stub = self._stubs[0]
        for dataset in stub.ListDatasets(pb.ListDatasetsRequest(), timeout=SECONDS).datasets:
            for run in stub.ListRuns(pb.ListRunsRequest(dataset=dataset.name), timeout=SECONDS).runs:
                known = self._runs.get(run.ref.uid) or self._new(run)
                assert known.version == run.version
                found[run.ref.uid] = known
        self._runs = found

    def _new(self, run: pb.Run) -> Known:
        chunks = self._stubs[0].GetPosteriors(pb.GetPosteriorsRequest(run=run.ref, with_ids=True), timeout=SECONDS)
        ids = [one for chunk in chunks for one in chunk.ids]
        known = Known(run.ref, ids, is_fork=run.HasField("forked_from"))
        version, known.posteriors = self._state(known, 0)
        assert version == 0
        self.world.words["uid"].append(run.ref.uid)
        return known


def tasks_of(request: Any, known: Known) -> list[int]:
    """Returns the tasks that an accepted request names."""
    return list(request.tasks) or [known.ids.index(one) for one in request.ids]


def call(stub: TaskSelectionServiceStub, method: str, messages: Sequence[Message]) -> Any:
    """Returns the response, or the first of a stream."""
    of = getattr(stub, method)
    described = SERVICE.methods_by_name[method]
    response = of(iter(messages) if described.client_streaming else messages[0], timeout=SECONDS)
    if not described.server_streaming:
        return response
    first = next(response)
    response.cancel()
    return first


def call_raw(channel: Any, method: str, bodies: Sequence[bytes]) -> str:
    """Sends bytes as requests and returns the status; fails if it is neither OK nor that of a refusal."""
    described = SERVICE.methods_by_name[method]
    path = f"/{SERVICE.full_name}/{method}"
    try:
        if described.client_streaming:
            channel.stream_unary(path)(iter(bodies), timeout=SECONDS)
        elif described.server_streaming:
            stream = channel.unary_stream(path)(bodies[0], timeout=SECONDS)
            next(stream)
            stream.cancel()
        else:
            channel.unary_unary(path)(bodies[0], timeout=SECONDS)
    except grpc.RpcError as error:
        check_refusal(error)
        return error.code().name
    return "OK"


def is_too_long(error: grpc.RpcError, messages: Sequence[Message]) -> bool:
    """Returns whether gRPC itself refused a message, because it is longer than any that the service takes."""
    longest = max((message.ByteSize() for message in messages), default=0)
    return longest > MAX_MESSAGE_BYTES and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def check_refusal(error: grpc.RpcError, allowed: Set[grpc.StatusCode] = REFUSALS) -> None:
    """Fails unless a call was refused with a reason, a message that fits, and for INVALID_FIELD the field."""
    assert error.code() in allowed, error
    assert reason_of(error) in REASONS, error
    message = error.details() or ""
    assert 0 < len(message.encode()) <= MESSAGE_BYTES
    assert sum(len(key) + len(value) for key, value in trailing(error).items()) <= MESSAGE_BYTES
    assert not CONTROL.search(message), message
    if reason_of(error) == "INVALID_FIELD":
        assert FIELD.match(message), message


def check_numbers(message: Message) -> None:
    """Fails if a number is infinite, or is NaN where the proto does not give that a meaning."""
    name = message.DESCRIPTOR.name
    for of, value in message.ListFields():
        if of.message_type is not None and not of.message_type.GetOptions().map_entry:
            for part in value if of.is_repeated else [value]:
                check_numbers(part)
        elif of.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            allowed = name in NAN_MESSAGES or of.name in NAN_FIELDS
            for number in value if of.is_repeated else [value]:
                assert math.isfinite(number) or (allowed and math.isnan(number)), (name, of.name, number)


def check_summary(summary: pb.RunSummary) -> None:
    """Fails unless the numbers of a summary are shares and counts of its tasks."""
    shares = summary.mean_pass_rate, summary.solved, summary.too_hard, summary.in_reach, summary.coverage
    assert all(0 <= share <= 1 for share in shares), summary
    assert abs(summary.solved + summary.too_hard + summary.in_reach - 1) < 1e-9, summary
    counts = summary.updates, summary.deviating_tasks, summary.distinct_tasks, summary.resting_tasks
    assert all(0 <= count < math.inf for count in (*counts, summary.epochs, summary.pending_rollouts)), summary
    assert math.isfinite(summary.mean_evidence), summary


class Lines(logging.Handler):
    """Keeps the lines of the log that no server may write: of bugs, of several lines, with control characters."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(TextFormatter())
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno >= logging.ERROR or CONTROL.search(line) or len(line) > MESSAGE_BYTES:
            self.bad.append(line)


@contextmanager
def log_lines() -> Iterator[Lines]:
    """Yields the lines of the log that no server may write."""
    log, lines = logging.getLogger("bots_server"), Lines()
    level, log.propagate = log.level, False
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
        log.propagate = True
