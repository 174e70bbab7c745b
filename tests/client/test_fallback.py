"""A trainer never waits on the service longer than its deadline, and never stops because the service is away."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

import bots
from bots.fallback import Wish, uniform
from bots.v1 import task_selection_pb2 as pb
from tests.client.recorder import METHODS, Recorder, fails, never

Answers = dict[str, Callable[[Any, grpc.ServicerContext], Message]]
SILENT: Answers = dict.fromkeys(METHODS, never)
STORE_AWAY: Answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"))


def chi_square_limit(degrees: int) -> float:
    """Returns a bound that chi-square with so many degrees of freedom exceeds with probability below 1e-9
    (Laurent and Massart 2000, lemma 1)."""
    x = -np.log(1e-9)
    return float(degrees + 2 * np.sqrt(degrees * x) + 2 * x)


def keep(recorder: Recorder, run: bots.Run, *tasks: int) -> None:
    """Leaves the run with a pending report for each task, and the service back."""
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.ABORTED)
    for task in tasks:
        assert run.report(task, 1, 1) is None
    del recorder.answers["ReportOutcomes"]
    run.client.away_until = time.monotonic()


@pytest.mark.parametrize("away", [SILENT, STORE_AWAY], ids=["silent", "store away"])
def test_a_trainer_never_stops_because_the_service_is_away(recorder: Recorder, address: str, away: Answers) -> None:
    """A step of a run with a fallback takes two deadlines at most, and what it found out is kept and sent later."""
    with bots.Client(address, timeout=0.4) as client:
        run = client.run("d", "r", fallback=bots.Fallback(size=10))
        recorder.answers = dict(away)
        began = time.monotonic()
        batch = run.select(4, policy_step=7)
        assert batch.report(2, 4, policy_step=8) is None
        assert time.monotonic() - began < 2
        assert (batch.fallback, batch.version, batch.selection_id, batch.policy_step) == (True, None, "", 7)
        assert len(set(batch.tasks.tolist()) & set(range(10))) == 4
        assert np.isnan(batch.means).all()
        assert np.isnan(batch.draws).all()
        assert batch.release() == 0
        assert run.pending_reports == 1

        recorder.answers = {}
        recorder.calls.clear()
        client.timeout = 20
        client.away_until = time.monotonic()
        assert not run.select(4).fallback
        (report,) = [call.request for call in recorder.of("ReportOutcomes")]
        assert list(report.tasks) == batch.tasks.tolist()
        assert (report.policy_step, report.selection_policy_step) == (8, 7)
        assert [call.method for call in recorder.calls] == ["ReportOutcomes", "SelectBatch"]
        assert (run.pending_reports, run.dropped_reports) == (0, 0)


def test_without_a_fallback_the_error_is_raised(recorder: Recorder, client: bots.Client) -> None:
    """Without a fallback nothing is invented and nothing is kept."""
    recorder.answers = dict(STORE_AWAY)
    client.timeout = 0.3
    run = client.run("d", "r")
    for call in (lambda: run.select(1), lambda: run.report(0, 1, 1), lambda: run.release("s"), run.state_dict):
        with pytest.raises(bots.TemporaryError):
            call()
    assert run.pending_reports == 0


def test_a_report_is_sent_again_with_its_first_id(recorder: Recorder, client: bots.Client) -> None:
    """A report whose answer was lost may have been applied: it is repeated as it was, in the order of the reports."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.ABORTED)
    assert run.report(0, 1, 1) is None
    assert run.report(1, 1, 1) is None
    del recorder.answers["ReportOutcomes"]
    client.away_until = time.monotonic()
    assert run.report(2, 1, 1) is not None
    first = recorder.of("ReportOutcomes")[0].request
    *_, one, two, three = (call.request for call in recorder.of("ReportOutcomes"))
    assert one == first
    assert [list(request.tasks) for request in (one, two, three)] == [[0], [1], [2]]


def test_the_pending_reports_are_bounded(
    recorder: Recorder, client: bots.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound the oldest report is dropped, which is logged and counted."""
    run = client.run("d", "r", fallback=bots.Fallback(size=9, pending_reports=2))
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
    with caplog.at_level(logging.WARNING, "bots"):
        for task in range(4):
            run.report(task, 1, 1)
    assert (run.pending_reports, run.dropped_reports) == (2, 2)
    assert caplog.text.count("too many are pending") == 2
    del recorder.answers["ReportOutcomes"]
    recorder.calls.clear()
    run.flush()
    assert [list(call.request.tasks) for call in recorder.calls] == [[2], [3]]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_TOO_OLD"),
        (grpc.StatusCode.FAILED_PRECONDITION, "RUN_REPLACED"),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ],
)
def test_a_report_that_will_never_be_accepted_does_not_hold_up_the_others(
    recorder: Recorder, client: bots.Client, caplog: pytest.LogCaptureFixture, status: grpc.StatusCode, reason: str
) -> None:
    """A kept report that is ruled out for good is dropped, which is logged and counted; the call goes on."""
    run = client.run("d", "r", fallback=bots.Fallback(size=9))
    keep(recorder, run, 0)
    recorder.answers["ReportOutcomes"] = fails(status, reason, message="never", times=1)
    with caplog.at_level(logging.WARNING, "bots"):
        assert run.report(1, 1, 1) is not None
    assert (run.pending_reports, run.dropped_reports) == (0, 1)
    assert "is dropped: never" in caplog.text


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, bots.UnauthenticatedError),
        (grpc.StatusCode.NOT_FOUND, bots.NotFoundError),
        (grpc.StatusCode.UNIMPLEMENTED, bots.UnimplementedError),
        (grpc.StatusCode.INTERNAL, bots.InternalError),
    ],
)
def test_a_report_is_kept_through_trouble_that_can_be_mended(
    recorder: Recorder,
    client: bots.Client,
    caplog: pytest.LogCaptureFixture,
    status: grpc.StatusCode,
    error: type[bots.BotsError],
) -> None:
    """A wrong token, a run that is not there while Redis is put back, a fault of the service: kept reports wait it out,
    in their order, and the call under way has its own answer."""
    run = client.run("d", "r", fallback=bots.Fallback(size=9))
    keep(recorder, run, 0, 1)
    recorder.answers["ReportOutcomes"] = fails(status, message="not now")
    recorder.calls.clear()
    with caplog.at_level(logging.WARNING, "bots"):
        assert not run.select(1).fallback
    assert "2 reports stay pending: " in caplog.text
    with pytest.raises(error, match="not now"):
        run.flush()
    assert [list(call.request.tasks) for call in recorder.of("ReportOutcomes")] == [[0], [0]]
    assert (run.pending_reports, run.dropped_reports) == (2, 0)
    del recorder.answers["ReportOutcomes"]
    recorder.calls.clear()
    run.flush()
    assert [list(call.request.tasks) for call in recorder.calls] == [[0], [1]]
    assert (run.pending_reports, run.dropped_reports) == (0, 0)


def test_what_must_be_fixed_is_raised_all_the_same(recorder: Recorder, client: bots.Client) -> None:
    """A fallback bridges absence alone: a refused call is an error of the call that was refused."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    recorder.answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"))
    with pytest.raises(bots.NotFoundError):
        run.select(1)
    with pytest.raises(bots.NotFoundError):
        run.report(0, 1, 1)
    assert run.pending_reports == 0


def test_flush_says_that_the_service_is_away(recorder: Recorder, client: bots.Client) -> None:
    """A flush that cannot deliver raises, and keeps what it has."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.ABORTED)
    run.report(0, 1, 1)
    with pytest.raises(bots.AbortedError):
        run.flush()
    assert run.pending_reports == 1


def test_flush_says_that_time_was_too_short(recorder: Recorder, client: bots.Client) -> None:
    """A flush that returns has delivered everything: where the deadline passes before, it says how much is left."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    keep(recorder, run, 0, 1)
    client.timeout = 1e-9
    with pytest.raises(bots.DeadlineExceededError, match="2 reports are pending") as late:
        run.flush()
    assert late.value.code == "DEADLINE_EXCEEDED"
    assert run.pending_reports == 2


def test_a_flush_waits_for_what_another_thread_has_under_way(recorder: Recorder, client: bots.Client) -> None:
    """A report is pending until it is acknowledged; a flush beside who sends it ends at its own deadline."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    keep(recorder, run, 0)
    arrived, answer = threading.Event(), threading.Event()

    def slowly(request: Any, context: grpc.ServicerContext) -> Message:
        arrived.set()
        assert answer.wait(60)
        return pb.ReportOutcomesResponse()

    recorder.answers["ReportOutcomes"] = slowly
    with ThreadPoolExecutor() as threads:
        first = threads.submit(run.flush)
        assert arrived.wait(60)
        client.timeout = 0.2
        with pytest.raises(bots.DeadlineExceededError):
            run.flush()
        assert run.pending_reports == 1
        answer.set()
        first.result(60)
    run.flush()
    assert run.pending_reports == 0


def test_pending_reports_stay_behind_when_pickled(recorder: Recorder, client: bots.Client) -> None:
    """A copy of a run in another process does not send what its original keeps."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    recorder.answers["ReportOutcomes"] = fails(grpc.StatusCode.ABORTED)
    run.report(0, 1, 1)
    assert pickle.loads(pickle.dumps(run)).pending_reports == 0
    assert run.pending_reports == 1


def test_many_calls_while_the_service_is_away_cost_one_deadline(recorder: Recorder, client: bots.Client) -> None:
    """After a call that found nobody, the others fall back at once until the client's timeout has passed."""
    recorder.answers = dict(SILENT)
    client.timeout = 1.0
    run, other = (client.run("d", name, fallback=bots.Fallback(size=3)) for name in ("r", "s"))
    began = time.monotonic()
    for _ in range(100):
        assert run.select(1).report(1, 1) is None
        assert other.select(1).fallback
    assert time.monotonic() - began < 5
    assert run.pending_reports == 100
    assert len(recorder.calls) <= 5


def test_the_state_is_what_was_seen_last(recorder: Recorder, client: bots.Client) -> None:
    """A trainer that saves its checkpoint while the service is away goes on too."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    recorder.answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.ABORTED))
    assert run.state_dict() == {
        "dataset": "d",
        "run": "r",
        "run_uid": "",
        "version": None,
        "checkpoint": None,
        "job": "tester",
    }


def test_uniform_draws_are_uniform() -> None:
    """Every task is as likely as every other (chi-square, error probability 1e-9)."""
    rng = np.random.default_rng(1)
    tasks = np.concatenate([uniform(rng, bots.Fallback(size=20), Wish(5)) for _ in range(4_000)])
    counts = np.bincount(tasks, minlength=20)
    # A batch is drawn without replacement, which only lowers the variance of the counts.
    assert ((counts - 1_000) ** 2 / 1_000).sum() < chi_square_limit(19)


def test_a_uniform_draw_heeds_the_wish() -> None:
    """Exclusions, tags, quotas and weights are heeded as the service heeds them; same seed, same batch."""
    fallback = bots.Fallback(size=6, ids=list("abcdef"), tags=["x", "y"] * 3)

    def draw(wish: Wish) -> list[int]:
        return sorted(uniform(np.random.default_rng(2), fallback, wish).tolist())

    assert draw(Wish(6)) == [0, 1, 2, 3, 4, 5]
    assert draw(Wish(6, exclude=[0, 5])) == [1, 2, 3, 4]
    assert draw(Wish(6, exclude=["a", "f"])) == [1, 2, 3, 4]
    assert draw(Wish(3, tags=["y"])) == [1, 3, 5]
    quotas = draw(Wish(3, quotas={"x": 1, "y": 2}))
    assert Counter(task % 2 for task in quotas) == {0: 1, 1: 2}
    assert all(task % 2 == 0 for task in draw(Wish(3, weights={"x": 1.0, "y": 1e-12})))
    assert draw(Wish(3)) == draw(Wish(3))


def test_a_batch_by_id_has_ids(recorder: Recorder, client: bots.Client) -> None:
    """Where the fallback knows the ids, its batches carry them."""
    recorder.answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.ABORTED))
    run = client.run("d", "r", fallback=bots.Fallback(size=3, ids=["a", "b", "c"]))
    batch = run.select(3, seed=0)
    assert batch.ids == ["abc"[task] for task in batch.tasks]


def test_too_few_tasks_are_said_here_too(recorder: Recorder, client: bots.Client) -> None:
    """Fewer tasks than asked are an error, or with `allow_fewer` what there is, as with the service."""
    recorder.answers = dict.fromkeys(METHODS, fails(grpc.StatusCode.ABORTED))
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    with pytest.raises(bots.FailedPreconditionError, match="batch_size: 4") as caught:
        run.select(4)
    assert caught.value.reason == "TOO_FEW_ELIGIBLE"
    assert len(run.select(4, allow_fewer=True)) == 3


def test_a_fallback_that_could_not_help_says_so_at_once(recorder: Recorder, client: bots.Client) -> None:
    """What a fallback could not heed is an error at the first selection, not when the service is away."""
    run = client.run("d", "r", fallback=bots.Fallback(size=3))
    with pytest.raises(ValueError, match="Fallback without tags"):
        run.select(1, tags=["x"])
    with pytest.raises(ValueError, match="Fallback without ids"):
        run.select(1, exclude=["a"])
    with pytest.raises(ValueError, match=r"Fallback\.ids: 2 entries, must be 3"):
        bots.Fallback(size=3, ids=["a", "b"])
