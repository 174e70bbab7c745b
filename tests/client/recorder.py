"""A service that records what reaches it and answers what the test says: for what the client alone decides.

Everything else is tested against the real server.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from bots.v1 import task_selection_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["TaskSelectionService"]
METHODS = tuple(SERVICE.methods_by_name)


@dataclass(frozen=True)
class Call:
    """One call that arrived. seconds: what was left of its deadline; None: it had none."""

    method: str
    requests: list[Any]
    metadata: dict[str, str]
    seconds: float | None

    @property
    def request(self) -> Any:
        return self.requests[0]


@dataclass
class Recorder(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    """Answers every method with an empty message (a stream with one), or by the function in `answers`."""

    calls: list[Call] = field(default_factory=list)
    answers: dict[str, Callable[[Any, grpc.ServicerContext], Message]] = field(default_factory=dict)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = details.method.rsplit("/", 1)[1]
        if name not in METHODS:
            return None
        method = SERVICE.methods_by_name[name]
        request_type = getattr(pb, method.input_type.name)
        response_type = getattr(pb, method.output_type.name)

        def answer(requests: Any, context: grpc.ServicerContext) -> Message:
            remaining = context.time_remaining()
            call = Call(
                method.name,
                list(requests) if method.client_streaming else [requests],
                {item[0]: str(item[1]) for item in context.invocation_metadata()},
                # gRPC says a million years or so where there is none.
                remaining if remaining is not None and remaining < 1e9 else None,
            )
            self.calls.append(call)
            empty: Message = response_type()
            reply = self.answers.get(method.name)
            return empty if reply is None else reply(call.request, context)

        def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            yield answer(request, context)

        convert = {
            "request_deserializer": request_type.FromString,
            "response_serializer": response_type.SerializeToString,
        }
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(answer, **convert)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(answers, **convert)
        return grpc.unary_unary_rpc_method_handler(answer, **convert)

    def of(self, method: str) -> list[Call]:
        """Returns the calls of one method."""
        return [call for call in self.calls if call.method == method]


UID = "a" * 32
SIZE = 100


def steady() -> Recorder:
    """Returns a recorder with a dataset of `SIZE` tasks with ids and tags, and a run whose version grows by reports."""
    recorder = Recorder()
    versions = itertools.count(1)
    selections = itertools.count(1)
    ids = [f"t{task}" for task in range(SIZE)]

    def select(request: Any, context: grpc.ServicerContext) -> Message:
        chosen = range(request.batch_size)
        answer = pb.SelectBatchResponse(
            tasks=chosen,
            ids=[ids[task] for task in chosen],
            means=[0.5] * len(chosen),
            draws=[0.4] * len(chosen),
            version=7,
            run_uid=UID,
            selection_id=f"{next(selections):032x}",
        )
        if request.HasField("lease_seconds"):
            answer.lease_expire_time.GetCurrentTime()
        return answer

    def posteriors(request: Any, context: grpc.ServicerContext) -> Message:
        return pb.GetPosteriorsResponse(
            run_uid=UID,
            size=SIZE,
            alpha=[1.0] * SIZE,
            beta=[1.0] * SIZE,
            ids=ids if request.with_ids else [],
            tag=[0, 1] * (SIZE // 2) if request.with_tags else [],
        )

    run = pb.Run(ref=pb.RunRef(dataset="d", name="r", uid=UID), version=7)
    dataset = pb.Dataset(name="d", uid=UID, size=SIZE, has_ids=True)
    dataset.tags.add(tag="even", tasks=SIZE // 2)
    dataset.tags.add(tag="odd", tasks=SIZE // 2)
    recorder.answers = {
        "SelectBatch": select,
        "GetPosteriors": posteriors,
        "GetDataset": lambda request, context: pb.GetDatasetResponse(dataset=dataset),
        "CreateDataset": lambda request, context: pb.CreateDatasetResponse(dataset=dataset, created=True),
        "CreateRun": lambda request, context: pb.CreateRunResponse(run=run, created=True),
        "GetRun": lambda request, context: pb.GetRunResponse(run=run),
        "UpdateRun": lambda request, context: pb.UpdateRunResponse(run=run),
        "RestoreRun": lambda request, context: pb.RestoreRunResponse(version=8, run_uid=UID),
        "ListEvents": lambda request, context: pb.ListEventsResponse(version=7),
        "GetRunSummary": lambda request, context: pb.GetRunSummaryResponse(summary=pb.RunSummary(run=run)),
        "WatchRun": lambda request, context: pb.WatchRunResponse(summary=pb.RunSummary(run=run)),
        "ReportOutcomes": lambda request, context: pb.ReportOutcomesResponse(version=next(versions), run_uid=UID),
    }
    return recorder


def fails(
    status: grpc.StatusCode,
    reason: str = "",
    message: str = "no",
    times: int | None = None,
    then: Callable[[Any, grpc.ServicerContext], Message] | None = None,
) -> Callable[[Any, grpc.ServicerContext], Message]:
    """Returns an answer that fails `times` times (None: always), and from then on is `then`'s, or empty."""
    left = [times if times is not None else -1]

    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        if left[0] != 0:
            left[0] -= 1
            if reason:
                context.set_trailing_metadata((("bots-reason", reason),))
            context.abort(status, message)
        if then is not None:
            return then(request, context)
        response: Message = getattr(pb, type(request).__name__.replace("Request", "Response"))()
        return response

    return answer


def never(request: Any, context: grpc.ServicerContext) -> Message:
    """Gives no answer for as long as the caller waits."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(60)
    raise TimeoutError("the caller has left")


@contextmanager
def served(
    recorder: Recorder, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Serves the recorder at `address`; gives the address with the port that was chosen."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8), handlers=[recorder], options=(("grpc.so_reuseport", 0),)
    )
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"{address.rsplit(':', 1)[0]}:{port}"
    finally:
        server.stop(grace=None).wait()
