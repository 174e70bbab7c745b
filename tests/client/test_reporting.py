"""One report has one id, and ranks need no collective."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import bots
from tests.client.recorder import Recorder, fails


def ids_of(recorder: Recorder) -> list[str]:
    return [call.request.request_id for call in recorder.of("ReportOutcomes")]


def test_a_batch_reported_twice_is_one_report(recorder: Recorder, run: bots.Run) -> None:
    """By hand, by a retry library or by every rank that has the gathered outcomes: the request id is the same."""
    batch = run.select(4)
    batch.report([1, 2, 3, 4], 4)
    batch.report([1, 2, 3, 4], 4)
    pickle.loads(pickle.dumps(batch)).report([1, 2, 3, 4], 4)
    batch[:].report([1, 2, 3, 4], 4)
    batch.report_rewards([[1, 0]] * 4)
    assert len(ids_of(recorder)) == 5
    assert len(set(ids_of(recorder))) == 1


def test_parts_and_other_batches_are_other_reports(recorder: Recorder, run: bots.Run) -> None:
    """A part, a named part of the rollouts, or another selection of equal tasks has another id."""
    batch = run.select(4)
    for reported in (batch, batch[::2], batch[1::2], batch[0], run.select(4)):
        reported.report(1, 2)
    batch.report(1, 2, part="second half")
    assert len(set(ids_of(recorder))) == 6
    batch[0::2].report(1, 2)
    assert len(set(ids_of(recorder))) == 6


def test_an_error_carries_the_request_id(recorder: Recorder, client: bots.Client) -> None:
    """A free report, an update or a restore that failed can be repeated as the same call."""
    run = client.run("d", "r")
    for method, call in (
        ("UpdateRun", lambda **options: run.update(target=0.4, **options)),
        ("RestoreRun", lambda **options: run.restore(version=0, **options)),
        ("RetireTasks", lambda **options: run.retire(["t1"], **options)),
    ):
        recorder.answers[method] = fails(grpc.StatusCode.INTERNAL, times=1, then=recorder.answers.get(method))
        with pytest.raises(bots.InternalError) as caught:
            call()
        call(request_id=caught.value.request_id)
        first, second = (call.request.request_id for call in recorder.of(method))
        assert first == second == caught.value.request_id


def test_a_part_reports_and_releases_only_itself(recorder: Recorder, run: bots.Run) -> None:
    """The selection is named, and only the part's tasks are sent."""
    batch = run.select(8, lease_seconds=60, policy_step=2)
    batch[1::4].report([1, 2], 4, policy_step=3)
    (report,) = [call.request for call in recorder.of("ReportOutcomes")]
    assert (report.selection_id, list(report.tasks)) == (batch.selection_id, [1, 5])
    assert (report.policy_step, report.selection_policy_step) == (3, 2)
    batch[2:4].release()
    batch.release()
    part, whole = (call.request for call in recorder.of("ReleaseSelection"))
    assert (part.selection_id, list(part.tasks), list(whole.tasks)) == (batch.selection_id, [2, 3], [])


def test_slices_are_batches(run: bots.Run) -> None:
    """Slices, masks and single tasks keep every column, and the place in the selection."""
    batch = run.select(6)
    part = batch[1::2][1:]
    assert part.tasks.tolist() == [3, 5]
    assert part.ids == ["t3", "t5"]
    assert part.positions.tolist() == [3, 5]
    assert batch[batch.tasks > 3].tasks.tolist() == [4, 5]
    assert [len(one) for one in batch] == [1] * 6
    assert batch[-1].ids == ["t5"]
    assert (batch.whole, part.whole, batch[:].whole, batch[::-1].whole) == (True, False, True, False)


def test_rows_of_a_rank(run: bots.Run) -> None:
    """Each task G times in a row, cut into equal blocks, as trainers shard their rollouts."""
    batch = run.select(4)
    assert batch.rows(repeat=2).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [batch.rows(repeat=2, rank=rank, world=2).tolist() for rank in (0, 1)] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    with pytest.raises(bots.InvalidArgumentError, match=r"world: got 3, must divide the number of rollouts \(4\)"):
        batch.rows(world=3)
    with pytest.raises(bots.InvalidArgumentError, match="rank: got 2, must be between 0 and 1"):
        batch.rows(rank=2, world=2)


def test_reporting_an_empty_batch_is_nothing(recorder: Recorder, run: bots.Run) -> None:
    """A batch that allow_fewer left empty, or an empty list, needs no special case."""
    assert run.select(4)[:0].report([], 2) is None
    assert run.report([], [], []) is None
    assert recorder.of("ReportOutcomes") == []


def test_ids_are_never_taken_for_row_numbers(recorder: Recorder, address: str) -> None:
    """Whole numbers mean ids if the dataset has ids, also while that is not known yet; rows=True says otherwise."""
    with bots.Client(address) as client:
        run = client.run("d", "r")
        run.report([3], 1, 2)
        run.report(np.array([3, 5], dtype=object), 1, 2)
        run.report([3], 1, 2, rows=True)
    first, second, third = (call.request for call in recorder.of("ReportOutcomes"))
    assert (list(first.ids), list(first.tasks)) == (["3"], [])
    assert (list(second.ids), list(second.tasks)) == (["3", "5"], [])
    assert (list(third.ids), list(third.tasks)) == ([], [3])


def test_ranks_with_one_key_get_one_batch_without_a_collective(real_address: str) -> None:
    """Same job, same incarnation, same key: one selection, whatever was reported in between."""

    def rank(number: int) -> bots.Batch:
        with bots.Client(real_address, job="trl", incarnation="start 1", timeout=20) as client:
            client.create_dataset("d", size=500)
            batch = client.create_run("d", "r").select(8, key="step-17", policy_step=1)
            batch[number::4].report(1, 2)
            return batch

    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(rank, range(4)))
    assert len({batch.selection_id for batch in batches}) == 1
    assert len({tuple(batch.tasks) for batch in batches}) == 1
    with bots.Client(real_address, job="trl", incarnation="start 2", timeout=20) as client:
        run = client.run("d", "r")
        assert run.select(8, key="step-17").selection_id != batches[0].selection_id
        assert run.select(8, key="step-18").selection_id != run.select(8, key="step-17").selection_id
        assert run.summary().total.outcomes == 8


@pytest.mark.parametrize("how", ["whole", "ranks", "rollouts"])
def test_parts_of_a_selection_are_one_update(real: bots.Client, how: str) -> None:
    """Reported whole, per rank or per rollout: the same posterior, and the leases of what was reported end."""
    weak = np.linspace(0.1, 0.4, 40)
    real.create_dataset("d", weak=weak, strong=weak + 0.4)
    run = real.create_run("d", how)
    wins = np.random.default_rng(0).random((3, 8, 4)) < 0.5
    for step in range(3):
        batch = run.select(8, seed=step, lease_seconds=60)
        if how == "whole":
            batch.report(wins[step].sum(1), 4)
        elif how == "ranks":
            for rank in range(2):
                batch[rank::2].report(wins[step, rank::2].sum(1), 4)
                assert run.summary().live_leases == 4 * (1 - rank)
        else:
            for rollout in range(4):
                batch.report(wins[step, :, rollout], 1, part=rollout)
        whole = real.create_run("d", "reference")
        whole.report(batch.tasks, wins[step].sum(1), 4, selection_id=batch.selection_id)
    assert run.summary().total.updates == 3
    np.testing.assert_allclose(run.posteriors(), whole.posteriors(), rtol=0, atol=1e-9)


def test_gathered_outcomes_reported_by_every_rank_count_once(real: bots.Client) -> None:
    """A repeat changes nothing, and other content under the same id is refused loudly."""
    real.create_dataset("d", size=50)
    run = real.create_run("d", "r")
    batch = run.select(8)
    copies: list[Any] = [pickle.loads(pickle.dumps(batch)) for _ in range(3)]
    assert [batch.report(4, 8), *(copy.report(4, 8) for copy in copies)] == [1, 1, 1, 1]
    assert run.summary().total.rollouts == 64
    with pytest.raises(bots.InvalidArgumentError) as caught:
        batch.report(5, 8)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_groups_without_spread_are_not_effective(real: bots.Client) -> None:
    """The effective task ratio is the one that the trainer's advantage sees."""
    real.create_dataset("d", size=50)
    run = real.create_run("d", "r")
    run.select(8).report_rewards([[0.5] * 8] * 8)
    assert run.summary().total.effective_task_ratio == 0
    run.select(8).report_rewards([[1.0, 0.0]] * 8)
    assert run.summary().total.effective_task_ratio == 0.5
