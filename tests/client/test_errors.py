"""What the caller is told when a call fails."""

from __future__ import annotations

import inspect
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

import bots
from bots import errors
from bots.v1 import error_details_pb2 as details
from tests.client.recorder import Recorder, fails, never, served

FAILURES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


@pytest.mark.parametrize("status", FAILURES, ids=lambda status: status.name)
def test_every_status_has_a_class(status: grpc.StatusCode) -> None:
    """A status of gRPC is an error of one of the three branches, each of which says what the caller can do."""
    kind = errors.CLASS_OF_STATUS.get(status)
    assert kind is not None
    branches = (bots.RefusedError, bots.TemporaryError, bots.BrokenError)
    assert sum(issubclass(kind, branch) for branch in branches) == 1


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", bots.InvalidArgumentError),
        (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", bots.NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, "RUN_EXISTS", bots.AlreadyExistsError),
        (grpc.StatusCode.FAILED_PRECONDITION, "TOO_FEW_ELIGIBLE", bots.FailedPreconditionError),
        (grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN", bots.UnauthenticatedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", bots.ResourceExhaustedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", bots.QuotaExceededError),
        (grpc.StatusCode.ABORTED, "CONFLICT", bots.AbortedError),
        (grpc.StatusCode.UNIMPLEMENTED, "", bots.UnimplementedError),
        (grpc.StatusCode.INTERNAL, "", bots.InternalError),
        (grpc.StatusCode.DATA_LOSS, "RUN_DAMAGED", bots.DamagedError),
    ],
)
def test_an_error_says_message_code_and_reason(
    recorder: Recorder, client: bots.Client, status: grpc.StatusCode, reason: str, kind: type[bots.BotsError]
) -> None:
    """The class follows the status; the message is the service's; `reason` is its word for programs."""
    recorder.answers["GetRun"] = fails(status, reason, "batch_size: got 0, must be between 1 and 10000")
    with pytest.raises(kind) as caught:
        client.run("d", "r").info()
    assert caught.type is kind
    assert str(caught.value).endswith("batch_size: got 0, must be between 1 and 10000")
    assert (caught.value.code, caught.value.reason) == (status.name, reason)


def test_a_refused_value_is_a_value_error() -> None:
    """Whoever catches ValueError for bad arguments catches the service's refusal too."""
    assert issubclass(bots.InvalidArgumentError, ValueError)


def test_an_unreachable_target_says_what_was_tried() -> None:
    """If the service did not answer, the message says what was tried and why it failed."""
    with bots.Client("127.0.0.1:1", timeout=0.2) as client, pytest.raises(bots.TemporaryError) as caught:
        client.get_dataset("d")
    assert "127.0.0.1:1 (no TLS): no answer within 0.2 s (" in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_details_of_google_rpc_are_read(recorder: Recorder, client: bots.Client) -> None:
    """Reason, field violations and the advice when to repeat come from grpc-status-details-bin, if it is there."""
    status = details.Status(code=8, message="full")
    for name, message in (
        ("ErrorInfo", details.ErrorInfo(reason="STORE_FULL", domain="bots")),
        ("BadRequest", details.BadRequest(field_violations=[details.FieldViolation(field="f", description="got 1")])),
        ("RetryInfo", details.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))),
        ("Help", details.ErrorInfo()),
    ):
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=message.SerializeToString())

    def full(request: Any, context: grpc.ServicerContext) -> Message:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        raise AssertionError

    recorder.answers["GetRun"] = full
    with pytest.raises(bots.ResourceExhaustedError) as caught:
        client.run("d", "r").info()
    error = caught.value
    assert (error.reason, error.field_violations, error.retry_seconds) == ("STORE_FULL", {"f": "got 1"}, 1.5)
    recorder.answers["GetRun"] = garbled
    with pytest.raises(bots.ResourceExhaustedError) as caught:
        client.run("d", "r").info()
    assert caught.value.reason == ""


def garbled(request: Any, context: grpc.ServicerContext) -> Message:
    context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    raise AssertionError


def test_errors_can_be_pickled() -> None:
    """An error crosses processes with its code and reason."""
    error = pickle.loads(pickle.dumps(bots.NotFoundError("gone", code="NOT_FOUND", reason="RUN_NOT_FOUND")))
    assert (type(error), str(error), error.code, error.reason) == (
        bots.NotFoundError,
        "gone",
        "NOT_FOUND",
        "RUN_NOT_FOUND",
    )


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """The module's docstring draws every error once, under its parent."""
    drawn = {}
    parents = ["BotsError"]
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        name = next((word for word in line.split() if word.endswith("Error") and word in dir(errors)), None)
        if name is None or "─" not in line:
            continue
        depth = (line.index(name) - 4) // 4
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1]
    defined = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, bots.BotsError) and kind is not bots.BotsError
    }
    assert drawn == defined


def test_keyboard_interrupt_passes_through() -> None:
    """Ctrl-C during a call is a KeyboardInterrupt, at once, and no error of ours."""

    recorder = Recorder()
    recorder.answers["GetDataset"] = never
    program = """
import sys, bots
try:
    print("calling", flush=True)
    bots.Client(sys.argv[1], timeout=60).get_dataset("d")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with served(recorder) as address:
        process = subprocess.Popen(
            [sys.executable, "-c", program, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        with process:
            deadline = time.monotonic() + 20
            while not recorder.calls:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
    assert output.split() == ["calling", "interrupted"]
