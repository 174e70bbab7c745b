"""What a call may cost before its caller is known, and what a request may have before it is decoded."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bots.v1 import task_selection_pb2 as pb
from bots_server.api.health import CHECK
from bots_server.api.methods import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, METHODS, SERVICE
from tests.api.callers import bearer, write
from tests.api.service import SECONDS, Service, reason_of, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
GET_RUN = f"/{SERVICE.full_name}/GetRun"
SMALL = [path for path, method in METHODS.items() if method.max_request_bytes == MAX_REQUEST_BYTES]


@pytest.fixture
def guarded(redis_url: str, tmp_path: Path) -> Iterator[Service]:
    """A server with two threads and one token, `secret`."""
    tokens = write(tmp_path / "tokens", {"secret": "ops admin *"})
    with serving(redis_url, tokens_file=tokens, threads=1, max_long_calls=1) as service:
        yield service


@pytest.fixture
def channel(guarded: Service) -> Iterator[Any]:
    """A connection without a token."""
    with grpc.insecure_channel(guarded.address) as channel:
        yield channel


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, object, str]:
    """Returns code, reason and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert isinstance(error.value, grpc.Call)
    return error.value.code(), reason_of(error.value), error.value.details() or ""


@contextmanager
def silent_calls(channel: Any, path: str, number: int, token: str = "") -> Iterator[list[Any]]:
    """Yields calls whose request never comes, each of which has been sent to the server."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        over.wait()
        return
        yield

    metadata = bearer(token) if token else None
    calls: list[Any] = [channel.stream_stream(path)(requests(), metadata=metadata) for _ in range(number)]
    try:
        yield calls
    finally:
        over.set()
        for call in calls:
            call.cancel()


# ---------------------------------------------------------------------------------------------------- the caller


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rpartition("/")[2])
def test_a_caller_without_a_token_is_refused_before_its_request(channel: Any, path: str) -> None:
    """The answer comes although the request never does, and no thread waits for it."""
    with silent_calls(channel, path, 10) as calls:
        for call in calls:
            code, reason, _ = refused(lambda call=call: list(call))  # type: ignore[misc]
            assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN")


def test_a_request_without_a_token_is_not_received(channel: Any) -> None:
    """Neither one that is longer than any method takes, nor one that is no message."""
    for body in (b"\xff", bytes(2 * MAX_MESSAGE_BYTES)):
        code, reason, _ = refused(lambda body=body: channel.unary_unary(GET_RUN)(body, timeout=SECONDS))  # type: ignore[misc]
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN")


@pytest.mark.parametrize("metadata", [None, bearer("secret")], ids=["without a token", "with one"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_refused(channel: Any, metadata: Any, compression: grpc.Compression) -> None:
    """A few bytes must not become many. Without compression the same request is decoded."""

    def call(how: grpc.Compression) -> tuple[grpc.StatusCode, object, str]:
        body = bytes(MAX_REQUEST_BYTES - 2)
        return refused(lambda: channel.unary_unary(GET_RUN)(body, metadata=metadata, compression=how, timeout=SECONDS))

    assert call(compression)[0] is grpc.StatusCode.UNIMPLEMENTED
    assert call(grpc.Compression.NoCompression)[0] is not grpc.StatusCode.UNIMPLEMENTED


# ---------------------------------------------------------------------------------------------------- the request


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.rpartition("/")[2])
def test_a_request_that_is_too_long_is_refused_before_it_is_decoded(channel: Any, path: str) -> None:
    """By the method's own limit, with the length and the rule."""
    body = iter([b"\xff" * (MAX_REQUEST_BYTES + 1)])
    call = channel.stream_stream(path)
    assert refused(lambda: list(call(body, metadata=bearer("secret"), timeout=SECONDS))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "request: got 65537 bytes, must be at most 65536 bytes",
    )


def test_a_request_that_does_not_come_holds_no_thread_for_long(redis_url: str) -> None:
    """Calls with a valid token and without a deadline that send no request, one for each thread, are cancelled.

    The server counts them as RESOURCE_EXHAUSTED.
    """
    with serving(redis_url, threads=1, max_long_calls=1, max_idle_seconds=0.5) as service:
        with grpc.insecure_channel(service.address) as channel, silent_calls(channel, GET_RUN, 2) as calls:
            for call in calls:
                assert refused(lambda call=call: list(call))[0] is grpc.StatusCode.CANCELLED  # type: ignore[misc]
            assert service.stub.GetServer(pb.GetServerRequest(), timeout=SECONDS)
        late = {"method": "other", "code": "RESOURCE_EXHAUSTED"}
        service.wait_until(lambda: service.sample("bots_rpcs_total", **late) == 2)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rpartition("/")[2])
def test_a_call_without_a_request_is_an_invalid_argument(channel: Any, path: str) -> None:
    """A stream of requests may be empty if its method allows it, as that of reflection does."""
    if "Reflection" in path:
        assert not list(channel.stream_stream(path)(iter(()), metadata=bearer("secret"), timeout=SECONDS))
        return
    call = channel.stream_stream(path)(iter(()), metadata=bearer("secret"), timeout=SECONDS)
    assert refused(lambda: list(call))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


def test_methods_with_long_requests_take_4_mib() -> None:
    """Those that carry many tasks; no method takes more than gRPC does."""
    long = {method.name for method in METHODS.values() if method.max_request_bytes > MAX_REQUEST_BYTES}
    assert long == {
        *("CreateDataset", "SelectBatch", "ReportOutcomes", "ReleaseSelection", "RetireTasks", "GetPosteriors")
    }
    assert {method.max_request_bytes for method in METHODS.values()} == {MAX_REQUEST_BYTES, MAX_MESSAGE_BYTES}


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.rpartition("/")[2])
def test_bytes_that_are_no_request_are_an_invalid_argument(
    channel: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a fault of the service, and no error in its log."""
    call = channel.stream_stream(path)
    code, reason, message = refused(lambda: list(call(iter([b"\xff\xff"]), metadata=bearer("secret"), timeout=SECONDS)))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert message == f"request: got 2 bytes, must be a {METHODS[path].request}"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_message_above_any_limit_is_refused_by_grpc(channel: Any) -> None:
    """It is not kept in memory."""
    body = bytes(MAX_MESSAGE_BYTES + 1)
    call = channel.unary_unary(f"/{SERVICE.full_name}/ReportOutcomes")
    code, _, message = refused(lambda: call(body, metadata=bearer("secret"), timeout=SECONDS))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"({MAX_MESSAGE_BYTES + 1} vs. {MAX_MESSAGE_BYTES})" in message


# ---------------------------------------------------------------------------------------------------- health


def check(address: str) -> Any:
    """Returns the answer of the health service over a connection of its own."""
    with grpc.insecure_channel(address) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status


def test_health_answers_while_every_thread_is_busy(guarded: Service, channel: Any) -> None:
    """With calls whose requests never come; callers without a token are refused meanwhile, too."""
    ask = channel.unary_unary(f"/{SERVICE.full_name}/GetServer")
    assert ask(b"", timeout=SECONDS, metadata=bearer("secret"))  # calls arrive in order once the channel is connected
    with silent_calls(channel, GET_RUN, 2, "secret"):

        def busy() -> bool:
            return refused(lambda: ask(b"", timeout=0.3, metadata=bearer("secret")))[0] is (
                grpc.StatusCode.DEADLINE_EXCEEDED
            )

        assert busy()
        with silent_calls(channel, CHECK, 10):
            assert check(guarded.address) == SERVING
        assert refused(lambda: ask(b"", timeout=SECONDS))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert busy()


def test_a_caller_that_reads_nothing_stops_no_health_check(guarded: Service) -> None:
    """One that gives the server no room for an answer, by HTTP/2's flow control."""
    headers = {b":method": b"POST", b":scheme": b"http", b":path": CHECK.encode(), b":authority": b"x"}
    headers |= {b"content-type": b"application/grpc", b"te": b"trailers"}
    block = b"".join(b"\0" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in headers.items())
    no_window = b"\x00\x04\x00\x00\x00\x00"
    with closing(socket.create_connection(guarded.address.split(":"))) as raw:  # type: ignore[arg-type]
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, no_window))
        for stream in range(1, 40, 2):
            raw.sendall(frame(1, 4, stream, block) + frame(0, 1, stream, bytes(5)))
        assert check(guarded.address) == SERVING


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("method", ["Watch", "List"])
def test_other_health_methods_are_unimplemented(channel: Any, caplog: pytest.LogCaptureFixture, method: str) -> None:
    """Without a traceback in the log."""
    call = channel.unary_unary(f"/grpc.health.v1.Health/{method}")
    assert refused(lambda: call(b"", timeout=SECONDS))[0] is grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


# ---------------------------------------------------------------------------------------------------- connections


def test_reflection_ends_and_has_threads_of_its_own(
    guarded: Service, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent streams hold no thread of the service, and not even those of reflection for long."""
    monkeypatch.setattr("bots_server.api.reflection.STREAM_SECONDS", 0.3)
    (path,) = (path for path in METHODS if SERVICE.full_name not in path)
    with silent_calls(channel, path, 4, "secret") as calls:
        stub = channel.unary_unary(f"/{SERVICE.full_name}/GetServer")
        assert stub(b"", timeout=SECONDS, metadata=bearer("secret"))
        for call in calls:
            assert refused(lambda call=call: list(call))[0] is grpc.StatusCode.CANCELLED  # type: ignore[misc]
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([asked]), metadata=bearer("secret"), timeout=SECONDS
    )
    (answer,) = answers
    assert SERVICE.full_name in [service.name for service in answer.list_services_response.service]


def test_a_connection_that_says_nothing_is_closed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for a handshake."""
    monkeypatch.setattr("bots_server.process.server.HANDSHAKE_SECONDS", 0.5)
    with serving(redis_url) as service:
        host, port = service.address.split(":")
        with closing(socket.create_connection((host, int(port)), timeout=SECONDS)) as silent:
            while silent.recv(1024):
                pass


def test_connections_beyond_the_limit_are_closed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by the time for a handshake; those that are there go on."""
    monkeypatch.setattr("bots_server.process.server.MAX_CONNECTIONS", 4)
    monkeypatch.setattr("bots_server.process.server.HANDSHAKE_SECONDS", 3600.0)
    with serving(redis_url) as service, grpc.insecure_channel(service.address) as channel, ExitStack() as stack:
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        host, port = service.address.split(":")
        silent = [stack.enter_context(socket.create_connection((host, int(port)), SECONDS)) for _ in range(12)]
        for connection in silent:
            connection.setblocking(False)
        service.wait_until(lambda: sum(map(is_closed, silent)) == 9)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS).status == SERVING


def test_pings_of_an_idle_client_keep_its_connection(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other gRPC libraries, too, as often as is allowed, without a call: none is answered by GOAWAY."""
    monkeypatch.setattr("bots_server.process.server.PING_SECONDS", 0.05)
    with serving(redis_url) as service:
        host, port = service.address.split(":")
        with closing(socket.create_connection((host, int(port)), SECONDS)) as raw, raw.makefile("rb") as answers:
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
            for number in range(8):
                raw.sendall(frame(6, 0, 0, bytes([*range(7), number])))
                while (head := answers.read(9))[3:5] != b"\x06\x01":  # the acknowledgement of a ping
                    assert head[3:4] != b"\x07", answers.read(int.from_bytes(head[:3]))
                    answers.read(int.from_bytes(head[:3]))
                assert answers.read(8)[-1] == number
                time.sleep(0.1)


def is_closed(connection: socket.socket) -> bool:
    """Returns whether the other side closed a connection that does not block."""
    try:
        return not connection.recv(1024, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_refusals_are_logged_at_most_ten_times_a_second(
    guarded: Service, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They are all counted."""
    caplog.set_level("INFO", "bots_server.access")
    call = channel.unary_unary(f"/{SERVICE.full_name}/SelectBatch")
    begin = time.monotonic()
    for _ in range(100):
        refused(lambda: call(b"", timeout=SECONDS))
    seconds = int(time.monotonic()) - int(begin) + 1
    lines = [record for record in caplog.records if record.getMessage().startswith("SelectBatch UNAUTHENTICATED")]
    assert 1 <= len(lines) <= 10 * seconds
    assert guarded.sample("bots_rpcs_total", method="SelectBatch", code="UNAUTHENTICATED") == 100
