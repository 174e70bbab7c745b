"""Reads are never gated by writes: what opens the breaker, and what waits in the background."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

import bots
from bots.calls import Call, Pause, repeated
from bots.reporting_rewards import keep_rewards
from bots.v1 import task_selection_pb2 as pb
from tests.client.recorder import METHODS, UID, Recorder, fails, never, served

STORED_LATER = [
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
    (grpc.StatusCode.UNAVAILABLE, "NOT_DURABLE"),
    (grpc.StatusCode.ABORTED, "CONFLICT"),
]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for background work."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("status", "reason"), STORED_LATER, ids=lambda value: str(value))
def test_reports_that_cannot_be_stored_hold_up_no_selection(
    recorder: Recorder, run: bots.Run, status: grpc.StatusCode, reason: str
) -> None:
    """Every selection reaches the server; the reports wait, and are delivered in order, once."""
    working = recorder.answers["ReportOutcomes"]
    recorder.answers["ReportOutcomes"] = fails(status, reason)
    for step in range(5):
        batch = run.select(4)
        assert not batch.fallback
        assert batch.report(1, 2, policy_step=step) is None
    assert len(recorder.of("SelectBatch")) == 5
    assert run.stats.reports_pending == 5
    recorder.answers["ReportOutcomes"] = working
    recorder.calls.clear()
    run.flush(30)
    assert [call.request.policy_step for call in recorder.of("ReportOutcomes")] == [0, 1, 2, 3, 4]
    assert run.stats.reports_pending == 0


def test_pending_reports_are_delivered_in_the_background(recorder: Recorder, run: bots.Run) -> None:
    """Nobody has to call again: a back-off, then delivery, with the request id of the first attempt."""
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", times=2)
    assert run.report(["t1"], 1, 2) is None
    until(lambda: run.stats.reports_pending == 0)
    calls = recorder.of("ReportOutcomes")
    assert len(calls) == 3
    assert len({call.request.request_id for call in calls}) == 1
    ages = [call.request.request_age_seconds for call in calls]
    assert ages == sorted(ages)
    assert run.stats.retries == 2


@pytest.mark.parametrize(("status", "reason"), STORED_LATER[:2], ids=lambda value: str(value))
def test_a_strict_client_raises(recorder: Recorder, address: str, status: grpc.StatusCode, reason: str) -> None:
    """With strict=True the error is the caller's, with the id for a repeat."""
    recorder.answers["ReportOutcomes"] = fails(status, reason)
    with bots.Client(address, strict=True) as client:
        run = client.run("d", "r")
        with pytest.raises(bots.TemporaryError) as caught:
            run.report(["t1"], 1, 2)
        assert caught.value.request_id == recorder.of("ReportOutcomes")[0].request.request_id
        with pytest.raises(bots.TemporaryError):
            run.report(["t1"], 1, 2, request_id=caught.value.request_id)
        assert len({call.request.request_id for call in recorder.of("ReportOutcomes")}) == 1
        assert run.stats.reports_pending == 0


def test_a_lost_race_is_repeated_in_place(recorder: Recorder, run: bots.Run) -> None:
    """ABORTED costs the caller some milliseconds and no error."""
    working = recorder.answers["ReportOutcomes"]
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.ABORTED, "CONFLICT", times=2, then=working)
    run.report(["t1"], 1, 2)
    assert len(recorder.of("ReportOutcomes")) == 3
    recorder.answers["UpdateRun"] = fails(grpc.StatusCode.ABORTED, "CONFLICT")
    began = time.monotonic()
    with pytest.raises(bots.AbortedError):
        run.update(target=0.4)
    assert time.monotonic() - began < 2.5  # the deadline holds
    assert len({call.request.request_id for call in recorder.of("UpdateRun")}) == 1


def test_one_of_too_many_calls_is_repeated_after_the_time_that_the_service_gives() -> None:
    """The pause is the service's and some more, so that refused callers do not come back at once."""
    call = Call("SelectBatch", pb.SelectBatchRequest(), timeout=60)
    steps = repeated(call)
    assert next(steps) is call
    pause = steps.throw(bots.ResourceExhaustedError("no", reason="TOO_MANY_CALLS", retry_seconds=1.0))
    assert isinstance(pause, Pause)
    assert 1.05 <= pause.seconds <= 1.1
    assert isinstance(steps.send(None), Call)
    with pytest.raises(bots.ResourceExhaustedError):
        steps.throw(bots.ResourceExhaustedError("no", reason="STORE_FULL", retry_seconds=1.0))


def test_a_selection_that_the_store_refuses_is_drawn_and_the_next_asks_again(recorder: Recorder, run: bots.Run) -> None:
    """A store that is away is no reason to stop, nor to think the service gone."""
    working = recorder.answers["SelectBatch"]
    recorder.answers["SelectBatch"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert run.select(4).fallback
    recorder.answers["SelectBatch"] = working
    assert not run.select(4).fallback


@pytest.mark.parametrize(
    "report", [lambda batch: batch.report(1, 2), lambda batch: keep_rewards(batch, [[1, 0]] * 4).version]
)
def test_one_warning_when_it_goes_and_one_when_it_is_back(
    recorder: Recorder, address: str, caplog: pytest.LogCaptureFixture, report: Callable[[bots.Batch], int | None]
) -> None:
    """The log tells what was tried and what it cost; the counters too."""
    with bots.Client(address, timeout=0.3) as client:
        client.create_dataset("d", size=100)
        run = client.create_run("d", "r")
        answers = dict(recorder.answers)
        recorder.answers = dict.fromkeys(METHODS, never)
        with caplog.at_level(logging.WARNING, "bots"):
            for _ in range(50):
                assert report(run.select(4)) is None
        (away,) = [record.getMessage() for record in caplog.records if record.name == "bots"]
        assert f"the service is away: tasks are drawn uniformly and reports are kept until then ({address}" in away
        assert (run.stats.selections, run.stats.fallback_selections, run.stats.reports_pending) == (50, 50, 50)
        caplog.clear()
        recorder.answers = answers
        with caplog.at_level(logging.WARNING, "bots"):
            until(lambda: run.stats.reports_pending == 0)
            assert not run.select(4).fallback
            until(lambda: any(record.name == "bots" for record in caplog.records))
        (back,) = [record.getMessage() for record in caplog.records if record.name == "bots"]
        assert "50 selections were drawn uniformly, 50 reports were kept" in back


def test_many_calls_while_the_service_is_away_cost_one_deadline(recorder: Recorder, address: str) -> None:
    """After the first call that waited, the others fall back at once; the service is asked for in the background."""
    with bots.Client(address, timeout=1.0) as client:
        client.create_dataset("d", size=100)
        run = client.create_run("d", "r")
        recorder.answers = dict.fromkeys(METHODS, never)
        began = time.monotonic()
        for _ in range(100):
            run.select(1).report(1, 1)
        assert time.monotonic() - began < 2.5


def test_a_call_that_is_interrupted_keeps_its_report(recorder: Recorder, run: bots.Run) -> None:
    """Ctrl-C during a report is raised, and the report is delivered later."""
    working = recorder.answers["ReportOutcomes"]
    main = threading.main_thread().ident
    assert main is not None

    def interrupts(request: Any, context: grpc.ServicerContext) -> Message:
        recorder.answers["ReportOutcomes"] = working
        signal.pthread_kill(main, signal.SIGINT)
        return never(request, context)

    recorder.answers["ReportOutcomes"] = interrupts
    with pytest.raises(KeyboardInterrupt):
        run.report(["t1"], 1, 2)
    run.flush(30)
    first, *others = [call.request.request_id for call in recorder.of("ReportOutcomes")]
    assert others
    assert set(others) == {first}


def test_what_waits_is_delivered_at_close(recorder: Recorder, address: str) -> None:
    """Leaving the `with` block delivers what waits, within the timeout."""
    with bots.Client(address) as client:
        run = client.create_run("d", "r")
        recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", times=1)
        assert run.report(["t1"], 1, 2) is None
    assert len(recorder.of("ReportOutcomes")) == 2


def test_flush_raises_what_keeps_a_report(recorder: Recorder, run: bots.Run) -> None:
    """A flush that cannot deliver raises when its time is over, and the reports are kept."""
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
    run.report(["t1"], 1, 2)
    began = time.monotonic()
    with pytest.raises(bots.TemporaryError):
        run.flush(0.5)
    assert time.monotonic() - began < 3
    assert run.stats.reports_pending == 1
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.FAILED_PRECONDITION, "RUN_REPLACED", times=1)
    run.flush(30)
    assert (run.stats.reports_pending, run.stats.reports_dropped) == (0, 1)


def test_concurrent_threads_report_at_once(recorder: Recorder, run: bots.Run) -> None:
    """Reports of several threads do not wait for one another while nothing is pending."""
    together = threading.Barrier(4, timeout=30)

    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        together.wait()
        return pb.ReportOutcomesResponse(version=1, run_uid=UID)

    recorder.answers["ReportOutcomes"] = answer
    versions: list[int | None] = []
    threads = [
        threading.Thread(target=lambda task=task: versions.append(run.report([f"t{task}"], 1, 2))) for task in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert versions == [1, 1, 1, 1]


def test_a_service_that_is_away_at_the_start_stops_nothing(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Dataset, run, resume, selections and reports: all go on, and are made good in order when the service is there."""
    with served(Recorder()) as address:
        pass
    with bots.Client(address, timeout=0.3) as client:
        client.create_dataset("d", ids=[f"t{task}" for task in range(100)])
        run = client.create_run("d", "r", target=0.4)
        assert run.created is None
        state = {"dataset": "d", "run": "r", "run_uid": UID, "version": 7, "checkpoint": None, "job": ""}
        assert run.load_state_dict(state).action == "deferred"
        batch = run.select(4, exclude=["t1"])
        assert batch.fallback
        assert batch.ids == [f"t{task}" for task in batch.tasks]
        assert batch.report(1, 2) is None
        assert run.state_dict()["version"] is None
        events = pb.ListEventsResponse(version=8, events=[pb.Event(version=8, job="")])
        recorder.answers["ListEvents"] = lambda request, context: events
        with served(recorder, address):
            until(lambda: run.stats.reports_pending == 0)
            methods = [call.method for call in recorder.calls if call.method != "ListDatasets"]
            assert methods == ["CreateDataset", "CreateRun", "GetRun", "ListEvents", "RestoreRun", "ReportOutcomes"]
            (report,) = recorder.of("ReportOutcomes")
            assert list(report.request.tasks) == batch.tasks.tolist()
            assert not run.select(4).fallback


def test_without_knowledge_of_the_tasks_the_error_says_what_to_do(address: str) -> None:
    """A run that was never seen has no fallback."""
    with (
        bots.Client("127.0.0.1:1", timeout=0.2) as client,
        pytest.raises(bots.UnavailableError, match="create_dataset"),
    ):
        client.run("d", "r").select(1)


def test_tasks_are_learned_from_the_service(recorder: Recorder, client: bots.Client) -> None:
    """A run that is opened by name knows size, ids and tags after its first selection."""
    run = client.run("d", "r")
    run.select(1)
    until(lambda: client.session.known("d") is not None)
    recorder.answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"))
    batch = run.select(10, tags="odd")
    assert batch.fallback
    assert batch.ids == [f"t{task}" for task in batch.tasks]
    assert all(task % 2 == 1 for task in batch.tasks)


def test_a_selection_without_a_lease_or_key_stores_nothing(recorder: Recorder, run: bots.Run) -> None:
    """A full store refuses what has to be stored: an answer that a repeat must find."""
    run.select(1)
    run.select(1, lease_seconds=60)
    run.select(1, key="step-1")
    assert [bool(call.request.request_id) for call in recorder.of("SelectBatch")] == [False, True, True]
