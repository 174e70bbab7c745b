"""Rewards that arrive one rollout at a time."""

from __future__ import annotations

import asyncio
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import bots
from tests.client.recorder import Recorder
from tests.client.test_session import until


def reports(recorder: Recorder) -> list[tuple[list[int], list[float], list[int]]]:
    requests = [call.request for call in recorder.of("ReportOutcomes")]
    return sorted((list(one.tasks), list(one.successes), list(one.rollouts)) for one in requests)


def test_a_group_is_reported_when_it_is_complete(recorder: Recorder, run: bots.Run) -> None:
    """One report a task, with the spread of its group; rewards come by id, row or batch, in any order."""
    batch = run.select(3, lease_seconds=60)
    with bots.Collector(run, rollouts=2) as collector:
        collector.expect(batch)
        collector.add("t1", 1.0)
        collector.add(batch[0], 0.5)
        collector.add("t1", 0.0)
        until(lambda: len(reports(recorder)) == 1)
        collector.add("t0", None)
        assert collector.open_groups == 1
    assert reports(recorder) == [([0], [0.5], [1]), ([1], [1.0], [2])]
    effective = {tuple(call.request.tasks): list(call.request.effective) for call in recorder.of("ReportOutcomes")}
    assert effective == {(0,): [False], (1,): [True]}


def test_a_selection_is_reported_when_it_is_complete(recorder: Recorder, run: bots.Run) -> None:
    """One report for all tasks, in the order of the selection."""
    batch = run.select(2)
    with bots.Collector(run, rollouts=2, by="selection") as collector:
        collector.expect(batch)
        for task in ("t1", "t0", "t1"):
            collector.add(task, 1)
        assert reports(recorder) == []
        collector.add("t0", 0)
        until(lambda: len(reports(recorder)) == 1)
    assert reports(recorder) == [([0, 1], [1.0, 2.0], [2, 2])]
    assert recorder.of("ReportOutcomes")[0].request.request_id == batch.report_id()


def test_stragglers_are_not_waited_for_longer_than_told(recorder: Recorder, run: bots.Run) -> None:
    """What came is reported, what never came is released, and a late reward is a report of its own."""
    batch = run.select(2, lease_seconds=60)
    collector = bots.Collector(run, rollouts=8, wait_seconds=0.2)
    collector.expect(batch)
    collector.add("t0", 1)
    until(lambda: len(reports(recorder)) == 1 and len(recorder.of("ReleaseSelection")) == 1)
    assert list(recorder.of("ReleaseSelection")[0].request.tasks) == [1]
    collector.add("t0", 0)
    collector.flush(30)
    assert reports(recorder) == [([0], [0.0], [1]), ([0], [1.0], [1])]
    assert len({call.request.request_id for call in recorder.of("ReportOutcomes")}) == 2


def test_release_gives_up_what_never_came(recorder: Recorder, run: bots.Run) -> None:
    """Rewards that came are reported."""
    collector = bots.Collector(run, rollouts=8)
    collector.expect(run.select(3, lease_seconds=60))
    collector.add("t2", 1)
    collector.release()
    run.flush(30)
    assert reports(recorder) == [([2], [1.0], [1])]
    assert sorted(list(call.request.tasks) for call in recorder.of("ReleaseSelection")) == [[0], [1]]
    assert collector.open_groups == 0


def test_threads_add_at_once(recorder: Recorder, run: bots.Run) -> None:
    """No reward is lost or counted twice."""
    collector = bots.Collector(run, rollouts=8)
    collector.expect(run.select(16))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda task: collector.add(f"t{task % 16}", 1), range(128)))
    collector.flush(30)
    assert reports(recorder) == [([task], [8.0], [8]) for task in range(16)]


def test_copies_in_other_processes_report_parts(recorder: Recorder, run: bots.Run) -> None:
    """A pickled collector starts empty; its reports are parts of the same selection, with ids of their own."""
    batch = run.select(1)
    collector = bots.Collector(run, rollouts=4)
    copies: list[Any] = [pickle.loads(pickle.dumps((collector, batch))) for _ in range(2)]
    for copy, part in copies:
        copy.add(part[0], 1)
        copy.flush(30)
    assert reports(recorder) == [([0], [1.0], [1])] * 2
    requests = [call.request for call in recorder.of("ReportOutcomes")]
    assert len({one.request_id for one in requests}) == 2
    assert {one.selection_id for one in requests} == {batch.selection_id}


def test_adding_never_waits_for_the_service(recorder: Recorder, run: bots.Run) -> None:
    """An event loop that scores rollouts is not held up."""
    batch = run.select(4)
    collector = bots.Collector(run, rollouts=1)
    collector.expect(batch)

    async def score() -> float:
        began = time.monotonic()
        for task in range(4):
            collector.add(f"t{task}", 1)
            await asyncio.sleep(0)
        return time.monotonic() - began

    from tests.client.recorder import never

    recorder.answers["ReportOutcomes"] = never
    assert asyncio.run(score()) < 0.5


def test_a_task_that_nobody_expects_is_refused(run: bots.Run) -> None:
    """The message says what is expected."""
    collector = bots.Collector(run, rollouts=1)
    with pytest.raises(bots.InvalidArgumentError, match="where: got 't9', must be a task of an expected batch"):
        collector.add("t9", 1)
    with pytest.raises(bots.InvalidArgumentError, match="must be a task or a batch of one task"):
        collector.add(run.select(2), 1)
