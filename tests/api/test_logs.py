"""The log: one structured line a call, without secrets and control characters, written by a thread of its own."""

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from queue import Queue

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.telemetry.access import MESSAGE_CHARACTERS, VALUE_CHARACTERS, clean
from bots_server.telemetry.logs import JsonFormatter, RecordQueue, TextFormatter, Writer
from tests.api.service import SECONDS, Run, new_id, reason_of

FIELDS = {"method", "code", "seconds", "dataset", "run", "job", "request_id", "version"}


def report_lines(caplog: pytest.LogCaptureFixture, formatter: logging.Formatter) -> list[str]:
    """Returns the access lines of reports."""
    records = [record for record in caplog.records if record.name == "bots_server.access"]
    return [formatter.format(record) for record in records if record.getMessage().startswith("ReportOutcomes ")]


def test_call_is_one_line_with_its_names(policy: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Method, code, duration, dataset, run, job, request_id and version."""
    request_id = new_id()
    with caplog.at_level(logging.INFO, "bots_server.access"):
        policy.report([0], [1], job="rank-0", request_id=request_id)
    (line,) = map(json.loads, report_lines(caplog, JsonFormatter()))
    assert line.keys() >= FIELDS
    assert (line["method"], line["code"], line["version"]) == ("ReportOutcomes", "OK", 1)
    names = line["dataset"], line["run"], line["job"], line["request_id"]
    assert names == ("letters", "policy", "rank-0", request_id)
    assert 0 < line["seconds"] < 10


def test_line_of_a_failure_has_its_message(policy: Run, caplog: pytest.LogCaptureFixture) -> None:
    """As text, too."""
    with caplog.at_level(logging.INFO, "bots_server.access"), pytest.raises(grpc.RpcError):
        policy.report([99], [1])
    (line,) = report_lines(caplog, TextFormatter())
    assert "ReportOutcomes INVALID_ARGUMENT" in line
    assert "tasks[0]: got 99, must be between 0 and 25" in line
    assert "dataset=letters" in line


def test_line_has_no_control_characters_and_bounded_length(policy: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a caller sends as its job, name or id, it cannot forge a line or fill the disk."""
    forged = "x\n2026-01-01T00:00:00.000Z info    SelectBatch OK\x1b[2J\u2028" + "y" * 10_000
    with caplog.at_level(logging.INFO, "bots_server.access"), pytest.raises(grpc.RpcError):
        policy.report([0], [1], job=forged, request_id=forged)
    (line,) = report_lines(caplog, TextFormatter())
    assert line.isprintable()
    assert "job=x\\x0a2026" in line
    assert len(line) < 2 * VALUE_CHARACTERS * 4 + MESSAGE_CHARACTERS
    assert clean("a\tb\x9fc", 10) == "a\\x09b\\x9fc"


def test_bug_is_internal_and_its_traceback_in_the_log(
    policy: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the reason BUG and nothing of the inside."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("bots_server.api.selections.selection_spec", broken)
    with pytest.raises(grpc.RpcError) as internal:
        policy.select(1)
    assert internal.value.code() is grpc.StatusCode.INTERNAL
    assert "secret inside" not in (internal.value.details() or "")
    assert reason_of(internal.value) == "BUG"
    assert any("secret inside" in JsonFormatter().format(record) for record in caplog.records)


@pytest.mark.parametrize("closed", [False, True])
def test_blocked_stderr_stops_no_call(redis_url: str, closed: bool) -> None:
    """Nobody reads the pipe that is stderr, or its reader has gone: calls are answered, and the stop ends in order."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "bots_server", "--port", "0", "--redis", redis_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writing, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        if closed:
            os.close(reading)
        with grpc.insecure_channel(address) as channel:
            list_datasets = channel.unary_unary(
                "/bots.v1.TaskSelectionService/ListDatasets",
                request_serializer=pb.ListDatasetsRequest.SerializeToString,
                response_deserializer=pb.ListDatasetsResponse.FromString,
            )
            begin = time.monotonic()
            for _ in range(200):  # lines of some 100 bytes
                list_datasets(pb.ListDatasetsRequest(), timeout=SECONDS)
            assert time.monotonic() - begin < 60
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()
        if not closed:
            os.close(reading)
        os.close(writing)


LOGGING_HOOKS = """
import atexit, sys

def hook(name):
    import logging
    logging.getLogger("bots_server").warning(name)

atexit.register(hook, "oldest hook")
import logging
atexit.register(hook, "older hook")
from bots_server.telemetry.logs import start_logging
start_logging("text", "info")
atexit.register(hook, "newer hook")
for number in range(int(sys.argv[1])):
    logging.getLogger("bots_server").info("line %d", number)
"""


def test_records_of_exit_hooks_are_written() -> None:
    """Whenever the hook was registered; in order, and after what was queued."""
    ended = subprocess.run([sys.executable, "-c", LOGGING_HOOKS, "3"], capture_output=True, text=True, timeout=SECONDS)
    said = [line.split(maxsplit=2)[2] for line in ended.stderr.splitlines()]
    assert said == ["line 0", "line 1", "line 2", "newer hook", "older hook", "oldest hook"]


def test_blocked_stderr_stops_no_exit() -> None:
    """Not with exit hooks that log, and not with a full queue."""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", LOGGING_HOOKS, "20000"], stderr=writing)
    try:
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


def test_log_goes_on_after_a_record_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments do not fit, the disk was full, or it has half of a character; each line is one write."""
    written: list[bytes] = []

    def write(_: int, line: bytes) -> int:
        if b"full" in line:
            raise OSError("no space left")
        written.append(line)
        return len(line)

    monkeypatch.setattr("bots_server.telemetry.logs.os.write", write)
    queue: Queue[logging.LogRecord | threading.Event] = Queue()
    for words, arguments in (("%d", ("one",)), ("full", ()), ("half \udc80", ()), ("last", ())):
        queue.put(logging.LogRecord("bots_server", logging.INFO, "", 0, words, arguments, None))
    end = threading.Event()
    queue.put(end)
    Writer(queue, TextFormatter()).start()
    assert end.wait(SECONDS)
    assert [line.split()[-1] for line in written] == [b"\\udc80", b"last"]


def test_records_beyond_the_queue_are_dropped_and_counted() -> None:
    """By the handler that puts them in, which never waits."""
    queue: Queue[logging.LogRecord] = Queue(3)
    handler, dropped = RecordQueue(queue), list[int]()
    handler.on_drop = lambda: dropped.append(1)
    for number in range(10):
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, str(number), (), None))
    assert len(dropped) == 7
    assert [queue.get_nowait().getMessage() for _ in range(3)] == ["0", "1", "2"]
