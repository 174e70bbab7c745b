"""The log: one structured line a call, without secrets."""

import json
import logging

import pytest

import bots
from bots_server.telemetry.logs import JsonFormatter, TextFormatter
from tests.api.service import Service

FIELDS = {"method", "code", "seconds", "dataset", "run", "job", "request_id", "version"}


def report_lines(caplog: pytest.LogCaptureFixture, formatter: logging.Formatter) -> list[str]:
    """Returns the access lines of reports; those of earlier calls may come late."""
    records = [record for record in caplog.records if record.name == "bots_server.access"]
    return [formatter.format(record) for record in records if record.getMessage().startswith("ReportOutcomes ")]


def test_a_call_is_one_line_with_all_that_it_was(letters: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The access line of a report has method, code, duration, dataset, run, job, request_id and version."""
    request_id = bots.new_request_id()
    with caplog.at_level(logging.INFO, "bots_server.access"), bots.Client(letters.address, job="rank-0") as client:
        client.run("letters", "policy").report([0], [1], [4], request_id=request_id)
        letters.wait_until(lambda: len(report_lines(caplog, JsonFormatter())) == 1)
    line = json.loads(report_lines(caplog, JsonFormatter())[0])
    assert line.keys() >= FIELDS
    assert (line["method"], line["code"], line["version"]) == ("ReportOutcomes", "OK", 1)
    assert (line["dataset"], line["run"], line["job"], line["request_id"]) == (
        "letters",
        "policy",
        "rank-0",
        request_id,
    )
    assert 0 < line["seconds"] < 10


def test_a_refused_call_says_why(letters: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The access line of a failure has its code and its message, as text too."""
    with caplog.at_level(logging.INFO, "bots_server.access"):
        with pytest.raises(bots.InvalidArgumentError):
            letters.client.run("letters", "policy").report([99], [1], [4])
        letters.wait_until(lambda: len(report_lines(caplog, TextFormatter())) == 1)
    line = report_lines(caplog, TextFormatter())[0]
    assert "ReportOutcomes INVALID_ARGUMENT" in line
    assert "tasks[0] = 99: must be in [0, 26)" in line
    assert "dataset=letters" in line


def test_what_is_no_failure_is_a_bug_and_keeps_its_traceback(
    letters: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is answered INTERNAL without its inside, which goes to the log."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("bots_server.service.select.check_selection", broken)
    with pytest.raises(bots.InternalError) as internal:
        letters.client.run("letters", "policy").select(1)
    assert "secret inside" not in str(internal.value)
    letters.wait_until(lambda: any(record.exc_info for record in caplog.records))
    assert any("secret inside" in JsonFormatter().format(record) for record in caplog.records)
